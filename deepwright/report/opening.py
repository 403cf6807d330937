"""What a report opens with: three tiles and one chart, before any table."""

from __future__ import annotations

from collections.abc import Iterator

from deepwright.report import spread
from deepwright.report.charts import Bar, bars
from deepwright.report.curves import accuracy, loss
from deepwright.report.figures import (
    MINUS,
    compact,
    count,
    duration,
    escape,
    number,
    percent,
    percent_with_error,
)
from deepwright.report.frame import not_yet
from deepwright.report.records import STAGES, STUDENTS, Run, interval_in
from deepwright.report.stages import Figure, figure_of, share

MOST_TILES = 3
BASE, LARGE, LAST, SMALL = 6, 1, 3, 4  # colours


def opening(run: Run) -> str:
    """Tiles and chart of a run of any kind; a line that says what is waited for where there is nothing yet."""
    tiles = "".join(list(_tiles(run))[:MOST_TILES])
    chart = stage_bars(run) or accuracy(run) if run.has("zero") else ""
    chart = chart or next(filter(None, (loss(run, stage) for stage in ("sft", "base"))), "")
    shown = chart or not_yet("the first figures follow the first steps of training.")
    return f'<section id="opening"><div class="tiles">{tiles}</div>{shown}</section>'


def stage_bars(run: Run) -> str:
    """pass@1 of every stage that was judged, the small model's apart; "" for fewer than three stages, which are before and after."""
    judged = [stage for stage in STAGES if figure_of(run.labelled(stage), "pass_at_1")]
    if len(judged) < 3:
        return ""
    measured = spread.measured_for(run)
    large = [_bar(run, stage, measured) for stage in judged if stage not in STUDENTS]
    small = [_bar(run, stage, measured) for stage in judged if stage in STUDENTS]
    others = ""
    if measured:
        others = f" Grey band: from the lowest to the highest of {len(measured.runs)} runs with these settings."
    return bars("Right answers to held-out problems, by stage (pass@1)", [large, small], _BARS + others)  # fmt: skip


def _bar(run: Run, stage: str, measured: spread.Spread | None) -> Bar:
    record = run.labelled(stage)
    value, error = figure_of(record, "pass_at_1") or (0.0, None)
    ends = interval_in(record, "pass@1")
    low, high = ends if ends and not error else (value - (error or 0.0), value + (error or 0.0))
    colour = {"base": BASE, "student": BASE, "align": LAST}.get(stage, LARGE)
    colour = SMALL if stage in STUDENTS[1:] else colour
    band = measured.stages.get(stage) if measured else None
    return Bar(
        STAGES[stage], value, percent_with_error(value, error or None), low, high, colour, band
    )


def _tiles(run: Run) -> Iterator[str]:
    """The figures that a reader wants first, the most wanted one first."""
    base = figure_of(run.labelled("base"), "pass_at_1")
    for stage, title, how in _JUDGED:
        record = run.labelled(stage)
        if figure := figure_of(record, "pass_at_1"):
            alone = "start" in run.config and "stages" not in run.config  # `rl` on any model
            yield tile(
                "Right answers" if alone else title, share(record), how + _over(figure, base)
            )
    if base and not any(run.labelled(stage) for stage, *_ in _JUDGED):
        yield tile("Base", share(run.labelled("base")), "pass@1 before any reward")
    if not base:
        yield from _losses(run)
    yield _size(run)
    if run.has("zero") and (length := number((run.after or {}).get("mean_length"))) is not None:
        before = number((run.before or {}).get("mean_length"))
        note = (
            "tokens on average"
            if before is None
            else f"tokens on average; before {compact(before)}"
        )
        yield tile("Answer length", compact(length), note)


def _losses(run: Run) -> Iterator[str]:
    """Of a run that is not asked any problems."""
    for stage in ("sft", "base"):
        last, tokens = run.series(stage, "loss"), run.last(stage, "tokens")
        if held := run.series(stage, "validation_loss"):
            first = f"; {held[0][1]:.3f} at the first" if len(held) > 1 else ""
            yield tile("Validation loss", f"{held[-1][1]:.3f}", f"nats/token, step {held[-1][0]:g}{first}")  # fmt: skip
        elif last:
            yield tile("Training loss", f"{last[-1][1]:.3f}", f"nats/token, step {last[-1][0]:g}; {last[0][1]:.3f} at the first")  # fmt: skip
        if bits := run.last(stage, "bits_per_byte"):
            yield tile("Bits per byte", f"{bits:.3f}", "on held-out text, whatever the tokenizer")
        if tokens and last:
            yield tile("Read", f"{count(tokens)} tokens", f"in {last[-1][0]:g} steps")


def _size(run: Run) -> str:
    total, active = number(run.facts.get("parameters")), number(run.facts.get("active_parameters"))
    part = f", {count(active)} of them for each token" if active and active != total else ""
    size = f"{count(total)} parameters{part}" if total else "of wall time"
    if run.seconds is None:
        return tile("Model", size, "") if total else ""
    return tile("Time so far" if run.running else "Time", duration(run.seconds), size)


def tile(title: str, figure: str, note: str) -> str:
    return (
        f'<div class="tile"><h3>{escape(title)}</h3><div class="big">{escape(figure)}</div>'
        f'<p class="note">{escape(note)}</p></div>'
    )


def _over(figure: Figure, base: Figure | None) -> str:
    if base is None:
        return ""
    rise = f"{100 * (figure[0] - base[0]):+.1f}".replace("-", MINUS)
    return f": {rise} points over the base at {percent(base[0])}"


# the stages that have a tile, the end of the recipe first
_JUDGED = (
    ("align", "R1", "pass@1 after the whole recipe"),
    ("zero", "R1-Zero", "pass@1 by reinforcement learning alone"),
)
_BARS = (
    "Line at a bar's end: one standard error, or the 95% interval where all or nothing is right."
)
