"""What is shown may have nobody to see it any more: the work goes on."""

import os
import subprocess
import sys
import time

import pytest

from deepwright.train.progress import Progress
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
