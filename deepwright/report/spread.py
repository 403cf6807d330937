"""How far single runs of one recipe lie apart, as it was measured: spread.json, written by
benchmarks/spread.py, for the reports of runs with the same settings.

Rounding moves a run as far as a seed does, because what a policy samples decides what it learns
from. The errors of one run's own problems and samples do not hold that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deepwright.files import read_json, write_json
from deepwright.refusals import changes, expect_fields
from deepwright.report.figures import number, percent
from deepwright.report.records import Run

MEASURED = Path(__file__).with_name("spread.json")
FREE = ("seed", "run", "threads", "track")  # settings that may differ between runs of one recipe
VERSION = "deepwright_version"  # stands among the settings of a run and is none


@dataclass(frozen=True)
class Spread:
    """pass@1 of each stage over several runs: lowest and highest. `settings`: those of all runs,
    without what may differ between them."""

    runs: tuple[str, ...]
    settings: Mapping[str, Any]
    stages: Mapping[str, tuple[float, float]]

    def is_of(self, run: Run) -> bool:
        """Whether a run has these settings; those that are newer than the measurement count not."""
        return all(
            old is None or name in (*FREE, VERSION) or name.endswith(("compute", "dtype"))
            for name, old, _ in changes(self.settings, run.config)
        )

    def range_of(self, stage: str) -> str:
        """As "70% to 80%"; "" for a stage that was not measured."""
        return " to ".join(map(percent, self.stages.get(stage, ())))


def measure(runs: Sequence[Run], stages: Sequence[str]) -> Spread:
    """Of the stages that all runs have. ValueError where a run has other settings than the first."""
    found = {
        stage: [number((run.labelled(stage) or {}).get("pass_at_1")) for run in runs]
        for stage in stages
    }
    known = {stage: values for stage, values in found.items() if None not in values}
    spread = Spread(
        tuple(run.folder.name for run in runs),
        {name: value for name, value in runs[0].config.items() if name not in FREE},
        {stage: (min(values), max(values)) for stage, values in known.items()},
    )
    for run in runs:
        if not spread.is_of(run):
            raise ValueError(f"{run.folder} has other settings than {runs[0].folder}")
    return spread


def write(spread: Spread, path: Path) -> None:
    values = {"runs": spread.runs, "settings": spread.settings, "stages": spread.stages}
    write_json(path, values)


@cache
def read(path: Path) -> Spread:
    """ValueError where the file is damaged."""
    values = read_json(path)
    fields = {"runs": list[str], "settings": dict, "stages": dict[str, tuple[float, float]]}
    expect_fields(values, str(path), fields)
    ranges = {stage: (low, high) for stage, (low, high) in values["stages"].items()}
    return Spread(tuple(values["runs"]), values["settings"], ranges)


def measured_for(run: Run) -> Spread | None:
    """What was measured of runs like this one, if anything was."""
    return spread if MEASURED.is_file() and (spread := read(MEASURED)).is_of(run) else None
