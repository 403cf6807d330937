"""Several runs of one recipe side by side, as tables in Markdown: what every stage reached, and whether a comparison holds in each of them.

    python benchmarks/seeds.py runs/r1 runs/r1-seed1 runs/r1-seed2

Nothing is computed anew: figures come from the runs' evaluations.jsonl and run.json. A figure of one run has the standard error of its problems and
samples. That of several is their mean, and its standard error comes from the spread between them, which holds what training adds as well; of three it is
rough, so that it is not allowed below what the runs' own errors leave. The range is what a reader's own run is to be held against: rounding
moves a run as far as a seed does. Runs whose settings differ in more than their seeds, names and threads are told
apart in one line, not refused.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence

from deepwright.refusals import changes
from deepwright.report import stages
from deepwright.report.figures import MINUS, PLUS_MINUS, duration
from deepwright.report.records import STAGES, Run, read_run, table_in
from deepwright.report.spread import FREE
from deepwright.report.stages import COMPARISONS, Comparison, Figure

FIGURES = {  # title: (what follows the stage in the label of the evaluation, name in it)
    "pass@1": ("", "pass_at_1"),
    "answers in the format": ("", "format_rate"),
    "words of thoughts in the language of the problem": ("", "language_consistency"),
    "general requests that keep every rule": (" requests", "pass_at_1"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of runs")
    folders = parser.parse_args(arguments).runs
    try:
        runs = [read_run(folder) for folder in folders]
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if missing := [str(run.folder) for run in runs if not run.evaluations]:
        raise SystemExit(
            f"{missing[0]} has no evaluations.jsonl with a record in it: no stage of it has been judged"
        )
    print("\n\n".join(tables(runs)))


def tables(runs: Sequence[Run]) -> list[str]:
    """Every table and line of the comparison of runs, in the order in which they are printed. Figures are in percent or points."""
    heads = _heads(runs) + (["mean", "range"] if len(runs) > 1 else [])
    shown = [f"{run.folder}: {_facts(run)}" for run in runs] + _differing(runs)
    for title, (end, name) in FIGURES.items():
        found = {stage: [figure(run, f"{stage}{end}", name) for run in runs] for stage in STAGES}
        rows = [
            [f"`{stage}`", *_cells(figures)] for stage, figures in found.items() if any(figures)
        ]
        shown += [f"**{title}**, %\n\n{_markdown(['stage', *heads], rows)}"] if rows else []
    compared = [(one, [difference(run, one) for run in runs]) for one in COMPARISONS]
    rows = [
        [_lead(one), *_cells(found, signed=True), _outcome(found)]
        for one, found in compared
        if any(found)
    ]
    wins = [
        _percent(stages.figure_of(table_in(run.facts, "win_rate"), "after", "standard_error"))
        for run in runs
    ]
    rows += (
        [["answers preferred after alignment, %", *_cells(wins), _outcome(wins, even=50.0)]]
        if any(wins)
        else []
    )
    shown += (
        [f"**Differences**, points\n\n{_markdown(['comparison', *heads, 'beyond 2 errors'], rows)}"]
        if rows
        else []
    )
    return shown


def _heads(runs: Sequence[Run]) -> list[str]:
    """A run is called by its seed, or by its folder where two have the same seed or one has none."""
    given = [run.setting("seed") for run in runs]
    if None in given or len(set(given)) < len(given):
        return [run.folder.name for run in runs]
    return [f"seed {seed}" for seed in given]


def figure(run: Run, label: str, name: str) -> Figure | None:
    """A share of the last held-out evaluation under a label, in percent, and its error; None where it was not measured."""
    return _percent(stages.figure_of(run.labelled(label), name))


def difference(run: Run, one: Comparison) -> Figure | None:
    """`new` less `old`; None where one was not measured."""
    new, old = (figure(run, stage, one.name) for stage in (one.new, one.old))
    return stages.difference(new, old) if new and old else None


def mean(figures: Sequence[Figure]) -> Figure:
    """The mean over runs and its standard error: from their spread, but not below what their own errors leave."""
    values, own = zip(*figures)
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), max(
        spread, math.hypot(*own) / len(own)
    ) if None not in own else spread


def _percent(found: Figure | None) -> Figure | None:
    return found and (100 * found[0], None if found[1] is None else 100 * found[1])


def _cells(figures: Sequence[Figure | None], signed: bool = False) -> list[str]:
    """Each run's figure; of several also mean and range, where all of them have one."""
    cells = [_text(found, signed) for found in figures]
    if len(figures) == 1:
        return cells
    known = [found for found in figures if found]
    if len(known) < len(figures):
        return [*cells, "", ""]
    low, high = (_text((end(value for value, _ in known), None), signed) for end in (min, max))
    return [*cells, _text(mean(known), signed), f"{low} to {high}"]


def _text(found: Figure | None, signed: bool) -> str:
    if found is None:
        return ""
    value, error = found
    return f"{value:{'+' if signed else ''}.1f}".replace("-", MINUS) + (
        "" if error is None else f" {PLUS_MINUS} {error:.1f}"
    )


def _outcome(figures: Sequence[Figure | None], even: float = 0.0) -> str:
    """In how many runs a figure lies above, and in how many below `even`, by more than two of its own errors."""
    known = [(value - even, error) for value, error in filter(None, figures) if error is not None]
    above, below = (sum(sign * value > 2 * error for value, error in known) for sign in (1, -1))
    return f"{above} above, {below} below, of {len(known)}"


def _lead(one: Comparison) -> str:
    return f"`{one.new}` {MINUS} `{one.old}`{'' if one.name == 'pass_at_1' else ', one language'}"


def _facts(run: Run) -> str:
    """How a run ended and what it took."""
    spent = [
        f"{stage} {duration(value)}"
        for stage in ("distill", "student_by_rl")
        if (value := run.spent(stage))
    ]
    told = [str(run.facts[name]) for name in ("status", "machine") if name in run.facts]
    return (
        ", ".join([*told, *([duration(run.seconds)] if run.seconds else []), *spent])
        or "no run.json"
    )


def _differing(runs: Sequence[Run]) -> list[str]:
    first, *others = (
        {name: value for name, value in run.config.items() if name not in FREE} for run in runs
    )
    names = sorted({name for other in others for name, *_ in changes(first, other)})
    return [f"These runs differ in more than their seeds: {', '.join(names)}."] if names else []


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    main()
