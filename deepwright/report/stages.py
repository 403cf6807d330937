"""The whole recipe in one view: what every stage reached beside what was published for it, and what the comparisons of the recipe say.

No outcome is written down in advance. The published direction of a comparison is the sign of the published difference, and a sentence says which of
three cases this run is: that direction, the other one, or no difference beyond two standard errors. Both sides are asked the same problems, so their
errors, added in squares as if they were independent, are an upper bound as long as a problem that is hard for one is hard for the other. A quick
run is compared with nothing.

PUBLISHED is in %. Stages from R1-Zero to R1: R1 (arXiv 2501.12948, second version), table 3, and 15.6 for the base, section 2. The
students: table 6 of the first version, Qwen2.5-32B taught by samples, and by reinforcement learning alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deepwright.report import spread
from deepwright.report.figures import (
    GLUE,
    MINUS,
    PLUS_MINUS,
    compact,
    count,
    duration,
    escape,
    number,
    percent_with_error,
)
from deepwright.report.frame import not_yet, paragraph, section, table
from deepwright.report.records import STAGES, Run, interval_in, table_in

BENCHMARKS = ("AIME 2024", "MATH-500", "LiveCodeBench", "IF-Eval", "AlpacaEval 2")
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "base": (15.6, None, None, None, None),
    "zero": (77.9, 95.9, 50.0, 46.6, 24.7),
    "cold_start": (59.0, 94.2, 57.5, 71.7, 50.1),
    "reasoning_rl": (74.0, 95.9, 63.5, 72.0, 55.8),
    "finetune": (78.1, 95.4, 64.6, 78.1, 62.1),
    "align": (79.8, 97.3, 65.9, 83.3, 87.6),
    "distill": (72.6, 94.3, 57.2, None, None),
    "student_by_rl": (47.0, 91.6, 40.2, None, None),
}
Figure = tuple[float, float | None]  # a share and its standard error
# columns whose figures the page has elsewhere: in a sentence below, and where the time went
ELSEWHERE = ("win rate over Dev3", "training")


def _times(run: Run) -> list[str]:
    taught, alone = run.spent("distill"), run.spent("student_by_rl")
    return (
        [
            f"Being taught took {duration(taught)} and reinforcement learning alone {duration(alone)}."
        ]
        if taught and alone
        else []
    )


def _steps(run: Run) -> list[str]:
    cold, alone = (
        count(number(run.labelled(stage).get("step")) or 0) for stage in ("reasoning_rl", "zero")
    )
    return [
        f"Steps of reinforcement learning: {cold} and {alone}. Those of R1-Zero, from which the cold start was sampled, are not counted twice."
    ]


@dataclass(frozen=True)
class Comparison:
    """Two stages by one figure. cases: what it means that the figure of `new` is above, about as high as, or below that of `old`."""

    lead: str
    new: str
    old: str
    name: str = "pass_at_1"
    benchmark: str = (
        ""  # from which the published direction is read; "" where no figure was published
    )
    cases: tuple[str, str, str] | None = None
    more: Callable[[Run], list[str]] = (
        lambda run: []
    )  # what else is to be known, such as what both sides cost


COMPARISONS = (
    Comparison("What reinforcement learning alone does:", "zero", "base", benchmark="AIME 2024"),
    Comparison("What the whole recipe does:", "align", "zero", benchmark="AIME 2024"),
    Comparison("What a cold start before reinforcement learning does:", "reasoning_rl", "zero", benchmark="AIME 2024", more=_steps),
    Comparison("What the language reward does:", "reasoning_rl", "without_language_reward", "language_consistency", cases=(
        "With the reward thoughts mix languages less, as published.",
        "No effect on the mixing of languages is seen here; published is less mixing.",
        "The published direction does not appear: with the reward thoughts mix languages more.")),
    Comparison("What the language reward costs:", "reasoning_rl", "without_language_reward", cases=(
        "It costs no accuracy here, which is higher with it; published is a slight loss.",
        "No cost beyond two standard errors is seen; published is a slight loss.",
        "It costs accuracy, as published.")),
    Comparison("What alignment does to reasoning:", "align", "finetune", benchmark="AIME 2024", cases=(
        "Reasoning is kept, and rises.",
        "Reasoning is kept, as far as this run can tell.",
        "Reasoning is not kept.")),
    Comparison("Which way of making a small model reason is better:", "distill", "student_by_rl", benchmark="AIME 2024", more=_times),
)  # fmt: skip
ANSWERS = Comparison(
    "What alignment does to general answers:", "align", "finetune", benchmark="AlpacaEval 2"
)


def recipe(run: Run) -> str:
    """The table of stages, the published one, and the comparisons; "" for a run that stops at R1-Zero."""
    if not run.beyond_zero:
        return ""
    head, rows = stage_table(run)
    kept = [place for place, name in enumerate(head) if name not in ELSEWHERE]
    cells = [[_name(row[0]), *(row[place] for place in kept[1:])] for row in rows]
    shown = table([head[place] for place in kept], cells)
    return section(
        "recipe",
        "The recipe, stage by stage",
        paragraph(_LEAD, "soft"),
        shown,
        *([paragraph(_QUICK)] if run.setting("quick") is True else _compared(run)),
    )


def _compared(run: Run) -> list[str]:
    """What the comparisons say, and the published figures."""
    said = "".join(
        f"<li><b>{escape(lead)}</b> {escape(' '.join(text))}</li>" for lead, text in findings(run)
    )
    return [
        f"<ul>{said}</ul>"
        if said
        else not_yet("comparisons need two stages that were both judged."),
        "<h3>Published for the same stages</h3>",
        _published(run),
        paragraph(_SOURCE, "soft"),
    ]


def stage_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """The heads of the columns that some stage fills, and a row of plain text for every stage that was judged, whose first cell is
    the stage."""
    judged = [stage for stage in STAGES if run.labelled(stage)]
    others = [
        name for name in _variants(run) if any(run.labelled(f"{stage} {name}") for stage in judged)
    ]
    rows, measured = [], spread.measured_for(run)
    for stage in judged:
        found, asked = run.labelled(stage), run.labelled(f"{stage} requests")
        win = run.facts.get("win_rate") if stage == "align" else None
        rows.append({
            "stage": stage, "pass@1": share(found), "of other runs": measured.range_of(stage) if measured else "",
            **{name: share(run.labelled(f"{stage} {name}")) for name in others},
            "format": share(found, "format_rate"), "one language": share(found, "language_consistency"),
            "length": compact(number(found.get("mean_length"))), "requests": share(asked),
            "win rate over Dev3": share(win, "after", "standard_error"),
            "training": duration(spent) if (spent := run.spent(stage)) else "",
        })  # fmt: skip
    head = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    return head, [[row[name] for name in head] for row in rows]


def _published(run: Run) -> str:
    shown = [stage for stage in PUBLISHED if run.labelled(stage)]
    return table(
        ["stage", *BENCHMARKS],
        [[_name(s), *("" if v is None else f"{v:.1f}" for v in PUBLISHED[s])] for s in shown],
    )


def findings(run: Run) -> list[tuple[str, list[str]]]:
    """(lead, sentences) of every comparison that the run allows."""
    found = []
    for one in COMPARISONS:
        new, old = (figure_of(run.labelled(stage), one.name) for stage in (one.new, one.old))
        if new and old:
            found.append(
                (one.lead, [_sides(one, new, old), *verdict(one, new, old), *one.more(run)])
            )
    if win := figure_of(table_in(run.facts, "win_rate"), "after", "standard_error"):
        said = f"The answer after it is preferred to the one before in {percent_with_error(*win)} of comparisons; no change would be 50%."
        found.append((ANSWERS.lead, [said, *verdict(ANSWERS, win, (0.5, 0.0))]))
    return found


def verdict(one: Comparison, new: Figure, old: Figure) -> list[str]:
    """The difference with its error, what it means here, and whether that is what was published."""
    change, error = difference(new, old)
    case = (
        1
        if change == 0 or (error is not None and abs(change) <= 2 * error)
        else 0
        if change > 0
        else 2
    )
    spread = "" if error is None else f"{GLUE}{PLUS_MINUS}{GLUE}{100 * error:.1f}"
    said = [f"The difference is {100 * change:+.1f}{spread} points.".replace("-", MINUS)]
    said += [one.cases[case]] if one.cases else []
    said += ["Its error is not known: it may be chance."] if error is None else []
    if not one.benchmark:
        return said
    here, there = (
        PUBLISHED[stage][BENCHMARKS.index(one.benchmark)] or 0.0 for stage in (one.new, one.old)
    )
    said.append(f"Published for {one.benchmark}: {here:.1f} against {there:.1f}%.")
    return [*said, _UNSEEN if case == 1 else _SEEN if (case == 0) == (here > there) else _OPPOSITE]


def difference(new: Figure, old: Figure) -> Figure:
    """`new` less `old`, with both errors added in squares; no error where one is not known."""
    error = None if new[1] is None or old[1] is None else math.hypot(new[1], old[1])
    return new[0] - old[0], error


def _variants(run: Run) -> list[str]:
    """What follows the stage in the labels of its further evaluations: "greedy", "T=0.6", "on count=4"."""
    ends = [
        str(e.get("label")).partition(" ")[2]
        for e in run.evaluations
        if str(e.get("label")).partition(" ")[0] in STAGES
    ]
    return list(
        dict.fromkeys(
            end for end in ends if end and end != "requests" and not end.startswith("budget=")
        )
    )


def figure_of(record: dict[str, Any], name: str, error: str = "") -> Figure | None:
    """A share of a record and its standard error, which stands under `error` or as `<name>_se`; None where it was not measured."""
    value = number(record.get(name))
    return None if value is None else (value, number(record.get(error or f"{name}_se")))


def share(record: Any, name: str = "pass_at_1", error: str = "") -> str:
    found = figure_of(record, name, error) if isinstance(record, dict) else None
    interval = interval_in(record, "pass@1") if found and name == "pass_at_1" else None
    return percent_with_error(*found, interval=interval) if found else ""


def _name(stage: str) -> str:
    return f"<span>{escape(STAGES[stage])}</span> <code>{stage}</code>"


def _sides(one: Comparison, new: Figure, old: Figure) -> str:
    what = "pass@1" if one.name == "pass_at_1" else "words in the language of the problem"
    return f"{STAGES[one.new]} against {STAGES[one.old]}, {what}: {percent_with_error(*new)} against {percent_with_error(*old)}."


_SEEN = "This run goes the published way."
_UNSEEN = "The published direction does not appear: the difference is within two standard errors."
_OPPOSITE = "The published direction does not appear: this run goes the other way."
_LEAD = (
    "Held-out figures of every stage, in the order of the recipe. Shares of right answers have one standard error, with all samples of a problem as one "
    "cluster. Dev1, Dev2 and Dev3 are the paper's names for the models between R1-Zero and R1."
)
_SOURCE = (
    "In %, by models of 671 billion parameters on other tasks: only directions can be compared. R1 (arXiv 2501.12948, second version), table 3; base: section "
    "2; students: Qwen2.5-32B, table 6 of the first version."
)
_QUICK = "A quick run is too short to learn anything: it is held against no published figure, and its own differences say nothing."
