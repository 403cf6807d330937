"""Evaluating a sampler on a task: n samples of each of the first P problems of a split, and every figure with its error bar (DeepSeek-R1 section 3).

The same problems, seed and limits give comparable numbers before and after training; greedy decoding is possible but has no spread to report.
Evaluating touches neither weights nor random state.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepwright.evaluate.estimators import Estimate, cons_at_k, over_problems, pass_at_1, pass_at_k
from deepwright.evaluate.reasoning import Habits, Reasoning, analyse, answer_value, habits
from deepwright.evaluate.scoring import completion_text, prompt_ids, score_completions
from deepwright.files import write_records
from deepwright.refusals import expect, expect_fields
from deepwright.sampler import Completion, Sampler, Sampling, StopReason
from deepwright.tasks import Problem, Score, Split, Task, Verdict
from deepwright.tasks.completions import Reading
from deepwright.tasks.task import ChatTask
from deepwright.text import Tokenizer

USUAL_KS = (4, 16, 64)
# what a record adds about the run; the rest of a record is the Evaluation
WHERE = ("stage", "step", "label")


# What the first runs did not measure, so that their records lack it.
ADDED = {"language_consistency_se", "size", "intervals", "reading"}
JUDGED_TOGETHER = 256  # completions


@dataclass(frozen=True)
class Generation:
    """One sampled answer, as it is saved."""

    problem: int
    sample: int
    kind: str
    prompt: str
    text: str
    verdict: str
    value: float
    detail: str
    formatted: bool
    truncated: bool
    length: int
    answer: Hashable | None = None  # what votes compare
    reasoning: Reasoning | None = None

    @property
    def correct(self) -> bool:
        return self.verdict == Verdict.CORRECT.value


@dataclass(frozen=True, kw_only=True)
class Evaluation(Habits):
    """The figures of one evaluation. Shares are fractions of all completions; None stands for what does not exist (a share of nothing, a task
    whose answers cannot be read for self-checks, a standard error over one problem)."""

    task: str
    split: str
    problems: int
    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    pass_at_1: float
    pass_at_1_se: float | None
    pass_at_k: dict[str, float]
    pass_at_k_se: dict[str, float | None]
    cons_at_k: dict[str, float]
    cons_at_k_se: dict[str, float | None]
    format_rate: float
    mean_length: float
    truncated_rate: float
    verifier_failures: (
        int  # completions whose check broke; their problems are left out of everything else
    )
    by_kind: dict[str, tuple[float, int]]  # accuracy, problems
    language_consistency_se: float | None = None
    size: int | None = None  # of the split that the problems are of
    # By "pass@1", "pass@4", "cons@4": 95%, also where all or nothing is right and a standard error
    # of 0 says nothing.
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    reading: str = "strict"  # how completions were read: strict or usual
    generations: tuple[Generation, ...] = field(default=(), repr=False, compare=False)

    def record(self, stage: str, step: int, label: str) -> dict[str, Any]:
        """One JSON-able line of evaluations.jsonl; the generations are saved apart."""
        values = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name != "generations"
        }
        for name in ("by_kind", "intervals"):
            values[name] = {key: list(pair) for key, pair in values[name].items()}
        return {"stage": stage, "step": step, "label": label, **values}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Evaluation:
        """The inverse of `record`, without generations. ValueError naming an unknown or missing key."""
        values = {
            name: value
            for name, value in record.items()
            if name not in WHERE and name != "decomposition"
        }
        known = {item.name for item in dataclasses.fields(cls)} - {"generations"}
        if odd := sorted((values.keys() ^ known) - ADDED):
            raise ValueError(
                f"evaluation record {'has unknown' if odd[0] in values else 'lacks'} key {odd[0]!r}, expected {sorted(known)}"
            )
        hints = typing.get_type_hints(cls)
        there = {name: hints[name] for name in known if name in values}
        expect_fields(values, "evaluation record", there)
        for k in (*values["pass_at_k"], *values["cons_at_k"]):
            counts = re.fullmatch("[1-9][0-9]{0,8}", k)
            expect(bool(counts), "evaluation record: k", k, "a positive number of samples")
        for name in ("by_kind", "intervals"):
            values[name] = {key: tuple(pair) for key, pair in values.get(name, {}).items()}
        return cls(**values)


def evaluate(
    sampler: Sampler,
    tokenizer: Tokenizer,
    task: Task,
    *,
    problems: int,
    samples: int,
    max_tokens: int,
    split: Split = "held_out",
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    ks: Sequence[int] | None = None,
    judged: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Samples `samples` completions of problems 0..problems-1 of `split` and measures them.

    `ks`: which pass@k and cons@k; by default those of 4, 16, 64 that `samples` allows. A k above `samples` is a ValueError, as is a split with too few
    problems. A problem with a completion whose verifier failed is left out whole (and counted); if that is all of them, a ValueError says why.
    `judged` is told 0 when judging begins, then how many completions were judged since it was told.
    """
    if not task.size(split):
        raise ValueError(f"{task.name} has no {split} problems")
    if not 1 <= problems <= task.size(split):
        raise ValueError(
            f"problems is {problems}, expected 1 to {task.size(split)}, the size of {task.name}'s {split} split"
        )
    ks = [k for k in USUAL_KS if k <= samples] if ks is None else list(ks)
    if any(not 1 <= k <= samples for k in ks):
        raise ValueError(
            f"pass@{max(ks)} was asked for with {samples} samples a problem, expected 1 <= k <= samples"
        )
    asked = [task.problem(i, split) for i in range(problems)]
    sampling = Sampling(
        max_tokens, temperature, top_p, stop_ids=tokenizer.stop_ids, n=samples, seed=seed
    )
    sampled = sampler.sample([prompt_ids(tokenizer, problem) for problem in asked], sampling)
    of_each = [
        (problem, completion)
        for problem, completions in zip(asked, sampled, strict=True)
        for completion in completions
    ]
    texts = [completion_text(tokenizer, completion) for _, completion in of_each]
    scores: list[Score] = []
    judged(0)
    for start in range(0, len(texts), JUDGED_TOGETHER):
        some = slice(start, start + JUDGED_TOGETHER)
        scores += score_completions(task, *zip(*of_each[some]), texts[some])
        judged(len(texts[some]))
    read = [
        read_generation(task, *one, i % samples, *two)
        for i, (one, two) in enumerate(zip(of_each, zip(texts, scores), strict=True))
    ]
    generations = [tuple(read[start : start + samples]) for start in range(0, len(read), samples)]
    settings = {
        "task": task.name,
        "split": split,
        "problems": problems,
        "size": task.size(split),
        "samples": samples,
        "temperature": temperature,
        "reading": reading_of(task),
    }
    return Evaluation(
        **settings, top_p=top_p, max_tokens=max_tokens, seed=seed, **measure(generations, ks)
    )


def reading_of(task: Task) -> Reading:
    return task.read_as if isinstance(task, ChatTask) else "strict"


def read_generation(
    task: Task, problem: Problem, completion: Completion, number: int, text: str, score: Score
) -> Generation:
    return Generation(
        problem=problem.index,
        sample=number,
        kind=problem.kind,
        prompt=problem.prompt,
        text=text,
        verdict=score.verdict.value,
        value=score.value,
        detail=score.detail,
        formatted=score.formatted,
        truncated=completion.stop is not StopReason.STOP,
        length=len(completion.token_ids),
        answer=answer_value(text, reading_of(task))
        if score.verdict in (Verdict.CORRECT, Verdict.WRONG) and completion.stop is StopReason.STOP
        else None,
        reasoning=analyse(task, problem, text),
    )


def measure(generations_Pn: Sequence[Sequence[Generation]], ks: Sequence[int]) -> dict[str, Any]:
    """All figures of an Evaluation from its generations."""
    failed = [
        one for answers in generations_Pn for one in answers if one.verdict == Verdict.FAILED.value
    ]
    whole = [
        answers
        for answers in generations_Pn
        if not any(one.verdict == Verdict.FAILED.value for one in answers)
    ]
    if not whole:
        raise ValueError(
            f"the verifier failed on {len(failed)} completions, so that no problem is left to evaluate: {failed[0].detail}"
        )
    flat = [one for answers in whole for one in answers]
    correct_Pn = [[one.correct for one in answers] for answers in whole]
    answers_Pn = [[one.answer for one in answers] for answers in whole]
    passes = {str(k): pass_at_k(correct_Pn, k) for k in ks}
    votes = {str(k): cons_at_k(answers_Pn, correct_Pn, k) for k in ks}
    once = pass_at_1(correct_Pn)
    named = {"pass@1": once} | {f"pass@{k}": one for k, one in passes.items()}
    named |= {f"cons@{k}": one for k, one in votes.items()}
    return {
        "pass_at_1": once.value,
        "pass_at_1_se": _error(once),
        "pass_at_k": {k: estimate.value for k, estimate in passes.items()},
        "pass_at_k_se": {k: _error(estimate) for k, estimate in passes.items()},
        "cons_at_k": {k: estimate.value for k, estimate in votes.items()},
        "cons_at_k_se": {k: _error(estimate) for k, estimate in votes.items()},
        "intervals": {name: estimate.interval for name, estimate in named.items()},
        "format_rate": statistics.fmean(one.formatted for one in flat),
        "mean_length": statistics.fmean(one.length for one in flat),
        "truncated_rate": statistics.fmean(one.truncated for one in flat),
        "verifier_failures": len(failed),
        "by_kind": _by_kind(whole),
        "language_consistency_se": _consistency_error(whole),
        **dataclasses.asdict(
            habits([(one.reasoning, one.correct) for one in flat if one.reasoning is not None])
        ),
        "generations": tuple(one for answers in generations_Pn for one in answers),
    }


def write_generations(generations: Sequence[Generation], path: str | Path) -> None:
    """One JSON line for each generation; the file appears whole, by rename."""
    rows = (
        dataclasses.asdict(one) | {"answer": None if one.answer is None else str(one.answer)}
        for one in generations
    )
    write_records(Path(path), rows)


def _by_kind(generations_Pn: Sequence[Sequence[Generation]]) -> dict[str, tuple[float, int]]:
    kinds: dict[str, list[float]] = {}
    for answers in generations_Pn:
        kinds.setdefault(answers[0].kind, []).append(
            statistics.fmean(one.correct for one in answers)
        )
    return {kind: (statistics.fmean(kinds[kind]), len(kinds[kind])) for kind in sorted(kinds)}


def _consistency_error(generations_Pn: Sequence[Sequence[Generation]]) -> float | None:
    """The standard error of mean language consistency: of the mean over problems, each with the mean over its thoughts with words."""
    said_Pn = [
        [c for one in answers if one.reasoning and (c := one.reasoning.consistency) is not None]
        for answers in generations_Pn
    ]
    means = [statistics.fmean(said_n) for said_n in said_Pn if said_n]
    return _error(over_problems(means)) if means else None


def _error(estimate: Estimate) -> float | None:
    return None if math.isnan(estimate.standard_error) else estimate.standard_error
