"""Several runs in one page: what they reached side by side, the settings in which they differ, their curves on top of each other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from deepwright.files import write_whole
from deepwright.metrics import GLOSSARY
from deepwright.refusals import flatten
from deepwright.report.background import in_short
from deepwright.report.charts import Bar, Line, bars, plot
from deepwright.report.figures import (
    GLUE,
    MINUS,
    PLUS_MINUS,
    count,
    duration,
    escape,
    number,
    percent_with_error,
)
from deepwright.report.frame import LANGUAGES, document, footer, grid, paragraph, section, table
from deepwright.report.listing import command_of
from deepwright.report.records import STAGES, Run, interval_in, moving_average
from deepwright.report.spread import VERSION
from deepwright.report.stages import difference, figure_of, share

COLOURS = (1, 2, 3, 4, 5, 6)
SMOOTHED = 5  # steps that a curve is the mean of
# what is drawn of a stage, where two runs have it
CURVES = {
    "accuracy": "Accuracy",
    "loss": "Loss",
    "validation_loss": "Validation loss",
    "reward": "Reward",
    "mean_length": "Answer length",
    "entropy": "Entropy",
    "language_consistency": "One language",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
}
_ROWS = (("pass@1", "", "pass_at_1"), ("format", "", "format_rate"), ("one language", "", "language_consistency"),
         ("requests", " requests", "pass_at_1"))  # fmt: skip
_ENDS = {"loss": "last loss", "validation_loss": "last validation loss"}


def write_comparison(runs: Sequence[Run], path: Path) -> Path:
    """The page of two or more runs, written whole."""
    path = Path(path)
    write_whole(path, comparison(runs, time.time()).encode(errors="replace").decode())
    return path


def comparison(runs: Sequence[Run], now: float) -> str:
    """The HTML text, written at `now` (seconds since 1970)."""
    names = names_of(runs)
    parts = (
        _opening(runs, names),
        _facts(runs, names),
        _figures(runs, names),
        _settings(runs, names),
        _curves(runs, names),
    )
    title = f'<h1 translate="no">{escape(", ".join(names))}</h1>'
    body = f"<header>{LANGUAGES}{title}</header><main>{''.join(parts)}{footer(now)}</main>"
    return document(f"{', '.join(names)}: runs compared", body, running=False, written=now)


def names_of(runs: Sequence[Run]) -> list[str]:
    """The names of their folders; where two have the same, with what stands before it."""
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder.resolve()) for run in runs]


def _opening(runs: Sequence[Run], names: Sequence[str]) -> str:
    """pass@1 of every stage, one bar for each run; the loss where no run was asked anything."""
    groups = []
    for stage in STAGES:
        group = []
        for run, name, colour in zip(runs, names, cycle(COLOURS)):
            record = run.labelled(stage)
            if (figure := figure_of(record, "pass_at_1")) is None:
                continue
            value, error = figure
            ends = interval_in(record, "pass@1")
            low, high = ends if ends and not error else (value - (error or 0), value + (error or 0))
            group.append(
                Bar(
                    STAGES[stage],
                    value,
                    percent_with_error(value, error or None),
                    low,
                    high,
                    colour,
                    code=name,
                )
            )
        groups.append(group)
    drawn = bars("Right answers to held-out problems, by stage (pass@1)", groups, _BARS)
    return f'<section id="opening">{drawn}</section>' if drawn else ""


def _facts(runs: Sequence[Run], names: Sequence[str]) -> str:
    rows = [
        [
            f"<code>{escape(name)}</code>",
            f"<code>{escape(command_of(run.config, run.facts))}</code>",
            escape(run.facts.get("status", "")),
            escape("" if run.setting("seed") is None else run.setting("seed")),
            count(size) if (size := number(run.facts.get("parameters"))) else "",
            f'<span translate="no">{escape(run.facts.get("started", ""))}</span>',
            duration(run.seconds),
            f'<span translate="no">{escape(run.setting("machine") or "")}</span>',
        ]
        for run, name in zip(runs, names, strict=True)
    ]
    head = ["run", "command", "status", "seed", "parameters", "started", "wall time", "machine"]
    return section("runs", "Runs", table(head, rows))


def _figures(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Figures of every stage; of two runs also their difference with its error."""
    two, rows = len(runs) == 2, []
    for stage in dict.fromkeys([*STAGES, "sft"]):
        of_stage = [*_shares(runs, stage), *_numbers(runs, stage)]
        places = [_where(stage), *[""] * len(of_stage)]  # named once
        rows += [[place, *row][: 2 + len(runs) + two] for place, row in zip(places, of_stage)]
    head = ["stage", "figure", *names, *["difference"] * two]
    shown = table(head, rows, numeric=2) if rows else ""
    return section("figures", "Figures side by side", shown, paragraph(_ERRORS, "soft") if rows and two else "")  # fmt: skip


def _shares(runs: Sequence[Run], stage: str) -> Iterator[list[str]]:
    for title, end, name in _ROWS:
        found = [run.labelled(f"{stage}{end}") for run in runs]
        figures = [figure_of(record, name) for record in found]
        if any(figures):
            yield [title, *(share(record, name) for record in found), _difference(figures)]


def _numbers(runs: Sequence[Run], stage: str) -> Iterator[list[str]]:
    lengths = [number(run.labelled(stage).get("mean_length")) for run in runs]
    ends = {title: [_last(run, stage, name) for run in runs] for name, title in _ENDS.items()}
    for title, values in {"length": lengths, **ends}.items():
        if any(value is not None for value in values):
            digits = ".4g" if title == "length" else ".4f"
            yield [title, *("" if one is None else f"{one:{digits}}" for one in values), ""]


def _last(run: Run, stage: str, name: str) -> float | None:
    """Of a stage that learns from texts: the loss of a policy says nothing of how good it is."""
    return None if run.series(stage, "reward") else run.last(stage, name)


def _difference(figures: Sequence[tuple[float, float | None] | None]) -> str:
    """The second less the first, in points; "" unless there are two."""
    if len(figures) != 2 or None in figures:
        return ""
    old, new = figures
    change, error = difference(new, old)
    spread = "" if error is None else f"{GLUE}{PLUS_MINUS}{GLUE}{100 * error:.1f}"
    return f"{100 * change:+.1f}".replace("-", MINUS) + spread


def _where(stage: str) -> str:
    return f"<span>{escape(STAGES.get(stage, stage))}</span> <code>{escape(stage)}</code>"


def differing(runs: Sequence[Run]) -> dict[str, list[object]]:
    """Dotted name -> what each run has there (None where it has nothing), of the settings in which they differ; names of runs apart."""
    flat = [flatten(run.config) for run in runs]
    names = sorted({name for one in flat for name in one} - {"run"})
    values = {name: [one.get(name) for one in flat] for name in names}
    return {name: found for name, found in values.items() if any(v != found[0] for v in found)}


def _settings(runs: Sequence[Run], names: Sequence[str]) -> str:
    found = differing(runs)
    rows = [
        [f"<code>{escape(name)}</code>", *(_value(value) for value in values)]
        for name, values in found.items()
    ]
    shown = table(["setting", *names], rows, numeric=9) if rows else paragraph(_SAME)
    version = paragraph(_VERSIONS, "soft") if VERSION in found else ""
    return section("settings", "Settings that differ", shown, version)


def _value(value: object) -> str:
    return "" if value is None else f"<code>{escape(in_short(value))}</code>"


def _curves(runs: Sequence[Run], names: Sequence[str]) -> str:
    drawn = []
    stages = dict.fromkeys([*STAGES, "sft", *(run.last_stage for run in runs)])
    for stage in stages:
        policy = any(run.series(stage, "reward") for run in runs)
        plots = [
            _overlaid(runs, names, stage, one) for one in CURVES if one != "loss" or not policy
        ]
        if figures := grid(*plots):
            drawn.append(f"<h3>{_where(stage)}</h3>{figures}")
    note = paragraph(f"Curves are means of up to {SMOOTHED} steps.", "soft")
    return section("curves", "Curves", *([note, *drawn] if drawn else []))


def _overlaid(runs: Sequence[Run], names: Sequence[str], stage: str, name: str) -> str:
    """One metric of one stage, a line for each run that has it; "" where fewer than two have."""
    lines = [
        Line(one, moving_average(run.series(stage, name), SMOOTHED), colour)
        for run, one, colour in zip(runs, names, cycle(COLOURS))
    ]
    if sum(len(line.points) > 1 for line in lines) < 2:
        return ""
    metric = GLOSSARY[name]
    zero = name not in ("loss", "validation_loss")
    return plot(CURVES[name], lines, unit=metric.unit, sentence=metric.sentence, zero=zero)


_BARS = (
    "Line at a bar's end: one standard error, or the 95% interval where all or nothing is right."
)
_ERRORS = (
    "The difference is the second run less the first, in points; errors are added in squares. They hold the luck of problems and samples, not that of "
    "training: two runs of other seeds differ by more."
)
_SAME = "The settings are the same."
_VERSIONS = "The runs are of different versions of the program, which may differ in more than their settings."
