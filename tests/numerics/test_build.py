"""Compiled code is loaded only while it is what was built here, by this user, and was tried:
everything else is built again, or torch takes over with one warning. What may kill a process is
loaded in one of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deepwright.numerics import build, cache, compiled

pytestmark = pytest.mark.skipif(not compiled.reason()[0], reason=compiled.reason()[1])
SYMBOLS = tuple(compiled._SIGNATURES)
CODE = """
import sys, torch
from deepwright import numerics
from deepwright.numerics import build
build.SECONDS.update(asked=10, built=5)
with torch.inference_mode(): print(float(numerics.linear(torch.ones(1, 3), torch.ones(2, 3)).sum()))
print(*numerics.compiled.reason(), sep="; ")
numerics.compiled.reason()
"""


@pytest.fixture(scope="module")
def good() -> Path:
    """What the real compiler makes."""
    return build.library(SYMBOLS)


def compiler(folder: Path, body: str, version: str = "echo fake 1.0") -> Path:
    """A script in the place of one; $target is what it is to write."""
    script = folder / "cc"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ {version}; exit 0; }}\n'
        'while [ "$1" != -o ]; do shift; done\ntarget=$2\n' + body + "\n"
    )
    script.chmod(0o755)
    return script


@pytest.fixture
def place(tmp_path, good, monkeypatch) -> Path:
    """The folder of a user whose compiler takes no time and does well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", str(compiler(tmp_path, f'cp {good} "$target"')))
    monkeypatch.setattr(build, "_try", lambda made, symbols: None)
    return tmp_path / "cache" / "deepwright"


def child(**setting: str) -> tuple[str, str, list[str]]:
    """(result, reason, warnings) of another process."""
    command = [sys.executable, "-W", "always", "-c", CODE]
    run = subprocess.run(command, env=os.environ | setting, capture_output=True, text=True)
    assert run.returncode == 0, f"exit {run.returncode}: {run.stderr[-500:]}"
    result, reason = run.stdout.splitlines()
    warned = [line for line in run.stderr.splitlines() if "torch computes" in line]
    return result, reason, [line for line in warned if "warnings.warn" not in line]


def digests(folder: Path) -> set[str]:
    return {path.name.split(".")[-2] for path in folder.glob("*.so")}


def check_a_library_is_found_again_and_only_as_it_was_built(place, good):
    first = build.library(SYMBOLS)
    assert first.parent == place and first.read_bytes() == good.read_bytes()
    assert (place.stat().st_mode & 0o777, first.stat().st_mode & 0o777) == (0o700, 0o600)
    os.utime(first, (0, 0))
    assert build.library(SYMBOLS).stat().st_mtime == 0, "it was built again although it is whole"
    whole = first.read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    for damage in (whole[: len(whole) // 2], whole[:64], b"", bytes(changed), whole + b" "):
        first.write_bytes(damage)
        assert build.library(SYMBOLS).read_bytes() == whole
        assert digests(place) == {build._digest(good)}


def test_a_library_is_found_again_and_only_as_it_was_built(place, good):
    check_a_library_is_found_again_and_only_as_it_was_built(place, good)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda whole: whole[:64]]
)
def test_a_cut_library_kills_no_process(damage, place, good):
    """Mapped as it is, half a library is a SIGBUS."""
    found = build.library(SYMBOLS)
    found.write_bytes(damage(found.read_bytes()))
    result, reason, warned = child()
    assert (result, reason.split(";")[0], warned) == ("6.0", "True", [])


def check_what_others_can_write_is_not_used(place):
    found = build.library(SYMBOLS)
    for mode in (0o620, 0o602):
        found.chmod(mode)
        os.utime(found, (0, 0))
        found = build.library(SYMBOLS)
        assert found.stat().st_mtime > 0, "loaded although others can write to it"
    place.chmod(0o777)
    assert build.library(SYMBOLS).parent != place


def test_what_others_can_write_is_not_used(place, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    check_what_others_can_write_is_not_used(place)
    assert build.library(SYMBOLS).parent == tmp_path / "home" / ".cache" / "deepwright"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_another_user_made_is_not_used(place, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = build.library(SYMBOLS)
    os.utime(found, (0, 0))
    os.chown(found, 65534, 65534)
    assert build.library(SYMBOLS).stat().st_mtime > 0
    os.chown(place, 65534, 65534)
    assert cache.not_trusted(place) == f"{place} belongs to another user"
    assert build.library(SYMBOLS).parent != place


@pytest.mark.parametrize("home", ["/proc/nowhere", "", "relative"])
def test_without_a_home_the_folder_for_temporary_files_serves(home, place, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os.path, "expanduser", lambda path: home)
    assert build.library(SYMBOLS).parent == tmp_path / f"deepwright-{os.geteuid()}"


def test_without_any_folder_one_sentence_says_what_is_wrong_with_each(place, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cache, "places", lambda: [tmp_path / "file", Path("/proc/nowhere/x")])
    with pytest.raises(cache.NoFolder, match=r"no folder .*file: file exists; /proc/nowhere/x: "):
        build.library(SYMBOLS)


def test_a_directory_in_its_place_is_no_library(place):
    found = build.library(SYMBOLS)
    found.unlink()
    found.mkdir()
    with pytest.raises(OSError):
        build.library(SYMBOLS)


FAILS = {
    "fails": ("echo no such machine >&2; exit 1", "no such machine"),
    "makes nothing": ("true", "made no library"),
    "makes a directory": ('mkdir "$target"', "made no library"),
    "hangs": ("sleep 100", "did not end in 1 s"),
    "leaves somebody behind": ("sleep 100 & exit 1", "failed (1)"),
    "talks without end": ("yes", "did not end in 1 s"),
}


@pytest.mark.parametrize("name", FAILS)
def test_a_compiler_that_does_not_compile_is_said(name, place, tmp_path, monkeypatch):
    body, said = FAILS[name]
    compiler(tmp_path, body)
    monkeypatch.setitem(build.SECONDS, "built", 1.0)
    with pytest.raises(build.BuildError) as caught:
        build.library(SYMBOLS)
    assert said in str(caught.value) and len(str(caught.value)) < 400
    assert list(place.iterdir()) == [], "something half made was left"


def test_a_compiler_that_does_not_say_its_version(place, tmp_path, monkeypatch):
    monkeypatch.setitem(build.SECONDS, "asked", 1.0)
    compiler(tmp_path, "true", version="sleep 100")
    with pytest.raises(build.BuildError, match=r"cc did not end in 1 s"):
        build.library(SYMBOLS)
    compiler(tmp_path, "true", version="exit 3")
    with pytest.raises(build.BuildError, match=r"cc failed \(3\)"):
        build.library(SYMBOLS)


GARBAGE = {
    "text": "echo garbage > $target",
    "nothing": ": > $target",
    "half a library": "head -c 70000 {good} > $target",
    "without the functions": "echo 'void f(void) {{}}' > f.c; gcc -shared -fPIC f.c -o $target",
    "another norm": (
        "printf '#define X(n) void n(void) {{}}\\n{all}\\n' > f.c; gcc -shared -fPIC f.c -o $target"
    ),
}


CHILDREN = [
    name if name == "half a library" else pytest.param(name, marks=pytest.mark.slow)
    for name in GARBAGE
]


@pytest.mark.parametrize("name", CHILDREN)
def test_what_a_compiler_makes_is_tried_elsewhere_first(name, tmp_path, good):
    every = "".join(f"X({symbol})" for symbol in SYMBOLS)
    body = GARBAGE[name].format(good=good, all=every)
    setting = {
        "CC": str(compiler(tmp_path, f"cd {tmp_path}; {body}")),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    result, reason, warned = child(**setting)
    assert result == "6.0" and reason.startswith("False; torch operations: ")
    assert "the trial of what the compiler made failed (" in reason and len(warned) == 1
    assert not list((tmp_path / "deepwright").iterdir())


def test_two_that_build_at_once_do_not_disturb_each_other(place, tmp_path, good):
    compiler(tmp_path, f'sleep 0.3; cp {good} "$target"')
    found: list[Path] = []
    workers = [
        threading.Thread(target=lambda: found.append(build.library(SYMBOLS))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert found[0].read_bytes() == good.read_bytes() and len(list(place.iterdir())) == 1


def test_another_compiler_makes_another_library(place, tmp_path, good):
    first = build.library(SYMBOLS)
    compiler(tmp_path, f'cp {good} "$target"', version="echo fake 2.0")
    assert build.library(SYMBOLS) != first and len(list(place.iterdir())) == 2


def test_without_a_compiler_nothing_is_warned_of(tmp_path):
    """A state, not a fault: `doctor` says it."""
    python = tmp_path / "python"
    python.symlink_to(shutil.which(sys.executable))
    result, reason, warned = child(PATH=str(tmp_path), CC="")
    assert (result, warned) == ("6.0", [])
    assert reason == "False; torch operations: no C compiler (gcc or clang) was found"
