"""Records: the glossary is enforced, files survive kills, and nothing that is not a finite number reaches JSON."""

import json
import math

import pytest

from deepwright.files import read_records, rewind_records
from deepwright.metrics import GLOSSARY, JsonlTracker


def test_every_metric_has_a_unit_and_one_sentence():
    for name, metric in GLOSSARY.items():
        assert metric.name == name and metric.unit
        assert (
            metric.sentence[0].isupper()
            and metric.sentence.endswith(".")
            and len(metric.sentence) < 160
        )


def test_unknown_metric_is_refused_with_the_nearest_name(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"'grad_nrom'.*'grad_norm'"):
        tracker.log("base", 1, {"loss": 1.0, "grad_nrom": 2.0})
    with pytest.raises(ValueError, match="add it to"):
        tracker.log("base", 1, {"zzzzzz": 2.0})
    assert read_records(tracker.path) == []  # nothing is half-written


def test_records_come_back(tmp_path):
    tracker = JsonlTracker(tmp_path / "run" / "metrics.jsonl")
    tracker.log(
        "base", 3, {"loss": 1.25, "tokens": 4096, "expert_load": [[0.5, 0.5], [0.25, 0.75]]}
    )
    tracker.flush()
    (record,) = read_records(tracker.path)
    assert record.pop("time") > 1.6e9
    assert record == {
        "stage": "base",
        "step": 3,
        "loss": 1.25,
        "tokens": 4096,
        "expert_load": [[0.5, 0.5], [0.25, 0.75]],
    }


def test_a_record_is_readable_as_soon_as_it_is_logged(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    for step in range(3):
        tracker.log("zero", step, {"reward": step})
        assert len(read_records(tracker.path)) == step + 1


def test_not_finite_is_null_and_counted(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.log(
        "zero",
        1,
        {"kl": math.nan, "ratio_max": math.inf, "reward": 0.5, "expert_load": [[0.5, -math.inf]]},
    )
    (line,) = tracker.path.read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)  # strict JSON: no NaN, no Infinity
    assert (
        record["kl"] is None
        and record["ratio_max"] is None
        and record["expert_load"] == [[0.5, None]]
    )
    assert record["not_finite"] == 3
    tracker.log("zero", 2, {"kl": 0.0})
    assert "not_finite" not in read_records(tracker.path)[1]


@pytest.mark.parametrize("value", ["0.5", b"1", None, {"a": 1}, [["x"]]])
def test_what_is_no_number_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"'loss'.*expected a number"):
        JsonlTracker(tmp_path / "metrics.jsonl").log("base", 1, {"loss": value})


def test_torn_last_line_is_dropped_at_every_length(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(path)
    tracker.log("base", 1, {"loss": 2.0})
    first = path.read_bytes()
    tracker.log("base", 2, {"loss": 1.0})
    whole = path.read_bytes()
    for length in range(len(first), len(whole)):
        path.write_bytes(whole[:length])
        assert [record["step"] for record in read_records(path)] == [1]
        JsonlTracker(path).log("base", 2, {"loss": 0.5})
        assert [record["step"] for record in read_records(path)] == [1, 2]


def test_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "base", "step": 1}\nnonsense\n{"stage": "base", "step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        read_records(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1"):
        read_records(path)


def test_rewind_drops_later_records_of_that_stage_only(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        tracker.log("base", step, {"loss": 1.0 / step})
    tracker.log("zero", 3, {"reward": 0.1})
    assert tracker.rewind("base", 1) == 2
    tracker.log("base", 2, {"loss": 0.25})
    assert [(r["stage"], r["step"]) for r in read_records(tracker.path)] == [
        ("base", 1),
        ("zero", 3),
        ("base", 2),
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_rewinding_a_missing_or_torn_file(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    assert rewind_records(path, lambda record: True) == 0
    path.write_text('{"stage": "zero", "step": 5}\n{"stage": "ze')
    assert rewind_records(path, lambda record: record["step"] > 5) == 0
    assert path.read_text() == '{"stage": "zero", "step": 5}\n'
