"""A saved model at work: `generate` and `eval` on a checkpoint, through the same engine that RL samples with."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

from deepwright import weights
from deepwright.evaluate import Budgeted, Evaluation, Generation, evaluate, votes, write_generations
from deepwright.inference.engine import Engine
from deepwright.recipe.acquaintance import Acquaintance
from deepwright.recipe.answering import cut, open_engine, stopping
from deepwright.recipe.requests import EvalRequest, GenerateRequest
from deepwright.recipe.resolve import fill
from deepwright.recipe.session import CONFIG, model_folder, run_config
from deepwright.recipe.settings import TaskChoice
from deepwright.recipe.watching import watched
from deepwright.rl.outside import KEY, OutsideSampler
from deepwright.tasks import FAMILIES, DataFile, Split, Task
from deepwright.tasks.row_files import files_of
from deepwright.tasks.task import ChatTask
from deepwright.text import Tokenizer, UnknownWord

USUAL_PROBLEMS = 200
ASK_ALL = "held_out_of=1"  # the option of a file that is asked as a whole


def generate_texts(request: GenerateRequest) -> Iterator[tuple[str, str]]:
    """The n completions of one prompt, without the prompt and the end token, each with where it was cut, or ''."""
    engine, tokenizer, place = open_engine(request.folder, request.threads)
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    try:
        prompt = (
            start + tokenizer.encode(request.prompt)
            if request.raw
            else tokenizer.encode_prompt(request.prompt)
        )
    except UnknownWord as error:
        known = Acquaintance(request.folder, place, engine.model.config, tokenizer)
        raise ValueError(known.unknown(error.word)) from None
    sampling = stopping(request.sampling, tokenizer)
    for one in engine.sample([prompt], sampling)[0]:
        yield tokenizer.decode(one.token_ids), cut(one.token_ids, sampling, engine.context)


def evaluate_all(request: EvalRequest) -> Iterator[Evaluation]:
    """Samples and scores each task, at each budget if there are any. Where the model's folder lies in a run, the held-out problems are those of
    the run: the model has not seen them."""
    tasks = [task_of(request, name) for name in request.tasks or ("",)]
    counts = [how_many(request, task) for task in tasks]  # reads files, before a model is opened
    if request.save and not Path(request.save).parent.is_dir():
        raise ValueError(
            f"--save is {request.save!r}, but there is no folder {Path(request.save).parent}"
        )
    sampler, tokenizer = open_sampler(request)
    limits = [
        (Budgeted(sampler, tokenizer, budget, request.max_tokens), budget)
        for budget in request.budgets
    ] or [(sampler, 0)]
    asked = {
        name: getattr(request, name)
        for name in ("samples", "split", "temperature", "top_p", "seed")
    }
    generations: list[Generation] = []
    for (task, problems), (limited, budget) in itertools.product(zip(tasks, counts), limits):
        asked |= {"problems": problems, "max_tokens": budget + request.max_tokens}
        with watched(limited, problems * request.samples, brief=False) as judged:
            found = evaluate(limited, tokenizer, task, judged=judged, **asked)
        generations += found.generations
        if request.save:
            write_generations(generations, request.save)
        yield found


def how_many(request: EvalRequest, task: Task) -> int:
    usual = min(USUAL_PROBLEMS, task.size(request.split))
    return usual if request.problems is None else request.problems


def open_sampler(request: EvalRequest) -> tuple[Engine | OutsideSampler, Tokenizer]:
    """The own engine on a folder, or a server with the weights it has."""
    if not request.model.startswith(("http://", "https://")):
        if request.tokenizer:
            raise ValueError(
                f"--tokenizer is {request.tokenizer!r}, but the folder {request.model} has its own: only a URL needs one"
            )
        return open_engine(request.model, request.threads)[:2]
    if not request.tokenizer:
        raise ValueError(
            f"{request.model} is a URL: --tokenizer FOLDER says how the served model reads and writes tokens"
        )
    tokenizer = weights.load_tokenizer(model_folder(request.tokenizer))
    key = os.environ.get(KEY, "")
    size = tokenizer.vocab_size
    return OutsideSampler(request.model, request.served, key=key, vocabulary=size), tokenizer


def task_of(request: EvalRequest, name: str = "") -> Task:
    """The named task; without a name that of the run, or countdown. A file is asked as a whole,
    unless the run has trained on it: then as the run has split it."""
    of_run = fill(TaskChoice(), run_config(Path(request.model)).get("task", {}), CONFIG)
    asked, learned = files_in(name, "held_out"), files_in(of_run.name, "train")
    if not name or asked & learned or (name == of_run.name and not asked):
        choice, options = of_run, request.options
    else:
        choice = TaskChoice(name, of_run.seed)
        options = (ASK_ALL, *request.options) if asked else request.options
    changes = {"options": (*choice.options, *options)} | (
        {} if request.task_seed is None else {"seed": request.task_seed}
    )
    task = dataclasses.replace(choice, **changes).judge()
    chats = isinstance(task, ChatTask)
    return dataclasses.replace(task, reading=request.reading) if chats else task


def files_in(name: str, split: Split) -> set[Path]:
    """The files of a task's name that are read for a split; none where it is of no files."""
    family, _, path = name.partition(":")
    of_files = path and FAMILIES.get(family) is DataFile
    return {file.resolve() for file in files_of(Path(path), split)} if of_files else set()


def eval_lines(request: EvalRequest) -> Iterator[list[str]]:
    """What `eval` prints, piece by piece: a block for each task, or with budgets a table, row by row."""
    for place, found in enumerate(evaluate_all(request)):
        row = place % max(1, len(request.budgets))
        yield (
            describe_budget(found, request.budgets[row], row == 0)
            if request.budgets
            else describe(found)
        )


def describe_budget(evaluation: Evaluation, budget: int, heading: bool) -> list[str]:
    """A row of a table, under its heading where asked: accuracy of one answer, and of the majority of more and more, at one budget."""
    e = evaluation
    cells = {"pass@1": in_cell(e.pass_at_1, e.pass_at_1_se, e.intervals["pass@1"])}
    cells |= {
        f"cons@{k}": in_cell(vote.value, vote.standard_error, vote.interval)
        for k, vote in votes(e.generations).items()
        if k > 1
    }
    row = (
        f"  {budget:>6}{''.join(f'  {cell:>14}' for cell in cells.values())}  {e.mean_length:>6.1f}"
    )
    names = f"  budget{''.join(f'  {name:>14}' for name in cells)}  length"
    failed = (
        [f"  the verifier failed on {e.verifier_failures} completions; their problems are left out"]
        if e.verifier_failures
        else []
    )
    return [*([heading_of(e), names] if heading else []), row, *failed]


def heading_of(evaluation: Evaluation) -> str:
    """What was asked, and of how many problems that there are."""
    e = evaluation
    asked = f"{e.problems:,} {e.split.replace('_', '-')} problems of {e.task}"
    of_all = "all there are" if e.problems == e.size else f"of {e.size or e.problems:,}"
    return (
        f"{asked}, {e.samples} samples each, T = {e.temperature:g}, top-p = {e.top_p:g} ({of_all})"
    )


def describe(evaluation: Evaluation) -> list[str]:
    """An evaluation as lines for a terminal."""
    e = evaluation
    errors = {"pass@1": (e.pass_at_1, e.pass_at_1_se)}
    errors |= {f"pass@{k}": (value, e.pass_at_k_se[k]) for k, value in e.pass_at_k.items()}
    errors |= {f"cons@{k}": (value, e.cons_at_k_se[k]) for k, value in e.cons_at_k.items()}
    lines = [heading_of(e)]
    lines += [
        f"  {name:<12}  {with_error(*figure, e.intervals.get(name))}"
        for name, figure in errors.items()
    ]
    if len(e.by_kind) > 1:
        width = max(map(len, e.by_kind))
        lines += [
            f"    {kind:<{width}}  {value:.3f} ({count} problems)"
            for kind, (value, count) in e.by_kind.items()
        ]
    lines.append(f"  right format  {e.format_rate:.3f} ({e.reading} reading)")
    lines.append(
        f"  mean length   {e.mean_length:.1f} tokens, {e.truncated_rate:.1%} cut at {e.max_tokens}"
    )
    if e.self_check_rate is not None:
        lines.append(f"  self-checks   in {e.self_check_rate:.1%} of the answers")
    if e.verifier_failures:
        lines.append(
            f"  the verifier failed on {e.verifier_failures} completions; their problems are left out"
        )
    return lines


def with_error(
    value: float, error: float | None, interval: tuple[float, float] | None = None
) -> str:
    """A share with its standard error and, where it is given, its 95% interval instead of an error
    that says nothing: 0, or none."""
    silent = error is None or math.isnan(error) or (interval is not None and not error)
    text = f"{value:.3f}" if silent else f"{value:.3f} ± {error:.3f}"
    return f"{text} (95%: {interval[0]:.3f} to {interval[1]:.3f})" if interval else text


def in_cell(value: float, error: float | None, interval: tuple[float, float]) -> str:
    """The same within 14 characters: "0.000 to 0.037" where the error says nothing."""
    silent = error is None or math.isnan(error) or not error
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if silent else with_error(value, error)
