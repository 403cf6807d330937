"""Reading a run folder: everything a report says comes from these files, and every one of them may still be missing.

config.toml         resolved settings; looked for anywhere in it: quick, seed, version, command, and ModelConfig's fields
run.json            {"command", "version", "status": "running" | "finished" | "stopped", "started", "seconds", "machine",
                     "parameters", "active_parameters",
                     "mtp_acceptance": {"greedy", "sampled", "positions"}, "win_rate": {"after", "standard_error"}}, each optional
metrics.jsonl       deepwright.metrics records
evaluations.jsonl   one evaluation in each record; optional "decomposition": {"parts": {name: fraction}, "sentence"}
samples.jsonl       {"stage", "step", "prompt", "completion", "value", "verdict", "length"}; optional "split", "kind", "answer"
corpus.json         {"title", "paragraphs": [...], "shares": {kind: fraction}, "samples": [...]}
<HARVESTS>/dropped.json   {"kept" or why not: number of samples}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from deepwright.files import read_json, read_records, read_toml
from deepwright.report.figures import number

Point = tuple[float, float]
# where samples of a model were kept to learn from
HARVESTS = ("cold_start", "rejection/reasoning", "rejection/general")
# the stages of the recipe in their order, those of the small model last, as a reader calls them
STAGES = {
    "base": "Base",
    "zero": "R1-Zero",
    "cold_start": "Dev1 (cold start)",
    "reasoning_rl": "Dev2 (reasoning RL)",
    "without_language_reward": "Dev2 without language reward",
    "finetune": "Dev3 (fine-tuning)",
    "align": "R1 (alignment)",
    "student": "Student before",
    "distill": "Student, taught by samples",
    "student_by_rl": "Student, RL alone",
}
STUDENTS = ("student", "distill", "student_by_rl")
# a stage that is a command of its own, and the section of its settings
ALONE = {"base": "pretrain", "zero": "rl", "sft": "sft"}
Times = dict[str, dict[str, float]]  # seconds by stage and by what they were spent on


@dataclass(frozen=True)
class Run:
    """What is known about a run at this moment."""

    folder: Path
    config: dict[str, Any]
    facts: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    corpus: dict[str, Any]
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)  # by harvest

    def series(self, stage: str, name: str) -> list[Point]:
        """(step, value) in order of steps; values that are not finite numbers are left out, and of a repeated step the last counts."""
        return sorted(self._values.get((stage, name), {}).items())

    @cached_property
    def _values(self) -> dict[tuple[str, str], dict[float, float]]:
        """Every number that was logged, by (stage, name) and then by step; read once, as a page asks for dozens of curves."""
        found: dict[tuple[str, str], dict[float, float]] = {}
        for record in self.metrics:
            stage, step = str(record.get("stage")), number(record.get("step"))
            for name, logged in record.items():
                if step is not None and (value := number(logged)) is not None:
                    found.setdefault((stage, name), {})[step] = value
        return found

    def last(self, stage: str, name: str) -> float | None:
        points = self.series(stage, name)
        return points[-1][1] if points else None

    def spent(self, stage: str) -> float:
        """Seconds that the steps of a stage took, without what stands around them."""
        return sum(seconds for _, seconds in self.series(stage, "step_seconds"))

    def loads(self, stage: str) -> list[tuple[float | None, list[list[float]]]]:
        """(step, load of every expert by layer) of all records that hold it."""
        found = []
        for record in self.metrics:
            load = record.get("expert_load")
            if (
                record.get("stage") == stage
                and isinstance(load, list)
                and load
                and all(_is_row(row) for row in load)
            ):
                found.append((number(record.get("step")), load))
        return found

    def setting(self, name: str) -> Any:
        """A value of run.json, or of config.toml at any depth; None where nobody wrote it."""
        return self.facts[name] if name in self.facts else find(self.config, name)

    def has(self, stage: str) -> bool:
        """Whether a stage belongs to this run: it has records, or its settings are there and nothing takes its place; a run that says nothing is taken to
        have pre-training and what follows it."""
        told = [
            name for name, section in ALONE.items() if isinstance(self.config.get(section), dict)
        ]
        if self.config.get("start"):
            told = [name for name in told if name != "base"]
        return stage in (told or ("base", "zero")) or any(
            record.get("stage") == stage for record in self.metrics
        )

    @property
    def phases(self) -> list[str]:
        """The stages in which the context was stretched, in their order."""
        trained = dict.fromkeys(str(record.get("stage")) for record in self.metrics)
        return sorted(stage for stage in trained if stage.startswith("long_context"))

    @property
    def last_stage(self) -> str:
        """The stage of the newest record of training; "" before the first."""
        return str(self.metrics[-1].get("stage")) if self.metrics else ""

    @property
    def times(self) -> Times:
        """Seconds by stage and by what they were spent on, as the run counted them; of older runs those of steps and of the evaluations between them."""
        counted = {
            stage: {part: n for part, value in spent.items() if (n := number(value)) is not None}
            for stage, spent in table_in(self.facts, "times").items()
            if isinstance(spent, dict)
        }
        if counted:
            return counted
        found: Times = {}
        for name, part in (("step_seconds", "training"), ("evaluation_seconds", "evaluation")):
            for stage in dict.fromkeys(str(record.get("stage")) for record in self.metrics):
                if spent := sum(value for _, value in self.series(stage, name)):
                    found.setdefault(stage, {})[part] = spent
        return found

    @property
    def beyond_zero(self) -> bool:
        """Whether a stage of the recipe after R1-Zero has been judged."""
        return any(
            e.get("stage") == e.get("label") not in ("base", "zero", None) for e in self.evaluations
        )

    @property
    def rl_steps(self) -> int:
        """Steps of reinforcement learning, of every stage that has some."""
        return sum(len(steps) for (_, name), steps in self._values.items() if name == "reward")

    @property
    def not_finite(self) -> int:
        return sum(int(number(record.get("not_finite")) or 0) for record in self.metrics)

    @property
    def running(self) -> bool:
        return self.facts.get("status", "running") == "running"

    @property
    def seconds(self) -> float | None:
        """Wall time so far: as the run counts it, or from the first to the last record."""
        counted = number(self.facts.get("seconds"))
        times = [
            time for record in self.metrics if (time := number(record.get("time"))) is not None
        ]
        return counted if counted is not None else max(times) - min(times) if times else None

    @cached_property
    def before(self) -> dict[str, Any] | None:
        """The held-out evaluation of the base model with the most samples; of equal ones the one at temperature 1."""
        found = [
            e
            for e in self.held_out
            if e.get("stage") == "base" or (e.get("stage") == "zero" and number(e.get("step")) == 0)
        ]
        return max(
            found, key=lambda e: (number(e.get("temperature")) == 1.0, _weight(e)), default=None
        )

    @cached_property
    def after(self) -> dict[str, Any] | None:
        """The last held-out evaluation of reinforcement learning, at the temperature of `before` if there is one."""
        found = [
            e
            for e in self.held_out
            if e.get("stage") == "zero" and (number(e.get("step")) or 0) > 0
        ]
        temperature = self.before.get("temperature") if self.before else 1.0
        return max(
            found,
            key=lambda e: (e.get("temperature") == temperature, number(e.get("step")), _weight(e)),
            default=None,
        )

    @cached_property
    def decomposition(self) -> dict[str, Any]:
        """That of the last evaluation of reinforcement learning which has one and whose label is its stage."""
        found = [
            e
            for e in self.evaluations
            if table_in(e, "decomposition") and e.get("label") == e.get("stage") == "zero"
        ]
        return found[-1]["decomposition"] if found else {}

    @property
    def held_out(self) -> list[dict[str, Any]]:
        """On the run's own problems, by the model as it is: those with thoughts closed at a budget are drawn by scaling.py, those on other
        problems stand in the table of stages."""
        other = re.compile(r" budget=| on | requests$")
        return [
            e
            for e in self.evaluations
            if e.get("split", "held_out") == "held_out" and not other.search(str(e.get("label")))
        ]

    def labelled(self, label: str) -> dict[str, Any]:
        """The last held-out evaluation under a label; {} where there is none."""
        found = [
            e
            for e in self.evaluations
            if e.get("label") == label and e.get("split", "held_out") == "held_out"
        ]
        return found[-1] if found else {}


def read_run(folder: str | Path) -> Run:
    """Reads a run folder; missing files are empty. ValueError names a file that is there and damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; expected a run folder such as runs/<name>")
    return Run(
        folder=folder,
        config=_if_there(read_toml, folder / "config.toml"),
        facts=_if_there(_read_object, folder / "run.json"),
        metrics=read_records(folder / "metrics.jsonl"),
        evaluations=read_records(folder / "evaluations.jsonl"),
        samples=read_records(folder / "samples.jsonl"),
        corpus=_if_there(_read_object, folder / "corpus.json"),
        dropped={
            place: found
            for place in HARVESTS
            if (found := _if_there(_read_object, folder / place / "dropped.json"))
        },
    )


def table_in(record: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """What a record holds by name; {} where it holds no table."""
    found = (record or {}).get(name)
    return found if isinstance(found, dict) else {}


def by_count(record: dict[str, Any] | None, name: str) -> dict[int, Any]:
    """What a table such as "cons_at_k" holds, by its k; names that are no k are left out."""
    entries = table_in(record, name).items()
    return {int(k): value for k, value in entries if re.fullmatch("[1-9][0-9]{0,8}", k)}


def interval_in(record: dict[str, Any] | None, name: str) -> tuple[float, float] | None:
    """The 95% interval of "pass@1" or its like in an evaluation; None where it was not kept."""
    ends = table_in(record, "intervals").get(name)
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = map(number, ends)
    return None if low is None or high is None else (low, high)


def shares_in(record: dict[str, Any], name: str) -> list[tuple[str, float]]:
    """(part, number) of what a record holds by name, without what is no number."""
    return [
        (str(part), value)
        for part, share in table_in(record, name).items()
        if (value := number(share)) is not None
    ]


def step_of(record: dict[str, Any]) -> float:
    return number(record.get("step")) or 0.0


def find(table: Any, name: str) -> Any:
    """The first value under `name` in nested tables, the outer ones first."""
    if not isinstance(table, dict):
        return None
    if name in table:
        return table[name]
    return next(
        (found for inner in table.values() if (found := find(inner, name)) is not None), None
    )


def moving_average(points: Sequence[Point], width: int) -> list[Point]:
    """Mean of each value and the up to `width - 1` before it: it lags, but never uses what comes later."""
    averaged, total = [], 0.0
    for place, (step, value) in enumerate(points):
        total += value - (points[place - width][1] if place >= width else 0.0)
        averaged.append((step, total / min(place + 1, width)))
    return averaged


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and bool(row) and all(number(load) is not None for load in row)


def _weight(evaluation: dict[str, Any]) -> float:
    return (number(evaluation.get("problems")) or 0) * (number(evaluation.get("samples")) or 1)


def _if_there(read: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    return read(path) if path.exists() else {}


def _read_object(path: Path) -> dict[str, Any]:
    return read_json(path, constants="float")
