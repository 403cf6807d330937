"""One process at a time owns a run folder, whatever becomes of that process or of the folder."""

import contextlib
import errno
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from deepwright.cli import main
from deepwright.recipe import owner as subject
from deepwright.recipe.owner import LOCK, FolderGone, owning
from deepwright.recipe.session import open_run
from deepwright.recipe.settings import R1Settings
from deepwright.report import write_report

# Holds the folder, starts a child that lives on after it, says so and waits.
HOLD = """
import subprocess, sys, time
from pathlib import Path
from deepwright.recipe.owner import owning
with owning(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def holder(folder):
    """A process that holds the folder, and its child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    yield process, child
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def refused(folder) -> str:
    try:
        with owning(folder):
            pass
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{folder} was free")


def alive(pid: int) -> bool:
    os.kill(pid, 0)
    return True


def test_a_second_process_is_told_who_holds_the_folder(folder, holder):
    said = refused(folder)
    assert f"process {holder[0].pid} on {platform.node()} since 20" in said
    assert str(folder) in said and "\n" not in said


def test_a_kill_releases_it_though_a_child_lives_on(folder, holder):
    process, child = holder
    process.kill()
    process.wait()
    assert alive(child)
    with owning(folder):
        assert f"process {os.getpid()} " in refused(folder)
    assert list(folder.iterdir()) == []


def test_a_child_that_inherits_it_would_be_seen(folder):
    """The same with a child that is given the lock: it is held as long as the child lives."""
    given = HOLD.replace(
        "with owning(Path(sys.argv[1])):", "with owning(Path(sys.argv[1])) as owner:"
    )
    given = given.replace('"60"])', '"60"], pass_fds=[owner.descriptor])')
    process = subprocess.Popen(
        [sys.executable, "-c", given, str(folder)], stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    assert f"process {process.pid} " in refused(folder)
    os.kill(child, signal.SIGKILL)


def test_every_training_command_asks_in_the_same_place(folder, holder, capsys):
    settings = R1Settings(run=str(folder))
    with pytest.raises(ValueError, match=f"worked on by process {holder[0].pid} "):
        open_run(settings, resume=True).__enter__()
    lines = ("r1 --stages base", "pretrain")
    for line in lines:
        assert main([*line.split(), "--quick", "--run", str(folder), "--resume"]) == 2
        assert f"worked on by process {holder[0].pid} " in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [LOCK]


def test_readers_are_not_locked_out(folder):
    with owning(folder):
        assert write_report(folder).is_file()


def test_of_many_at_once_one_gets_in(folder):
    inside, most, entered = [], [0], []

    def try_often() -> None:
        for _ in range(60):
            try:
                with owning(folder):
                    inside.append(1)
                    most[0] = max(most[0], len(inside))
                    entered.append(1)
                    time.sleep(0.0005)
                    inside.pop()
            except ValueError:
                time.sleep(0.0003)

    threads = [threading.Thread(target=try_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and len(entered) > 20


def test_a_file_that_its_owner_removes_meanwhile_locks_nobody(folder):
    """The second one opens the file, the first one lets go and removes it, a third comes."""
    first, third, flock = owning(folder), owning(folder), fcntl.flock
    first.__enter__()
    with pytest.MonkeyPatch.context() as patch:

        def late(descriptor: int, how: int) -> None:
            patch.undo()
            first.__exit__(None, None, None)
            third.__enter__()
            flock(descriptor, how)

        patch.setattr(fcntl, "flock", late)
        said = refused(folder)
    third.__exit__(None, None, None)
    assert f"process {os.getpid()} " in said


@pytest.mark.parametrize("number", subject.NO_LOCKS)
def test_a_file_system_without_locks_is_said_and_used(folder, monkeypatch, number):
    def flock(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.warns(UserWarning, match="has no locks, so nothing keeps a second process"),
        owning(folder) as owner,
    ):
        owner.check()
    assert list(folder.iterdir()) == []


def test_another_failure_of_the_lock_is_not_taken_for_that(folder, monkeypatch):
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), owning(folder):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\x00" * 5000, b"x" * 10_000])
def test_a_damaged_lock_file_is_quoted_shortly(folder, content):
    with owning(folder):
        (folder / LOCK).write_bytes(content)
        said = refused(folder)
    assert len(said) < 800 and said.isprintable()


def rename(folder):
    folder.rename(folder.with_name("elsewhere"))


def replace(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / LOCK).touch()


def file_instead(folder):
    shutil.rmtree(folder)
    folder.touch()


@pytest.mark.parametrize("change", [shutil.rmtree, rename, replace, file_instead])
def test_a_folder_that_is_gone_is_noticed_and_what_took_its_place_is_left_alone(folder, change):
    noticed = False
    with contextlib.suppress(FolderGone), owning(folder) as owner:
        owner.check()
        change(folder)
        noticed = True
        owner.check()
        noticed = False
    assert noticed
    if change is replace:
        assert [path.name for path in folder.iterdir()] == [LOCK]
