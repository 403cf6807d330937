"""Reinforcement learning of the real language model as `make smollm2` does it, killed again and again. Needs `deepwright get smollm2` first."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deepwright import weights
from deepwright.files import read_records
from deepwright.recipe.session import model_folder
from tests.rl.fakes import CLOCK

MODEL = Path("models/smollm2").resolve()
SMALL = (
    "--rl.steps 40 --rl.prompts 4 --rl.samples 4 --rl.max-tokens 24 --rl.checkpoint-every 1 --rl.keep 2 --rl.evaluate-every 8 "
    "--evaluation.problems 8 --evaluation.samples 2 --evaluation.problems-between 8"
).split()
KILLS = 10


def start(folder: Path) -> subprocess.Popen:
    line = [
        sys.executable,
        "-m",
        "deepwright",
        "rl",
        "--config",
        "smollm2",
        "--run",
        f"{folder}/run",
        "--start",
        str(MODEL),
        "--resume",
        *SMALL,
    ]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=(folder / "said").open("a"))


def curve(folder: Path) -> list[dict]:
    return [
        {k: v for k, v in record.items() if k not in (*CLOCK, "evaluation_seconds")}
        for record in read_records(folder / "run/metrics.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    not (MODEL / "config.json").exists(),
    reason="models/smollm2 is not there: deepwright get smollm2",
)
def test_ten_kills_change_nothing(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert start(whole).wait(1200) == 0, (whole / "said").read_text()
    moments, died = random.Random(0), 0
    while True:
        process = start(killed)
        try:  # from loading the model to the last steps; once enough have died it may finish
            code = process.wait(moments.uniform(15, 45) if died < KILLS else 1200)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            died += process.wait() == -signal.SIGKILL
            continue
        assert code == 0, (killed / "said").read_text()
        break
    assert curve(killed) == curve(whole) and len(curve(whole)) == 40
    a, b = (
        weights.load(model_folder(folder / "run"))[0].state_dict() for folder in (whole, killed)
    )
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    figures = [
        [
            {k: v for k, v in e.items() if k != "time"}
            for e in read_records(f / "run/evaluations.jsonl")
        ]
        for f in (whole, killed)
    ]
    assert figures[0] == figures[1]
    assert died >= 8, (
        f"only {died} of the kills came before the run was over: the test shows little"
    )
