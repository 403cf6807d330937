"""The clock of a program on a busy machine, and what the launcher says of programs there."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from deepwright.tasks import sandbox
from deepwright.tasks.launcher import Clock, Wait
from deepwright.tasks.sandbox import Job, Limits, python, run

TICK = 0.05


def clocked(steps, tick=TICK):
    """Own seconds after steps of (passed, waited, ready, running)."""
    clock, now = Clock(0.0, tick), 0.0
    for passed, waited, ready, running in steps:
        now += passed
        clock.advance(now, waited, ready, running)
    return clock.own


def test_time_that_a_program_has_or_sleeps_is_its_own():
    assert clocked([(0.05, 0.0, 1, 2)] * 20) == pytest.approx(1.0)
    assert clocked([(0.05, 0.0, 0, 9)] * 20) == pytest.approx(1.0)  # it sleeps on a busy machine


def test_time_without_a_processor_is_not():
    assert clocked([(0.05, 0.04, 1, 9)] * 20) == pytest.approx(0.2)
    assert clocked([(0.05, 0.08, 1, 9)]) == 0.0  # never negative


def test_what_its_own_threads_take_from_each_other_is():
    """16 that spin on an idle machine of one processor; with as many of others, half of it."""
    assert clocked([(0.05, 0.047, 16, 17)] * 20) == pytest.approx(1.0)
    half = clocked([(0.05, 0.05, 16, 33)] * 20)
    assert half == pytest.approx(1 - 16 / 31)


def test_a_machine_that_stood_still_is_no_fault():
    """A pause of all, of which the launcher sees only that it was not woken."""
    assert clocked([(0.05, 0.0, 0, 1), (30.0, 0.0, 0, 1)]) == pytest.approx(0.05 + 2 * TICK)


def test_a_wait_that_lasts_is_seen_and_counted_once():
    """The kernel adds a wait when it is over: 0.4 s here, of which 0.3 were seen on the way."""
    wait = Wait()
    second = 1_000_000_000
    assert wait.since(second, 0, True, TICK) == 0.0  # it has run
    for _ in range(3):
        assert wait.since(second, 0, True, 0.1) == 0.1  # nothing has happened
    after = wait.since(second + 1, int(0.4 * second), True, 0.1)
    assert after == pytest.approx(0.1)
    assert wait.since(second + 1, int(0.4 * second), False, 0.1) == 0.0  # it sleeps


@contextlib.contextmanager
def crowded(count):
    """This process and its children on one processor, with `count` others that want it too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    spin = [sys.executable, "-I", "-S", "-c", "while True: pass"]
    others = [subprocess.Popen(spin, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, before)


def judged(code, seconds=1.0, cpu_seconds=1):
    job = Job(python("-c", code), Limits(seconds, cpu_seconds))
    return run(job, b"", sandbox.confinement())


@pytest.mark.usefixtures("confined")
def test_on_a_busy_machine_verdicts_are_the_same():
    """Half a second of work takes more than its second here, and is let end; a program that waits
    or spins is stopped for that; one that waits for its own children too."""
    with crowded(6):
        begun = time.monotonic()
        works = judged("import time\nwhile time.process_time() < 0.4: pass")
        assert works.status == 0 and time.monotonic() - begun > 1.2
        assert judged("import time; time.sleep(60)").stopped == "out of time (1 s)"
        assert "out of" in judged("while True: pass").stopped
        assert "out of" in judged("import os\nos.fork()\nwhile True: pass").stopped


@pytest.mark.usefixtures("confined")
def test_a_program_that_got_nothing_is_a_failure(monkeypatch):
    """The machine's, and it ends: the program is let wait PATIENCE times its seconds at most."""
    monkeypatch.setattr(sandbox, "PATIENCE", 2)
    with crowded(12):
        ended = judged("import time\nwhile time.process_time() < 0.9: pass")
    assert ended.status is None and not ended.stopped
    assert "the machine was too busy: the program got 0." in ended.failed


@pytest.mark.usefixtures("confined")
def test_where_memory_ran_out_elsewhere_a_bad_end_is_a_failure(monkeypatch):
    """The kernel ended something for want of memory while the program ran; it is not said what."""
    launcher = sandbox._LAUNCHER.replace(
        "clock, watched, killed = Clock(time.monotonic(), tick), Watched(child, alone), _killed()",
        "clock, watched, killed = Clock(time.monotonic(), tick), Watched(child, alone), -1",
    )
    assert launcher != sandbox._LAUNCHER
    monkeypatch.setattr(sandbox, "_LAUNCHER", launcher)
    assert "ran out of memory" in judged("raise MemoryError").failed
    assert judged("pass").status == 0


@pytest.mark.usefixtures("confined")
def test_the_launcher_leaves_with_its_judge(tmp_path):
    """A judge that is killed leaves no program behind, whatever the program does."""
    code = (
        "from deepwright.tasks.sandbox import *\n"
        "job = Job(python('-c', 'import time; time.sleep(987)'), Limits(900))\n"
        "print(flush=True)\nrun(job, b'', confinement())"
    )
    judge = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    judge.stdout.read(1)
    deadline = time.monotonic() + 20

    def programs():
        listed = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True).stdout
        return sum(
            "time.sleep(987)" in line and "deepwright" not in line for line in listed.splitlines()
        )

    while not programs() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert programs() == 1
    judge.kill()
    judge.wait()
    while programs() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not programs()
