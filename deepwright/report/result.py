"""What came out on held-out problems: figures before and after with their errors, what a rise is made of, kinds of problems, every evaluation."""

from __future__ import annotations

import math
from typing import Any

from deepwright.intervals import wilson
from deepwright.report.charts import stacked_bar, whisker
from deepwright.report.columns import OF_EVALUATIONS
from deepwright.report.figures import (
    ARROW,
    GLUE,
    MINUS,
    PLUS_MINUS,
    TIMES,
    compact,
    count,
    escape,
    number,
    or_unknown,
    percent,
    percent_range,
    percent_with_error,
)
from deepwright.report.frame import fold, grid, not_yet, paragraph, section, table
from deepwright.report.records import Run, by_count, interval_in, shares_in, step_of, table_in

BEFORE, AFTER = 6, 1  # colours


def headline(run: Run) -> str:
    """Held-out figures before and after reinforcement learning, with their errors."""
    before, after = run.before, run.after
    title = "R1-Zero on held-out problems" if run.beyond_zero else "Result on held-out problems"
    if before is None:
        return section(
            "result", title, not_yet("the first held-out evaluation follows pre-training.")
        )
    tiles = [
        _tile("pass@1", before, after, "pass_at_1", "pass_at_1_se"),
        *(
            _tile(f"cons@{k}", _at_k(before, k), _at_k(after, k), "cons", "cons_se")
            for k in _largest_k(before, after)
        ),
        _tile("Self-check rate", before, after, "self_check_rate"),
        _tile("Self-checks per answer", before, after, "self_checks_per_answer"),
        _tile("Answer length", before, after, "mean_length"),
        _tile("Format kept", before, after, "format_rate"),
    ]
    waits = (
        ""
        if after
        else not_yet("reinforcement learning has not been evaluated; below is the base model.")
    )
    return section(
        "result",
        title,
        f"<p>{escape(headline_sentence(run))}</p>",
        waits,
        grid(*tiles),
        paragraph(_how_measured(run), "soft"),
        _by_kind(before, after),
        fold(f"All {len(run.evaluations)} evaluations", _all_evaluations(run)),
    )


def headline_sentence(run: Run) -> str:
    """The main result in one sentence."""
    before, after = run.before or {}, run.after
    if after is None:
        return f"Before reinforcement learning one sampled answer is right with probability {_pass_at_1(before)} (pass@1)."
    share = {
        place: number(e.get("pass_at_1")) or 0.0
        for place, e in enumerate(run.held_out)
        if e.get("stage") == "base"
    }
    best = max(share, key=share.__getitem__, default=None)
    better = best is not None and share[best] > (number(before.get("pass_at_1")) or 0.0)
    also = (
        f" Sampled otherwise, the base itself reaches {percent(share[best])} ({run.held_out[best].get('label')})."
        if better
        else ""
    )
    went = f"went from {_pass_at_1(before)} to {_pass_at_1(after)} after {step_of(after):g} steps"
    return f"The chance that one sampled answer is right (pass@1) {went}.{also}"


def decomposition(run: Run) -> str:
    """How much of the rise is format, better guessing, search."""
    found = shares_in(run.decomposition, "parts")
    if not found:
        return section(
            "rise",
            "What the rise is made of",
            not_yet("it is worked out from the evaluations before and after."),
        )
    bar = stacked_bar(found, lambda value: f"{100 * value:+.1f} points".replace("-", MINUS))
    return section(
        "rise",
        "What the rise is made of",
        paragraph(str(run.decomposition.get("sentence", ""))),
        bar,
    )


def _pass_at_1(evaluation: dict[str, Any]) -> str:
    figure = number(evaluation.get("pass_at_1")), number(evaluation.get("pass_at_1_se"))
    return percent_with_error(*figure, interval=interval_in(evaluation, "pass@1"))


def _spread(error: float | None, interval: tuple[float, float] | None) -> str:
    """An error of 0 says nothing: all or nothing was right, and the interval says more."""
    if not error and interval:
        return f"<small> ({percent_range(interval)})</small>"
    return "" if error is None else f"<small> {PLUS_MINUS}{GLUE}{100 * error:.1f}</small>"


def _tile(
    title: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    name: str,
    error_name: str = "",
) -> str:
    first, last = (number((evaluation or {}).get(name)) for evaluation in (before, after))
    first_error, last_error = (
        number((evaluation or {}).get(error_name)) for evaluation in (before, after)
    )
    if first is None and last is None:
        return ""
    digits = {"mean_length": 1, "self_checks_per_answer": 2}.get(name)
    share = digits is None

    def show(value: float | None) -> str:
        return percent(value) if share else f"{value:.{digits}f}" if value is not None else "?"

    high = 1.0 if share else 1.15 * max(first or 0.0, last or 0.0, 1e-9)
    spread = [
        _spread(error, interval_in(evaluation, title))
        for error, evaluation in ((first_error, before), (last_error, after))
    ]
    reached = f"<em>{show(last)}</em>" if last is not None else "<small>not yet</small>"
    figure = (
        f"<small>{show(first)}{spread[0]} {ARROW}</small> {reached}{spread[1]}"
        if after is not None
        else show(first) + spread[0]
    )
    said = (
        f"{PLUS_MINUS} one standard error; "
        if any(PLUS_MINUS in one for one in spread)
        else "tokens; "
        if name == "mean_length"
        else ""
    )
    marks = [
        (first, first_error, BEFORE, f"before: {show(first)}"),
        (last, last_error, AFTER, f"after: {show(last)}"),
    ]
    return (
        f'<div class="tile"><h3>{escape(title)}</h3><div class="big">{figure}</div>{whisker(marks, high)}'
        f'<p class="note">{escape(said + _sizes(before, after))}</p></div>'
    )


def _sizes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    sizes = [f"{_size(e, 'problems')} {TIMES} {_size(e, 'samples')}" for e in (before, after) if e]
    return "n = " + (sizes[0] if len(set(sizes)) == 1 else f" {ARROW} ".join(sizes))


def _size(evaluation: dict[str, Any], name: str) -> str:
    return count(number(evaluation.get(name)))


def _how_measured(run: Run) -> str:
    last = run.after or run.before or {}
    return (
        f"n is problems {TIMES} samples of each. Grey: before, colour: after; bars are one standard error, with all samples of a problem "
        f"as one cluster. Temperature {or_unknown(last.get('temperature'))}. Held-out problems are kept out of the corpus and of training."
    )


def _largest_k(before: dict[str, Any], after: dict[str, Any] | None) -> list[int]:
    """The largest k with a consensus figure, before or after, as a list of at most one."""
    ks = [k for e in (after, before) for k in by_count(e, "cons_at_k")]
    return [max(ks)] if ks else []


def _at_k(evaluation: dict[str, Any] | None, k: int) -> dict[str, Any] | None:
    """The evaluation with its consensus among k under "cons", and that figure's error if one is known."""
    of_k = {
        short: table_in(evaluation, name).get(str(k))
        for short, name in (("cons", "cons_at_k"), ("cons_se", "cons_at_k_se"))
    }
    return None if evaluation is None else evaluation | of_k


def _by_kind(before: dict[str, Any], after: dict[str, Any] | None) -> str:
    first, last = _kinds(before), _kinds(after)
    if len(first | last) < 2:
        return ""
    rows = []
    for kind in sorted(first | last):
        marks = [
            (*found[kind][:2], colour, kind)
            for found, colour in ((first, BEFORE), (last, AFTER))
            if kind in found
        ]
        cells = [_of_kind(*found[kind]) if kind in found else "" for found in (first, last)]
        n = count(next(found[kind][2] for found in (last, first) if kind in found))
        rows.append(
            [
                escape(kind),
                *map(escape, cells),
                escape(n),
                f'<div style="min-width:120px">{whisker(marks)}</div>',
            ]
        )
    head = [
        "kind of problem",
        "before",
        "after",
        "problems",
        f"0 to 100% ({PLUS_MINUS} is binomial over problems, an upper bound)",
    ]
    return fold("Accuracy by kind of problem", table(head, rows, numeric=1))


def _of_kind(value: float, error: float, problems: float) -> str:
    return percent_with_error(value, error, interval=wilson(value, problems))


def _kinds(evaluation: dict[str, Any] | None) -> dict[str, tuple[float, float, float]]:
    """kind -> (accuracy, the most that its standard error over n problems can be, n)."""
    found = {}
    for kind, pair in table_in(evaluation, "by_kind").items():
        if (
            isinstance(pair, list)
            and len(pair) == 2
            and number(pair[0]) is not None
            and (number(pair[1]) or 0) >= 1
        ):
            found[str(kind)] = (
                float(pair[0]),
                math.sqrt(max(pair[0] * (1 - pair[0]), 0.0) / pair[1]),
                float(pair[1]),
            )
    return found


def _all_evaluations(run: Run) -> str:
    rows = []
    for e in run.evaluations:
        cells = [
            e.get("label") or e.get("stage"),
            f"{step_of(e):g}",
            or_unknown(e.get("temperature")),
            _sizes(e, None).removeprefix("n = "),
        ]
        cells += [
            _pass_at_1(e),
            *(
                ", ".join(
                    f"@{k} {percent(number(v))}" for k, v in table_in(e, f"{name}_at_k").items()
                )
                for name in ("cons", "pass")
            ),
        ]
        cells += [
            percent(number(e.get(name)))
            for name in ("format_rate", "self_check_rate", "truncated_rate")
        ]
        rows.append([escape(cell) for cell in [*cells, compact(number(e.get("mean_length")))]])
    head = [
        "evaluation",
        "step",
        "T",
        "n",
        "pass@1",
        "cons",
        "pass",
        "format",
        "self-check",
        "cut",
        "length",
    ]
    return table(head, rows, meanings=OF_EVALUATIONS)
