"""Samples of a model that are worth learning from: many are drawn, few are kept, and why the others were dropped is counted.

Kept are right answers in the asked format that read well: one language, no repeated steps, not too long (R1 sections 2.3.1 and 2.3.3). Where there
is no right answer, a judge takes its place: a function of (problem, completion) that names what it minds, or None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepwright.data.conversations import Document, documents_of
from deepwright.evaluate.scoring import prompt_ids
from deepwright.files import read_json, read_rows, write_json, write_records
from deepwright.recipe.watching import watched
from deepwright.refusals import expect, expect_each, expect_fields
from deepwright.rl.measures import repeated_share
from deepwright.rl.rollout import score_rollouts
from deepwright.rl.types import Rollout
from deepwright.sampler import Sampler, Sampling
from deepwright.tasks import Problem, Task
from deepwright.text import Tokenizer
from deepwright.text.languages import consistency, language_of
from deepwright.text.thoughts import split_thought

KEPT, DROPPED = "kept.jsonl", "dropped.json"
UNREADABLE = "a token that stands for no word"
Minds = Callable[[Problem, str], str | None]


@dataclass(frozen=True)
class HarvestSettings:
    problems: int = 600  # training problems that are asked
    samples: int = 4  # completions of each
    temperature: float = 1.0
    per_problem: int = 1  # kept of one problem at most
    longest: int = 160  # tokens of a kept completion

    def __post_init__(self) -> None:
        expect_each(
            self, ("problems", "samples", "per_problem", "longest"), lambda n: n >= 1, "at least 1"
        )
        expect(self.temperature > 0, "temperature", self.temperature, "a positive number")


def harvest(
    settings: HarvestSettings, task: Task, sampler: Sampler, tokenizer: Tokenizer, folder: Path, max_tokens: int, seed: int,
    judge: Minds | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of prompt and completion, as fine-tuning reads them; kept in folder/kept.jsonl and not drawn again, with folder/dropped.json beside it.

    ValueError when nothing is kept, with the reasons."""
    if (folder / KEPT).exists():
        return read_kept(folder / KEPT)
    problems = [task.problem(i, "train") for i in range(settings.problems)]
    prompts = [prompt_ids(tokenizer, problem) for problem in problems]
    asked = Sampling(
        max_tokens, settings.temperature, stop_ids=tokenizer.stop_ids, n=settings.samples, seed=seed
    )
    with watched(sampler, len(prompts) * settings.samples, f"sampling for {folder.name}"):
        sampled = sampler.sample(prompts, asked)
    groups = score_rollouts(task, tokenizer, problems, prompts, sampled)
    rows, reasons = [], Counter[str]()
    for group in groups:
        kept = 0
        for rollout in group.rollouts:
            why = why_not(rollout, settings.longest, judge) or (
                None if readable(tokenizer, rollout.text) else UNREADABLE
            )
            why = why or (
                "more than enough of its problem" if kept == settings.per_problem else None
            )
            reasons[why or "kept"] += 1
            if not why:
                kept += 1
                rows.append(row_of(rollout.problem, rollout.text))
    if not rows:
        down = next(
            (
                f"; the check failed: {r.score.detail}"
                for group in groups
                for r in group.rollouts
                if not r.scored
            ),
            "",
        )
        raise ValueError(
            f"none of {sum(reasons.values())} samples for {folder} was worth keeping: {dict(reasons.most_common())}{down}"
        )
    write_rows(folder, rows, reasons)
    return rows


def why_not(rollout: Rollout, longest: int, judge: Minds | None = None) -> str | None:
    """What speaks against learning from a sample, or None."""
    if rollout.truncated:
        return "cut at the token limit"
    if (
        why := judge(rollout.problem, rollout.text)
        if judge
        else ""
        if rollout.correct
        else rollout.score.verdict.value
    ):
        return why
    if consistency(
        split_thought(rollout.text).reasoning, language_of(rollout.problem.prompt)
    ) not in (1, None):
        return "mixes languages"
    if repeated_share(rollout.completion.token_ids) > 0:
        return "repeats itself"
    return "too long" if rollout.length > longest else None


def readable(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a sampled text can be encoded again: one with the token for unknown words cannot."""
    try:
        tokenizer.encode(text)
    except ValueError:
        return False
    return True


def read_kept(path: Path) -> list[dict[str, Any]]:
    return read_samples(path, {"prompt": str | list[dict[str, str]], "completion": str})


def read_samples(path: Path, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows that a run has drawn and written whole."""
    rows = []
    for where, row in read_rows(path):
        expect_fields(row, f"{path}, {where}", fields)
        rows.append(row)
    return rows


def read_dropped(folder: Path) -> dict[str, int]:
    """How many samples were kept, and dropped for which reason."""
    reasons = read_json(folder / DROPPED)
    expect_fields(reasons, str(folder / DROPPED), dict.fromkeys(reasons, int))
    return reasons


def kept_documents(path: Path, tokenizer: Tokenizer, length: int) -> list[Document]:
    """The kept samples as fine-tuning reads them, without those of more than `length` tokens.
    ValueError naming the row that is damaged, or when none is left."""
    documents = []
    rows = read_kept(path)
    for number, row in enumerate(rows, 1):
        try:
            documents += documents_of(row, tokenizer)
        except ValueError as error:
            raise ValueError(f"{path}, sample {number}: {str(error)[:400]}") from None
    short = [document for document in documents if document.length <= length]
    if not short:
        raise ValueError(f"{path} has no document of at most {length} tokens among {len(rows)}")
    return short


def row_of(problem: Problem, completion: str) -> dict[str, Any]:
    return {
        "prompt": list(problem.messages) or problem.prompt,
        "completion": completion,
        "kind": problem.kind,
    }


def write_rows(folder: Path, rows: Sequence[dict[str, Any]], reasons: Counter[str]) -> None:
    """The rows last, by rename: where they are, the rest is too."""
    folder.mkdir(exist_ok=True)
    write_json(folder / DROPPED, dict(reasons.most_common()))
    write_records(folder / KEPT, rows, plain=False)
