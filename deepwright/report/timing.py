"""Where the time of a run went: every stage with its parts, and the rest, which add up to the wall time."""

from __future__ import annotations

import statistics

from deepwright.report.charts import stacked_bar
from deepwright.report.figures import compact, count, duration, escape, percent
from deepwright.report.frame import not_yet, paragraph, section, table
from deepwright.report.records import STAGES, Run, Times

PARTS = ("training", "evaluation", "sampling", "reward models")
REST = "rest"
_STEP = {"rollout": "rollout_seconds", "reward": "reward_seconds", "update": "update_seconds"}


def timing(run: Run) -> str:
    """The table of stages, and what a step of reinforcement learning is made of."""
    spent, rest = run.times, unassigned(run)
    if not spent:
        return section("time", "Where the time went", not_yet("no step has been timed."))
    stages = sorted(spent, key=lambda stage: list(STAGES).index(stage) if stage in STAGES else -1)
    total = sum(sum(spent[stage].values()) for stage in stages) + rest
    bar = [(_name(stage), sum(spent[stage].values())) for stage in stages] + [(REST, rest)]
    return section(
        "time",
        "Where the time went",
        stacked_bar(bar, lambda value: f"{duration(value)} ({percent(value / (total or 1.0), 0)})"),
        _table(spent, stages, rest, total),
        paragraph(_REST, "soft"),
        *_pre_training(run),
        *_steps(run),
    )


def unassigned(run: Run) -> float:
    """Seconds of the wall time that no stage counted; none where a run was killed and its clock lost more than that."""
    counted = sum(sum(parts.values()) for parts in run.times.values())
    return max((run.seconds or 0.0) - counted, 0.0)


def _table(spent: Times, stages: list[str], rest: float, total: float) -> str:
    known = dict.fromkeys((*PARTS, *(part for stage in stages for part in spent[stage])))
    parts = [part for part in known if any(part in spent[stage] for stage in stages)]
    rows = [
        [
            escape(_name(stage)),
            *(duration(spent[stage][part]) if part in spent[stage] else "" for part in parts),
            duration(sum(spent[stage].values())),
        ]
        for stage in stages
    ]
    rows.append([REST, *[""] * len(parts), duration(rest)])
    rows.append(["wall time", *[""] * len(parts), f"<b>{duration(total)}</b>"])
    return table(["stage", *parts, "in all"], rows)


def _name(stage: str) -> str:
    return STAGES.get(stage, stage)


def _pre_training(run: Run) -> list[str]:
    speed = [value for _, value in run.series("base", "tokens_per_second")]
    tokens = run.last("base", "tokens")
    if not speed or not tokens:
        return []
    middle = count(statistics.median(speed))
    said = f"Pre-training: {count(tokens)} tokens at {middle} tokens/s (median over steps)."
    return [paragraph(said)]


def _steps(run: Run) -> list[str]:
    """Rollout, reward and update of R1-Zero's steps."""
    spent = [
        (name, sum(value for _, value in run.series("zero", metric)))
        for name, metric in _STEP.items()
    ]
    steps, total = len(run.series("zero", "rollout_seconds")), sum(value for _, value in spent)
    if total <= 0:
        return []
    said = f"Reinforcement learning: {steps} steps, {duration(total)} in all, {compact(total / max(steps, 1))} s a step."
    shown = [(name, value) for name, value in spent if value > 0]
    return [
        paragraph(said),
        stacked_bar(shown, lambda value: f"{duration(value)} ({percent(value / total, 0)})"),
    ]


_REST = (
    "The rest is what no stage counts: loading and saving, this report, and in runs of older versions also full evaluations and the sampling of "
    "what is learned from."
)
