"""How far runs of one recipe lie apart: measured over runs, kept, and told where a run is like them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deepwright.report import background, spread, stages
from deepwright.report.chinese import chinese
from deepwright.report.records import STAGES, Run, read_run
from tests.report.fabricated import make_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return three_runs(tmp_path_factory.mktemp("spread"))


def three_runs(folder: Path) -> list[Run]:
    """Of other seeds and formats; R1 is right in 60, 70 and 55% of them."""
    made = make_recipe(folder / "made")
    for place, share in enumerate((0.6, 0.7, 0.55)):
        one = folder / f"seed{place}"
        shutil.copytree(made, one)
        config = (one / "config.toml").read_text().replace("seed = 7", f"seed = {place}")
        (one / "config.toml").write_text(config + f'[pretrain]\ncompute = "float{16 + place}"\n')
        lines = [json.loads(line) for line in (one / "evaluations.jsonl").read_text().splitlines()]
        for line in lines:
            line["pass_at_1"] = share if line["label"] == "align" else line["pass_at_1"]
        (one / "evaluations.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return [read_run(folder / f"seed{place}") for place in range(3)]


@pytest.fixture
def kept(runs, tmp_path, monkeypatch):
    spread.write(spread.measure(runs, list(STAGES)), tmp_path / "spread.json")
    monkeypatch.setattr(spread, "MEASURED", tmp_path / "spread.json")


def test_lowest_and_highest_of_each_stage(runs):
    measured = spread.measure(runs, [*STAGES, "unheard of"])
    assert measured.stages["align"] == (0.55, 0.7)
    assert measured.range_of("align") == "55.0% to 70.0%"
    assert "unheard of" not in measured.stages and measured.range_of("unheard of") == ""


def tells_only_runs_like_those(folder: Path) -> None:
    runs = three_runs(folder)
    measured = spread.measure(runs, list(STAGES))
    other = replace(runs[0], config={**runs[0].config, "seed": 9, "threads": 1})
    newer = replace(runs[0], config={**runs[0].config, "brand_new": 1, "deepwright_version": "9"})
    larger = {**runs[0].config, "model": {**runs[0].config["model"], "hidden_size": 256}}
    assert measured.is_of(other) and measured.is_of(newer)
    assert not measured.is_of(replace(runs[0], config=larger))
    assert not measured.is_of(replace(runs[0], config={}))


def test_only_runs_of_these_settings_are_told(tmp_path):
    tells_only_runs_like_those(tmp_path)


def test_other_settings_are_not_measured_together(runs):
    larger = {**runs[1].config, "model": {**runs[1].config["model"], "hidden_size": 256}}
    with pytest.raises(ValueError, match="has other settings than"):
        spread.measure([runs[0], replace(runs[1], config=larger)], ["align"])


def test_the_report_of_such_a_run_says_it(runs, kept):
    assert "R1 at 55.0% to 70.0%" in background.limits(runs[2])
    assert "of other runs" in stages.recipe(runs[2])
    elsewhere = replace(runs[2], config={**runs[2].config, "quick": True})
    assert " of these settings" not in background.limits(elsewhere)
    assert "of other runs" not in stages.recipe(elsewhere)


def test_it_is_said_in_chinese_too(runs, kept):
    (text,) = re.findall("<li>([^<]*of these settings[^<]*)</li>", background.limits(runs[2]))
    assert "R1 为 55.0% 至 70.0%" in chinese(text)


def test_what_comes_with_the_package_is_of_the_main_job():
    measured = spread.read(spread.MEASURED)
    assert len(measured.runs) >= 6
    low, high = measured.stages["align"]
    assert measured.stages["zero"][0] > 0 and low <= high <= 1
