"""Inference-time scaling: accuracy against how long a thought may be, and against how many answers vote, each over doublings.

Read from evaluations.jsonl. An evaluation whose thoughts were closed after B tokens is labelled "<model> budget=B", where <model> is the label that
the same evaluation has without a budget: the stage ("zero"), or the stage with a remark ("zero T=0.6"). Votes are cons_at_k of the evaluations
before and after, and of the last stage; pass@1 is the vote of one. `curves.py` draws over steps; these two have few points, all with error bars,
and lines between them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from deepwright.report.charts import HEIGHT, WIDTH, Axis, Line, nice_ticks
from deepwright.report.figures import compact, count, escape, number, percent_with_error
from deepwright.report.frame import grid, paragraph, section
from deepwright.report.records import Run, by_count

_BUDGET = re.compile(r"(.+) budget=([1-9][0-9]{0,8})")
_COLOURS = (6, 1, 2, 3, 4, 5)  # grey for the first model, which is the base
CAP = 6  # half the width of an error bar's ends, which show even where the bar is shorter than the dot

Points = Mapping[int, tuple[float, float | None]]  # budget or votes -> accuracy, its standard error


def scaling(run: Run) -> str:
    """Both charts; "" where neither has two places to draw a line between."""
    thinking, voting = budget_curves(run), vote_curves(run)
    # a model has the same one in both
    colours = dict(zip(dict.fromkeys([*voting, *thinking]), cycle(_COLOURS)))
    drawn = grid(
        chart(
            "Accuracy against thinking budget",
            _lines(thinking, colours),
            "tokens of thought",
            _BUDGETS,
        ),
        chart("Accuracy against number of votes", _lines(voting, colours), "votes", _VOTES),
    )
    return (
        section("scaling", "Inference-time scaling", drawn, paragraph(_ERRORS, "soft"))
        if drawn
        else ""
    )


def budget_curves(run: Run) -> dict[str, Points]:
    """model -> its accuracy at each budget; of a repeated budget the last evaluation counts."""
    found: dict[str, dict[int, tuple[float, float | None]]] = {}
    for evaluation in run.evaluations:
        named, accuracy = (
            _BUDGET.fullmatch(str(evaluation.get("label"))),
            number(evaluation.get("pass_at_1")),
        )
        if named and accuracy is not None and evaluation.get("split", "held_out") == "held_out":
            found.setdefault(_model(named[1], evaluation), {})[int(named[2])] = (
                accuracy,
                number(evaluation.get("pass_at_1_se")),
            )
    return found


def vote_curves(run: Run) -> dict[str, Points]:
    """model -> the accuracy of its majority, before and after reinforcement learning, and at the last stage that was judged after that."""
    last = next(
        filter(None, map(run.labelled, ("align", "finetune", "reasoning_rl", "cold_start"))), None
    )
    return {_model(str(e.get("label")), e): _votes(e) for e in (run.before, run.after, last) if e}


def _votes(evaluation: dict[str, Any]) -> Points:
    values, errors = (by_count(evaluation, name) for name in ("cons_at_k", "cons_at_k_se"))
    found = {1: (number(evaluation.get("pass_at_1")), number(evaluation.get("pass_at_1_se")))}
    found |= {k: (number(value), number(errors.get(k))) for k, value in values.items()}
    return {k: (value, error) for k, (value, error) in sorted(found.items()) if value is not None}


def _model(name: str, evaluation: dict[str, Any]) -> str:
    step = number(evaluation.get("step"))
    return f"{name}, step {count(step)}" if step else name


def _lines(curves: Mapping[str, Points], colours: Mapping[str, int]) -> list[Line]:
    ordered = {name: sorted(points.items()) for name, points in curves.items() if points}
    return [
        Line(
            name, [(p, v) for p, (v, _) in found], colours[name], errors=[e for _, (_, e) in found]
        )
        for name, found in ordered.items()
    ]


def chart(title: str, lines: Sequence[Line], over: str, sentence: str) -> str:
    """Curves of shares with error bars over a log2 axis that is marked at every place with a point; "" for fewer than two places."""
    places = sorted({place for line in lines for place, _ in line.points})
    if len(places) < 2:
        return ""
    x = Axis(places[0], places[-1], log=True)
    tops = [
        value + (error or 0.0)
        for line in lines
        for (_, value), error in zip(line.points, line.errors, strict=True)
    ]
    ticks = nice_ticks(0.0, min(1.0, max(0.0, *tops)) or 1.0)
    y = Axis(0.0, ticks[-1], ticks)
    down = "".join(
        f'<i style="bottom:{100 * y.place(tick):.1f}%">{100 * tick:.3g}%</i>' for tick in ticks
    )
    rules = "".join(f"M0,{_down(y, tick)}H{WIDTH}" for tick in ticks)
    marks = "".join(f'<i style="left:{_across(x, p) / WIDTH:.2%}">{compact(p)}</i>' for p in places)
    names = "".join(
        f'<li><u class="line c{line.colour}"></u>{escape(line.label)}</li>' for line in lines
    )
    return (
        f'<figure class="chart wide"><figcaption><b>{escape(title)}</b></figcaption><ul class="legend">{names}</ul>'
        f'<div class="plot"><div class="yticks">{down}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f'<path class="grid" d="{rules}"/>{"".join(_curve(line, x, y, over) for line in lines)}</svg></div>'
        f'<div class="xticks">{marks}</div><p class="note">{escape(sentence)}</p></figure>'
    )


def _curve(line: Line, x: Axis, y: Axis, over: str) -> str:
    drawn = [
        f'<path class="line c{line.colour}" d="M{"L".join(f"{_across(x, p)},{_down(y, v)}" for p, v in line.points)}h0"/>'
    ]
    for (place, value), error in zip(line.points, line.errors, strict=True):
        left, middle, said = (
            _across(x, place),
            _down(y, value),
            f"{compact(place)} {over}: {percent_with_error(value, error or None)}",  # 0 says nothing
        )
        if error:
            low, high = _down(y, value - error), _down(y, value + error)
            caps = "".join(f"M{left - CAP},{end}h{2 * CAP}" for end in (low, high))
            drawn.append(f'<path class="error c{line.colour}" d="M{left},{low}V{high}{caps}"/>')
        drawn.append(
            f'<path class="dot c{line.colour}" d="M{left},{middle}h0"><title>{escape(line.label)}, {said}</title></path>'
        )
    return "".join(drawn)


def _across(x: Axis, place: float) -> int:
    """A margin of 2% keeps dots and labels off the edges."""
    return round(WIDTH * (0.02 + 0.96 * x.place(place)))


def _down(y: Axis, value: float) -> int:
    return round(HEIGHT * (1 - min(max(y.place(value), -0.02), 1.02)))


_BUDGETS = "Tokens that a thought may have, doubling to the right. One still open by then is closed by force, and the model answers with what it has."
_VOTES = "How many answers to a problem vote, doubling to the right; the most frequent answer counts, ties share. One vote is pass@1."
_ERRORS = "Bars are one standard error, with all samples of a problem as one cluster. The points of a line share their problems and are not independent."
