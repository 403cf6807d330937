"""The whole recipe in a process of its own, killed without warning in every stage and gone on with: it ends as the one that nobody touched."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepwright.files import read_records
from deepwright.recipe.owner import LOCK
from deepwright.train.progress import INTERRUPTED

SMALL = (
    "r1 --quick --threads 1 --resume --pretrain.schedule.total-tokens 500000 --cold-start.harvest.problems 120 --cold-start.sft.batch-rows 8 "
    "--rejection.reasoning.problems 60 --rejection.general.problems 30 --rejection.general.samples 8 --finetune.batch-rows 4 "
    "--align.pairs 600 --align.reward-model.checkpoint-every 8 --distill.pretrain.schedule.total-tokens 60000 --distill.sft.batch-rows 8 "
    "--evaluation.problems 12"
).split()
FACTS = (
    "mtp_acceptance",
    "base_step",
    "reward_helpful_accuracy",
    "reward_safe_accuracy",
    "win_rate",
)


@dataclass(frozen=True)
class Moment:
    """`reached` is asked again and again while the process runs; it gets the run folder and when the process began."""

    name: str
    reached: Callable[[Path, float], bool]


def first_steps_of(stage: str, steps: int = 1) -> Moment:
    """Some steps of the stage have been logged by this very process."""

    def reached(folder: Path, begun: float) -> bool:
        return (
            sum(
                r["stage"] == stage and r["time"] > begun
                for r in read_records(folder / "metrics.jsonl")
            )
            >= steps
        )

    return Moment(stage, reached)


def evaluated(label: str) -> Moment:
    return Moment(
        f"after {label}",
        lambda folder, _: any(
            label in (e["label"], e["stage"]) for e in read_records(folder / "evaluations.jsonl")
        ),
    )


def harvested(place: str) -> Moment:
    return Moment(f"after {place}", lambda folder, _: (folder / place / "kept.jsonl").exists())


MOMENTS = (
    first_steps_of("base", 50), first_steps_of("zero", 4), evaluated("zero"), first_steps_of("cold_start"), first_steps_of("reasoning_rl"),
    first_steps_of("without_language_reward"), harvested("rejection/reasoning"), first_steps_of("finetune"), first_steps_of("reward_helpful", 10),
    first_steps_of("reward_safe", 10), first_steps_of("align"), evaluated("align budget=8"), first_steps_of("student", 5),
    first_steps_of("distill"), first_steps_of("student_by_rl"),
)  # fmt: skip


def start(folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "deepwright", *SMALL, "--run", f"{folder}/run"]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=(folder / "said").open("a"))


def killed_at(folder: Path, moment: Moment, numbers: Sequence[int] = (signal.SIGKILL,)) -> bool:
    """Starts the run again and kills it at that moment, by these signals one after the other; False
    if it was over before."""
    begun, process, waiting = time.time(), start(folder), list(numbers)
    kill = signal.SIGKILL in numbers
    while process.poll() is None:
        heard = kill or (folder / "run" / LOCK).exists()  # Python itself has started
        if waiting and heard and moment.reached(folder / "run", begun):
            process.send_signal(waiting.pop(0))
        time.sleep(0.004)
    ended = -signal.SIGKILL if kill else INTERRUPTED
    assert process.returncode in (0, ended), (folder / "said").read_text()
    return process.returncode != 0


def without_clock(records: list[dict]) -> Iterator[dict]:
    for record in records:
        yield {
            name: value
            for name, value in record.items()
            if name != "time" and not name.endswith(("_seconds", "_per_second"))
        }


def outcome(folder: Path) -> dict[str, object]:
    """What kills must not change: figures, curves, kept samples, facts, and every stage's last weights and moments."""
    facts = json.loads((folder / "run.json").read_text())
    found: dict[str, object] = {name: facts[name] for name in FACTS}
    for record in without_clock(read_records(folder / "evaluations.jsonl")):
        place = f"{record['stage']} {record['step']} {record['label']}"
        assert place not in found, f"{place} was judged twice"
        found[place] = record
    curves: dict[str, list[dict]] = {}
    for record in without_clock(read_records(folder / "metrics.jsonl")):
        curves.setdefault(f"curve of {record['stage']}", []).append(record)
    found |= curves
    for path in (
        *folder.rglob("kept.jsonl"),
        *folder.rglob("dropped.json"),
        *folder.rglob("step-*/**/*.safetensors"),
    ):
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that nobody touched."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert start(folder).wait(1500) == 0, (folder / "said").read_text()
    return folder


def of_last_steps(found: dict[str, object]) -> dict[str, object]:
    """Without the checkpoints before a stage's last: an interruption saves one more."""
    steps: dict[str, int] = {}
    for name in found:
        if match := re.match(r"(.*/checkpoints)/step-(\d+)/", name):
            steps[match[1]] = max(steps.get(match[1], 0), int(match[2]))
    last = tuple(f"{place}/step-{step}/" for place, step in steps.items())
    return {
        name: one
        for name, one in found.items()
        if "/checkpoints/step-" not in name or name.startswith(last)
    }


def same(killed: Path, whole: Path) -> None:
    """The run gone on with to its end is the one that nobody touched."""
    assert start(killed).wait(1500) == 0, (killed / "said").read_text()
    one, two = (of_last_steps(outcome(folder / "run")) for folder in (whole, killed))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert {name for name in one if name.startswith("align 3 align budget=")} == {
        f"align 3 align budget={b}" for b in (8, 16, 32)
    }


@pytest.mark.slow
@pytest.mark.invariant
@pytest.mark.timeout(3000)
def test_a_kill_in_every_stage_changes_nothing(whole, tmp_path):
    died = [moment.name for moment in MOMENTS if killed_at(tmp_path / "killed", moment)]
    assert died == [moment.name for moment in MOMENTS]
    same(tmp_path / "killed", whole)


SIGNALS = (
    [signal.SIGINT],
    [signal.SIGTERM],
    [signal.SIGHUP],
    [signal.SIGINT] * 2,
    [signal.SIGTERM, signal.SIGHUP],
)


@pytest.mark.slow
@pytest.mark.invariant
@pytest.mark.timeout(3000)
def test_a_signal_in_every_stage_ends_it_in_order_and_changes_nothing(whole, tmp_path):
    """Once or twice, by each of the signals in turn."""
    died = [
        moment.name
        for place, moment in enumerate(MOMENTS)
        if killed_at(tmp_path / "killed", moment, SIGNALS[place % len(SIGNALS)])
    ]
    assert died == [moment.name for moment in MOMENTS]
    same(tmp_path / "killed", whole)
