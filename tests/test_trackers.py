"""Records in other tools' files, read back with TensorBoard's own reader and with Python's csv."""

from __future__ import annotations

import csv
import math
import shutil
import sys

import pytest

from deepwright.cli import main
from deepwright.files import read_records
from deepwright.metrics import GLOSSARY, JsonlTracker
from deepwright.trackers import FOLDER, TensorBoard, to_csv, to_tensorboard
from tests.recipe.mini import LINE

Points = dict[str, list[tuple[int, float]]]


def points(folder) -> Points:
    """tag -> (step, value) of one stage, as TensorBoard reads them."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def logged(path, stage: str) -> Points:
    """The same of metrics.jsonl."""
    found: Points = {}
    for record in read_records(path):
        for name, value in record.items() if record["stage"] == stage else ():
            if name.partition("/")[0] in GLOSSARY and isinstance(value, (int, float)):
                found.setdefault(name, []).append((record["step"], value))
    return found


def same(one: Points, other: Points) -> bool:
    """Steps and values, these to the precision of float32 that an event holds."""
    return one.keys() == other.keys() and all(
        [step for step, _ in one[tag]] == [step for step, _ in other[tag]]
        and [v for _, v in one[tag]] == pytest.approx([v for _, v in other[tag]], rel=2**-23)
        for tag in one
    )


def every_step_stands_once_after_records_were_taken_back(folder) -> None:
    pytest.importorskip("tensorboard")
    path = folder / "metrics.jsonl"

    def opened() -> JsonlTracker:
        return JsonlTracker(path, [TensorBoard(folder / FOLDER, read_records(path))])

    tracker = opened()
    for step in range(1, 6):
        tracker.log("base", step, {"loss": 1 / step, "expert_load": [[0.5, 0.5]]})
    tracker.log("zero", 1, {"reward": 0.5, "kl": math.nan})
    tracker.rewind("base", 3)
    tracker.log("base", 4, {"loss": 9.0})
    assert same(points(folder / FOLDER / "base"), logged(path, "base"))
    tracker = opened()  # another process goes on
    tracker.log("base", 5, {"loss": 8.0})
    read = points(folder / FOLDER / "base")
    assert read["loss"][-2:] == [(4, 9.0), (5, 8.0)] and len(read["loss"]) == 5
    assert points(folder / FOLDER / "zero") == {"reward": [(1, 0.5)]}, "a number that is none"


def test_every_step_stands_once(tmp_path):
    every_step_stands_once_after_records_were_taken_back(tmp_path)


def test_a_point_is_there_as_soon_as_it_is_logged(tmp_path):
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path)
    for step in range(1, 4):
        board.add({"stage": "zero", "step": step, "time": 1.5e9, "reward": step / 2})
        assert points(tmp_path / "zero")["reward"][-1] == (step, step / 2)


def test_a_reader_who_looks_on_sees_records_taken_back(tmp_path):
    """The reader of a TensorBoard that runs, which goes on where it stopped reading."""
    readers = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def record(step: int, value: float) -> dict:
        return {"stage": "zero", "step": step, "time": 1.5e9, "reward": value}

    board = TensorBoard(tmp_path)
    for step in range(1, 6):
        board.add(record(step, 0.5))
    looking = readers.EventAccumulator(str(tmp_path / "zero"), size_guidance={"scalars": 0})

    def seen() -> list[tuple[int, float]]:
        looking.Reload()
        return [(event.step, event.value) for event in looking.Scalars("reward")]

    assert len(seen()) == 5
    board.rewind("zero", 3)
    board.add(record(4, 8.0))
    assert seen() == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 8.0)]
    again = TensorBoard(tmp_path, [record(step, 0.5) for step in (1, 2)])  # another process
    again.add(record(3, 9.0))
    assert seen() == [(1, 0.5), (2, 0.5), (3, 9.0)]


def test_a_run_writes_its_events_live_and_after_a_resume_they_are_its_records(tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    command = [*LINE, "--run", str(run), "--track", "tensorboard"]
    assert main(command) == 0
    events = run / FOLDER / "base"
    assert same(points(events), logged(run / "metrics.jsonl", "base"))
    last = max((run / "base" / "checkpoints").glob("step-*"))
    shutil.rmtree(last)  # so that the last step is taken back, and made again
    assert main([*command, "--resume"]) == 0
    assert same(points(events), logged(run / "metrics.jsonl", "base"))
    assert [step for step, _ in points(events)["loss"]] == [1, 2, 3, 4]


def test_records_are_converted_afterwards(tmp_path):
    pytest.importorskip("tensorboard")
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        tracker.log("sft", step, {"loss": 1.0 / step})
    to_tensorboard(tracker.path, tmp_path / "board")
    assert points(tmp_path / "board" / "sft") == {"loss": [(1, 1.0), (2, 0.5)]}
    with pytest.raises(ValueError, match="board is there already"):
        to_tensorboard(tracker.path, tmp_path / "board")


def test_a_stage_is_no_path(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(ValueError, match="stage is '../away'"):
        TensorBoard(tmp_path / "board", [{"stage": "../away", "step": 1, "time": 0.0}])
    assert not (tmp_path / "away").exists()


def test_without_the_package_the_setting_is_refused_in_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*LINE, "--run", str(tmp_path / "run"), "--track", "tensorboard"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'deepwright[tensorboard]'" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(tmp_path, capsys):
    assert main([*LINE, "--run", str(tmp_path / "run"), "--track", "wandb"]) == 2
    assert "track is 'wandb', expected 'none' or 'tensorboard'" in capsys.readouterr().err


def test_csv_holds_every_number_and_an_empty_cell_for_the_others(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.log("base", 1, {"loss": 2.5, "expert_load": [[0.5, 0.5]]})
    tracker.log("zero", 1, {"reward": 0.25, "kl": math.inf})
    to_csv(tracker.path, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("time") != "" for row in rows] == [True, True]
    assert rows == [
        {"stage": "base", "step": "1", "loss": "2.5", "reward": "", "not_finite": ""},
        {"stage": "zero", "step": "1", "loss": "", "reward": "0.25", "not_finite": "1"},
    ]


def test_what_has_no_records_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="has not logged anything yet"):
        to_csv(tmp_path / "metrics.jsonl", tmp_path / "all.csv")
    assert not (tmp_path / "all.csv").exists()
