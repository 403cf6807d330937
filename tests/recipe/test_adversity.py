"""What happens to a run from outside: kills that leave drafts, a folder that goes away, a full
disk, signals. Each ends in order, and the same command goes on."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepwright.cli import main
from deepwright.files import read_records
from deepwright.recipe.journal import Journal, RunTracker
from deepwright.recipe.session import CONFIG
from deepwright.train.checkpoint import find_damage
from tests.recipe.mini import LINE
from tests.recipe.test_r1 import ZERO

LAST = "base/checkpoints/step-4/model.safetensors"


def run(folder: Path, *more: str) -> int:
    return main([*LINE, "--run", str(folder), *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody touched."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(folder) == 0
    return folder


# ---- kills between creation and the second checkpoint


class Camera:
    """Copies a folder before every call that changes the file system below it: what a kill there
    leaves."""

    def __init__(self) -> None:
        self.watched: Path | None = None
        self.shots: dict[frozenset, Path] = {}
        sys.addaudithook(self.hear)  # there is no way to take it off again

    def hear(self, event: str, arguments: tuple) -> None:
        changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
        if self.watched and (
            changes or (event == "open" and arguments[1] not in ("r", "rb", None))
        ):
            watched, self.watched = self.watched, None
            if str(arguments[0]).startswith(str(watched)) and watched.exists():
                self.shoot(watched)
            self.watched = watched

    def shoot(self, folder: Path) -> None:
        seen = frozenset(
            (str(path.relative_to(folder)), path.stat().st_size if path.is_file() else -1)
            for path in folder.rglob("*")
        )
        if seen not in self.shots:
            copy = folder.with_name(f"shot-{len(self.shots)}")
            self.shots[seen] = shutil.copytree(folder, copy)


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> list[Path]:
    """The folder of a run at each moment up to its second checkpoint, in order."""
    camera, folder = Camera(), tmp_path_factory.mktemp("killed") / "run"
    camera.watched = folder
    log = RunTracker.log

    def until_the_third(self, stage, step, values):
        camera.watched = folder if step < 3 else None
        log(self, stage, step, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunTracker, "log", until_the_third)
        assert run(folder) == 0
    shutil.rmtree(folder)
    return list(camera.shots.values())


def goes_on(shot: Path, whole: Path) -> None:
    """The same command, with --resume once there are settings, ends as `whole` did."""
    folder = shot.with_name("run")
    shutil.copytree(shot, folder)
    begun = (folder / CONFIG).exists()
    assert run(folder, *["--resume"] * begun) == 0
    assert (folder / LAST).read_bytes() == (whole / LAST).read_bytes()
    assert not list(folder.rglob("*draft*")) and not (folder / ".lock").exists()
    shutil.rmtree(folder)


def test_a_kill_before_the_settings_are_written_leaves_a_new_folder(shots, whole):
    early = [shot for shot in shots if not (shot / CONFIG).exists()]
    assert {".lock", "config.toml.draft"} in [{p.name for p in shot.iterdir()} for shot in early]
    for shot in early:
        goes_on(shot, whole)


def test_a_kill_after_that_goes_on_with_resume(shots, whole):
    kinds = {frozenset(path.name for path in shot.rglob("*")): shot for shot in shots}
    assert len(kinds) > 20
    for shot in list(kinds.values())[::4]:
        goes_on(shot, whole)


@pytest.mark.slow
def test_a_kill_at_every_moment_up_to_the_second_checkpoint(shots, whole):
    for shot in shots:
        goes_on(shot, whole)


@pytest.mark.parametrize(
    "left",
    [
        ["config.toml.draft"],
        [".lock"],
        [".lock", "config.toml.draft", "run.json.draft"],
        ["base/checkpoints/.draft-step-1/model.safetensors", "base/checkpoints/.lock"],
        ["handed_over.draft/config.json"],
    ],
)
def test_a_folder_of_nothing_but_drafts_is_a_new_one(tmp_path, left, whole):
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    assert run(tmp_path) == 0
    assert (tmp_path / LAST).read_bytes() == (whole / LAST).read_bytes()


@pytest.mark.parametrize("name", ["notes.txt", "base/checkpoints/step-1/config.json", "draft.md"])
def test_a_folder_with_anything_else_is_left_alone(tmp_path, name, capsys):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert run(tmp_path, "--resume") == 2
    assert "is not empty and has no config.toml" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [Path(name).name]


# ---- the folder goes away


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replaced_by_another_run(folder: Path) -> None:
    rename(folder)
    folder.mkdir()
    (folder / CONFIG).write_text("of another run")


@contextlib.contextmanager
def at(owner: type, name: str, when, do) -> Iterator[None]:
    """Does something just before the first call of a method for which `when` is true."""
    method, done = getattr(owner, name), []

    def before(self, *arguments, **named):
        if not done and when(*arguments):
            done.append(True)
            do()
        return method(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, before)
        yield
    assert done


@pytest.mark.parametrize("change", [shutil.rmtree, rename, replaced_by_another_run])
@pytest.mark.parametrize("name", ["log", "flush"])
def test_a_folder_that_goes_away_ends_the_run(tmp_path, capsys, change, name):
    folder = tmp_path / "run"
    with at(RunTracker, name, lambda *_: True, lambda: change(folder)):
        assert run(folder) == 2
    captured = capsys.readouterr()
    said = captured.err.splitlines()[-1]
    assert said.startswith(f"deepwright: the run folder {folder} was deleted, renamed or replaced")
    assert "report" not in captured.out
    left = sorted(path.name for path in folder.rglob("*"))
    assert left == ([CONFIG] if change is replaced_by_another_run else [])


@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        (RunTracker, "log", lambda stage, *_: stage == "zero"),
        (Journal, "evaluation", lambda stage, *_: stage == "base"),
        (Journal, "evaluation", lambda stage, step, *_: (stage, step) == ("zero", 2)),
        (Journal, "finish", lambda *_: True),
    ],
)
def test_so_it_is_in_every_part_of_a_run(tmp_path, capsys, owner, name, when):
    folder = tmp_path / "run"
    with at(owner, name, when, lambda: shutil.rmtree(folder)):
        assert main(["r1", "--run", str(folder), *ZERO]) == 2
    assert "was deleted, renamed or replaced" in capsys.readouterr().err and not folder.exists()


# ---- a full disk


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Every write beyond it fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_sentence(capsys) -> str:
    error = capsys.readouterr().err
    # beside what every run says: its first two lines, and those of its progress
    usual = re.compile(r"base .*|.*: pre-training from nothing|its report can be opened now: .*")
    lines = [line for line in error.splitlines() if not usual.fullmatch(line)]
    assert len(lines) == 1 and lines[0].startswith("deepwright: ") and "Exception" not in error
    return lines[0]


@pytest.mark.parametrize(
    ("size", "file"),
    [(0, ".lock"), (100, "config.toml"), (4000, "report.html"), (100_000, "step-1")],
)
def test_a_disk_that_is_full_is_one_sentence_and_names_the_file(
    tmp_path, capsys, size, file, whole
):
    with files_of_at_most(size):
        assert run(tmp_path) == 2
    assert file in one_sentence(capsys)
    assert run(tmp_path, *["--resume"] * (tmp_path / CONFIG).exists()) == 0
    assert (tmp_path / LAST).read_bytes() == (whole / LAST).read_bytes()


def test_what_was_there_before_stays(tmp_path, capsys, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(folder / "base" / "checkpoints" / "step-4")
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    with files_of_at_most(100_000):
        assert run(folder, "--resume") == 2
    assert "step-4: " in one_sentence(capsys)
    assert find_damage(folder / "base" / "checkpoints" / "step-3") is None
    assert {path for path in before if not path.exists()} == set()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_file_system_that_fills_up_at_any_size(tmp_path, capsys):
    ends = set()
    for size in [*range(4, 80, 4), *range(80, 2000, 80)]:  # kilobytes
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(tmp_path)]
        if subprocess.run(mount, check=False).returncode:
            pytest.skip("this machine lets not even root mount one")
        try:
            code = run(tmp_path / "run")
            ends.add(one_sentence(capsys) if code else "")
            for checkpoint in (tmp_path / "run").glob("base/checkpoints/step-*"):
                assert find_damage(checkpoint) is None
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)
    assert "" in ends and len(ends) > 5


@pytest.fixture
def ours(whole) -> Iterator[Path]:
    """A folder of a user whom permissions hold for, unlike root. After `whole`: all modules are
    loaded."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    os.seteuid(os.getuid())
    shutil.rmtree(folder)


def test_a_folder_that_becomes_read_only(ours, capsys):
    folder = ours / "run"
    with at(RunTracker, "log", lambda stage, step, _: step == 3, lambda: folder.chmod(0o555)):
        assert run(folder) == 2
    assert "run.json.draft: permission denied" in one_sentence(capsys)
    assert run(folder, "--resume") == 2
    assert "permission denied" in one_sentence(capsys)
    folder.chmod(0o755)
    assert run(folder, "--resume") == 0


@pytest.mark.slow
def test_of_two_commands_at_once_one_trains_and_the_other_is_told(tmp_path):
    line = [sys.executable, "-m", "deepwright", *LINE, "--run", str(tmp_path / "run")]
    both = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.pid: process.communicate(timeout=200)[1] for process in both}
    assert sorted(process.returncode for process in both) == [0, 2]
    (told,) = (said[process.pid] for process in both if process.returncode == 2)
    assert "is being worked on by process" in told or "exists: --resume" in told
    assert [r["step"] for r in read_records(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4]


# ---- signals


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def code_of(folder: Path, *more: str) -> int:
    try:
        return run(folder, *more)
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def foreground():
    """As a command in the foreground starts: a shell's background job ignores SIGINT, and what runs
    under nohup SIGHUP."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("owner", "name"), [(RunTracker, "log"), (Journal, "corpus"), (Journal, "finish")]
)
def test_a_signal_ends_with_130_and_the_run_goes_on(tmp_path, whole, number, owner, name):
    with at(owner, name, lambda *_: True, lambda: send(number)):
        assert code_of(tmp_path) == 130
    assert run(tmp_path, "--resume") == 0
    assert (tmp_path / LAST).read_bytes() == (whole / LAST).read_bytes()
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_acts_at_once(tmp_path, whole, number):
    with at(RunTracker, "log", lambda *_: True, lambda: send(number, number)):
        assert code_of(tmp_path) == 130
    assert not (tmp_path / "base" / "checkpoints").exists()
    assert run(tmp_path, "--resume") == 0
    assert (tmp_path / LAST).read_bytes() == (whole / LAST).read_bytes()


def test_a_signal_that_the_process_ignores_stays_ignored(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with at(RunTracker, "log", lambda *_: True, lambda: send(signal.SIGHUP)):
            assert run(tmp_path) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
