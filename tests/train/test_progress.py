"""What is shown may have nobody to see it any more: the work goes on."""

import io
import os
import re
import subprocess
import sys
import time

import pytest

from deepwright.train.progress import Progress, say
from tests.recipe.mini import LINE


def work(stream) -> None:
    with Progress(3, "work", "steps", stream=stream, seconds=0.0) as progress:
        for _ in range(3):
            progress.advance(1, "text")
            progress.say("a line")
            time.sleep(0.15)  # the bar is drawn ten times a second


def test_a_terminal_that_is_closed_does_not_end_the_work():
    there, here = os.openpty()
    stream = os.fdopen(here, "w")
    os.close(there)
    with pytest.raises(OSError, match="Input/output error"):
        print("heard", file=stream, flush=True)
    work(stream)


def test_a_pipe_that_is_closed_does_not_either():
    reader, writer = os.pipe()
    os.close(reader)
    work(os.fdopen(writer, "w"))


def test_a_reader_who_has_seen_enough_ends_no_run(tmp_path):
    """`deepwright pretrain 2>&1 | head -0`: what is shown goes nowhere, the run is finished."""
    command = [sys.executable, "-m", "deepwright", *LINE, "--run", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.stderr.close()
    assert process.wait(120) == 0
    assert '"status": "finished"' in (tmp_path / "run" / "run.json").read_text()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def plain(said: str) -> str:
    """What a terminal was sent, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)


def test_slow_steps_are_told_in_seconds():
    said = io.StringIO()
    with Progress(4000, "sft", stream=said, seconds=0.0) as progress:
        progress._begun -= 6.0
        progress.advance(1000, "loss 1")
        progress._begun -= 6.0
        progress.advance(1000, "loss 1")
    first, second = said.getvalue().splitlines()
    assert "| 6.0 s a step | 0:00:18 left |" in first and "| 6.0 s a step |" in second
    with Progress(40, "zero", "steps", stream=said, seconds=0.0) as progress:
        progress._begun -= 4.0
        progress.advance(8)
    assert "| 2.0 steps/s |" in said.getvalue().splitlines()[-1]


def test_the_time_left_of_the_whole_is_told_where_it_is_known():
    said = io.StringIO()
    asked = []

    def whole(left: float, done: float) -> float | None:
        asked.append(done)
        return left + 60 if done > 0.5 else None

    with Progress(4, "zero", "steps", stream=said, seconds=0.0, whole=whole) as progress:
        progress._begun -= 4.0
        for _ in range(4):
            progress.advance(1)
    lines = said.getvalue().splitlines()
    assert asked == [0.25, 0.5, 0.75, 1.0]
    assert "all:" not in lines[1] and "0:00:00 left (all: 0:01:00)" in lines[3]


def test_a_bar_within_a_bar_is_shown_below_it_and_leaves(monkeypatch):
    said = Terminal()
    monkeypatch.setattr("sys.stderr", said)
    with Progress(4, "zero", "steps") as outer:
        outer.advance(1)
        with Progress(8, "asking zero", "answers", brief=True) as inner:
            assert inner._bar is outer._bar
            inner.advance(8, "4 running")
            say("a line above")
        assert [task.description for task in outer._bar.tasks] == ["zero"]
        outer.advance(3)
    assert "a line above" in plain(said.getvalue()) and "100%" in plain(said.getvalue())


def test_a_line_of_a_terminal_is_never_wider_than_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = Terminal()
    with Progress(4, "reasoning_rl", "steps", stream=said, whole=lambda left, _: 3600.0) as bar:
        bar._begun -= 8.0
        bar.advance(1, "accuracy 0.123 | format 0.99 | length 123 | self-checks 0.45")
    shown = [line for line in re.split(r"[\r\n]+", plain(said.getvalue())) if line.strip()]
    assert max(map(len, shown)) <= 80
    assert "reasoning_rl ━" in shown[-1] and "0:00:24 left (all: 1:00:00) 8.0 s a step" in shown[-1]


def test_what_is_brief_says_nothing_where_there_is_no_terminal():
    said = io.StringIO()
    with Progress(8, "asking", "answers", stream=said, brief=True) as progress:
        progress.advance(8)
    assert said.getvalue() == ""
    with Progress(8, "asking", "answers", stream=said, brief=True, seconds=0.0) as progress:
        progress.advance(4)
    assert said.getvalue().startswith("asking 4/8 answers")
