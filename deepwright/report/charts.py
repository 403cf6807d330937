"""Charts as HTML with inline SVG, written by hand: no plotting library is needed, colours follow the page, and a redraw costs milliseconds.

The SVG is stretched to whatever width the page has, with strokes that keep their thickness; all text is HTML beside it, so it is never
scaled and stays readable on a phone. Coordinates are whole numbers in a box of WIDTH x HEIGHT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deepwright.report.figures import PLUS_MINUS, TIMES, compact, count, escape, in_unit

WIDTH, HEIGHT = 1000, 400
MOST_POINTS = 240  # drawn for each line; more are merged, their extremes kept


@dataclass(frozen=True)
class Line:
    """One curve. style: line | faint (raw values under an average) | dashed | dots. errors: one standard error of each point."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 1  # 1..6, a colour of the page
    style: str = "line"
    errors: Sequence[float | None] = ()


@dataclass(frozen=True)
class Axis:
    """Maps values to 0..1; `ticks` are values that are easy to read."""

    low: float
    high: float
    ticks: list[float] = field(default_factory=list)
    log: bool = False

    def place(self, value: float) -> float:
        if self.log:
            return (math.log10(max(value, self.low)) - math.log10(self.low)) / (
                math.log10(self.high) - math.log10(self.low)
            )
        return (value - self.low) / (self.high - self.low)


def plot(
    title: str,
    lines: Sequence[Line],
    *,
    unit: str = "1",
    sentence: str = "",
    log: bool = False,
    zero: bool = True,
    wide: bool = False,
) -> str:
    """A figure with curves over steps; "" when there is nothing to draw. zero: the axis of values starts at 0."""
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    steps = [step for line in lines for step, _ in line.points]
    x = Axis(min(steps), max(steps) if max(steps) > min(steps) else min(steps) + 1)
    y = _value_axis(lines, unit, log, zero)
    ticks = "".join(
        f'<i style="bottom:{100 * y.place(t):.1f}%">{_tick_label(t, unit)}</i>' for t in y.ticks
    )
    grid = "".join(f"M0,{_down(y, t)}H{WIDTH}" for t in y.ticks)
    curves = "".join(_curve(line, x, y, unit) for line in lines)
    shown = [line for line in lines if line.style != "faint"] or lines
    main = shown[0].points[-1][1]
    data = f'data-x="{x.low:g},{x.high:g}" data-y="{y.low:g},{y.high:g}" data-log="{int(log)}" data-unit="{escape(unit)}"'
    return (
        f'<figure class="chart{" wide" if wide else ""}"><figcaption><b>{escape(title)}</b><span>{in_unit(main, unit)}</span></figcaption>'
        f'{_legend(lines)}<div class="plot" {data}><div class="yticks">{ticks}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f'<path class="grid" d="{grid}"/>{curves}</svg></div>'
        f'<div class="xticks">{_step_marks(x)}</div>{_note(sentence)}</figure>'
    )


def heat_map(title: str, load: Sequence[Sequence[float]], sentence: str = "") -> str:
    """Layers downwards, experts to the right; the colour says how far an expert is from its layer's mean load."""
    rows = [_pooled(row, 64) for row in load]
    cells = []
    for layer, row in enumerate(rows):
        for expert, (relative, label) in enumerate(row):
            strength = min(1.0, abs(math.log2(max(relative, 1e-3))) / 1.5)
            kind = "above" if relative > 1 else "below"
            width, height = WIDTH / len(row), HEIGHT / len(rows)
            cells.append(
                f'<rect class="{kind}" x="{expert * width:.1f}" y="{layer * height:.1f}" width="{width:.1f}" height="{height:.1f}" '
                f'fill-opacity="{strength:.2f}"><title>layer {layer + 1}, expert {label}: {relative:.2f} {TIMES} the mean</title></rect>'
            )
    ticks = "".join(
        f'<i style="bottom:{100 * (1 - (layer + 0.5) / len(rows)):.1f}%">{layer + 1}</i>'
        for layer in _few(len(rows))
    )
    pooled = (
        f" Neighbouring experts share a cell, which shows the busiest of them ({len(load[0])} experts)."
        if len(load[0]) > 64
        else ""
    )
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b></figcaption><div class="plot heat"><div class="yticks">{ticks}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f"{''.join(cells)}</svg></div>"
        f'<div class="xticks ends"><i>expert 1</i><i>{len(load[0])}</i></div>{_note(sentence + pooled)}</figure>'
    )


def whisker(marks: Sequence[tuple[float | None, float | None, int, str]], high: float = 1.0) -> str:
    """A track from 0 to `high` with a dot and its standard error for each (value, error, colour, text)."""
    drawn = []
    for value, error, colour, text in marks:
        if value is not None:
            centre, spread = _within(value / high), (error or 0.0) / high
            low, top = _within(centre - spread), _within(centre + spread)
            drawn.append(
                f'<s class="c{colour}" style="left:{100 * low:.2f}%;width:{100 * (top - low):.2f}%"></s>'
                f'<u class="c{colour}" style="left:{100 * centre:.2f}%" title="{escape(text)}"></u>'
            )
    return f'<div class="track">{"".join(drawn)}</div>'


@dataclass(frozen=True)
class Bar:
    """A share with its error (half the width of the line over the bar's end, or both ends of an interval) and, where known, the range of other runs."""

    name: str
    value: float
    said: str  # the value in words
    low: float
    high: float
    colour: int = 1
    band: tuple[float, float] | None = None
    code: str = ""  # a name that is not translated


def bars(title: str, groups: Sequence[Sequence[Bar]], sentence: str = "") -> str:
    """A figure of horizontal bars over one axis of shares from 0, with room between the groups; "" when there is nothing to draw."""
    every = [bar for group in groups for bar in group]
    if not every:
        return ""
    reach = max(0.0, *(max(bar.high, bar.value) for bar in every))
    ticks = nice_ticks(0.0, min(1.0, reach) or 1.0)
    top = ticks[-1]
    drawn = "".join(
        f'<div class="group">{"".join(_bar(bar, top) for bar in group)}</div>'
        for group in groups
        if group
    )
    scale = "".join(f'<i style="left:{100 * t / top:.2f}%">{100 * t:.3g}%</i>' for t in ticks)
    kind = "bars named" if any(bar.code for bar in every) else "bars"
    return (
        f'<figure class="chart {kind}" style="--tick:{100 / (len(ticks) - 1):.4g}%">'
        f"<figcaption><b>{escape(title)}</b></figcaption>{drawn}"
        f'<div class="scale"><div class="xticks">{scale}</div></div>{_note(sentence)}</figure>'
    )


def _bar(bar: Bar, top: float) -> str:
    def span(low: float, high: float) -> str:
        low, high = _within(low / top), _within(high / top)
        return f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"

    band = f'<u class="band" style="{span(*bar.band)}"></u>' if bar.band else ""
    code = f"<code>{escape(bar.code)}</code>" if bar.code else ""
    return (
        f'<div class="bar"><span>{escape(bar.name)}{code}</span><div class="lane">'
        f'<s class="c{bar.colour}" style="{span(0.0, bar.value)}"></s>{band}'
        f'<u class="whisker" style="{span(bar.low, bar.high)}"></u></div><b>{escape(bar.said)}</b></div>'
    )


def stacked_bar(parts: Sequence[tuple[str, float]], show: Callable[[float], str]) -> str:
    """One bar cut in proportion to the parts (negative ones have no width), with a legend that gives every figure."""
    total = sum(max(value, 0.0) for _, value in parts) or 1.0
    pieces, names = [], []
    for place, (name, value) in enumerate(parts):
        colour = place % 6 + 1
        width = 100 * max(value, 0.0) / total
        pieces.append(
            f'<s class="c{colour}" style="width:{width:.2f}%" title="{escape(name)}: {escape(show(value))}"></s>'
        )
        names.append(
            f'<li><u class="c{colour}"></u>{escape(name)} <b>{escape(show(value))}</b></li>'
        )
    bar = (
        f'<div class="stack">{"".join(pieces)}</div>'
        if any(value > 0 for _, value in parts)
        else ""
    )
    return f'{bar}<ul class="legend">{"".join(names)}</ul>'


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Three to `most` round values from at or below `low` to at or above `high`."""
    spread = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / most))
    for gap in (1, 2, 2.5, 5, 10, 20, 25, 50, 100):
        first, last = math.floor(low / (gap * power) + 1e-9), math.ceil(high / (gap * power) - 1e-9)
        if last - first + 1 <= most:
            break
    last = max(last, first + 1)
    if last - first == 1:  # the middle as well
        first, last, gap = 2 * first, 2 * last, gap / 2
    return [round(place * gap * power, 12) for place in range(first, last + 1)]


def step_ticks(low: float, high: float) -> list[float]:
    """Round whole steps from `low` to `high`; both ends where there are fewer than two."""
    inside = [tick for tick in nice_ticks(low, high, 6) if low <= tick <= high and tick % 1 == 0]
    return inside if len(inside) > 1 else [low, high]


def thin(
    points: Sequence[tuple[float, float]], most: int = MOST_POINTS
) -> list[tuple[float, float]]:
    """At most `most` points; of each stretch that is merged the lowest and the highest stay, so no spike is lost."""
    if len(points) <= most:
        return list(points)
    kept, stretches = [], most // 2
    for place in range(stretches):
        part = points[place * len(points) // stretches : (place + 1) * len(points) // stretches]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept[:-1] + [points[-1]]  # a curve ends where its data end


def _value_axis(lines: Sequence[Line], unit: str, log: bool, zero: bool) -> Axis:
    values = [value for line in lines for _, value in line.points]
    if log:
        positive = [value for value in values if value > 0] or [1.0]
        low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
        high = max(high, low + 2)
        every = math.ceil((high - low) / 4)
        return Axis(
            10.0**low, 10.0**high, [10.0**power for power in range(low, high + 1, every)], log=True
        )
    low, high = min(values), max(values)
    for line in lines:  # room for the error bars
        for (_, value), error in zip(line.points, line.errors, strict=False):
            low, high = min(low, value - (error or 0)), max(high, value + (error or 0))
    low = min(low, 0.0) if zero else low
    low, high = (max(low, 0.0), min(high, 1.0)) if unit == "fraction" else (low, high)
    # a constant: noise in the last digits is not worth a picture
    if high - low < 0.01 * abs(high) or high == low:
        low, high = (low - 0.01 * abs(low), high + 0.01 * abs(high)) if high else (0.0, 1.0)
    ticks = nice_ticks(low, high)
    return Axis(ticks[0], ticks[-1], ticks)


def _curve(line: Line, x: Axis, y: Axis, unit: str) -> str:
    label = escape(line.label)
    if line.style != "dots":
        places = [
            f"{round(WIDTH * x.place(step))},{_down(y, value)}" for step, value in thin(line.points)
        ]
        path = "M" + "L".join(places) + ("h0" if len(places) == 1 else "")
        return f'<path class="{line.style} c{line.colour}" data-label="{label}" d="{path}"/>'
    errors = list(line.errors) or [None] * len(line.points)
    drawn = []
    for (step, value), error in zip(line.points, errors, strict=True):
        left, said = round(WIDTH * x.place(step)), f"{label}, step {step:g}: {in_unit(value, unit)}"
        if error:
            drawn.append(
                f'<path class="error c{line.colour}" d="M{left},{_down(y, value - error)}V{_down(y, value + error)}"/>'
            )
            said += f" {PLUS_MINUS} {in_unit(error, unit)}"
        drawn.append(
            f'<path class="dot c{line.colour}" d="M{left},{_down(y, value)}h0"><title>{said}</title></path>'
        )
    return "".join(drawn)


def _step_marks(x: Axis) -> str:
    said = [
        f"step {count(t)}" if not i else count(t) for i, t in enumerate(step_ticks(x.low, x.high))
    ]
    places = (100 * x.place(tick) for tick in step_ticks(x.low, x.high))
    return "".join(f'<i style="left:{place:.1f}%">{one}</i>' for place, one in zip(places, said))


def _legend(lines: Sequence[Line]) -> str:
    if len(lines) == 1 and lines[0].style != "dots":
        return ""
    return (
        '<ul class="legend">'
        + "".join(f'<li><u class="{n.style} c{n.colour}"></u>{escape(n.label)}</li>' for n in lines)
        + "</ul>"
    )


def _note(sentence: str) -> str:
    return f'<p class="note">{escape(sentence)}</p>' if sentence else ""


def _down(y: Axis, value: float) -> int:
    return round(HEIGHT * (1 - min(max(y.place(value), -0.02), 1.02)))


def _tick_label(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{100 * value:.3g}%"
    return f"{value:.4g}" if 0.1 <= abs(value) < 1000 else compact(value)


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _few(rows: int) -> range:
    return range(0, rows, math.ceil(rows / 8))


def _pooled(row: Sequence[float], most: int) -> list[tuple[float, str]]:
    """(load relative to the row's mean, which experts) with at most `most` cells, each the busiest of its experts."""
    mean = (sum(row) / len(row)) or 1.0
    size = math.ceil(len(row) / most)
    names = [
        f"{start + 1}" if size == 1 else f"{start + 1} to {min(start + size, len(row))}"
        for start in range(0, len(row), size)
    ]
    return [
        (max(row[start : start + size]) / mean, name)
        for start, name in zip(range(0, len(row), size), names, strict=True)
    ]
