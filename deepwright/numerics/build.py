"""The shared library of the C files beside this one: built at first use, tried in a child process,
and from then on loaded only where it is still what was built.

It lies in the user's cache folder as numerics-KEY.DIGEST.so: KEY is that of sources, compiler,
options and processor, DIGEST that of the file itself. A file that was cut, changed, or written by
somebody else is not loaded but built again. The trial in a child process is what a compiler that
writes garbage, or code that this processor cannot run, comes to grief on. Two processes may build
at once: each renames a whole file into place.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deepwright.numerics import cache

SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("pointwise.c", "attention.c", "decode.c")
)
HEADER = Path(__file__).with_name("cpu.h")
# OpenMP comes from the library that torch has loaded already: two would fight for the cores.
OPTIONS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-shared",
    "-fPIC",
)
# what the compiler and the trial may take
SECONDS = {"asked": 20.0, "built": 300.0, "tried": 120.0}
TRIAL = """import sys
sys.path[:0] = [sys.argv[1]]
from deepwright.numerics import build
build.trial(sys.argv[2], sys.argv[3:])"""


class BuildError(RuntimeError):
    """There is no library to load; the message says why in a phrase."""


class NoCompiler(BuildError):
    """A machine without one."""


def processor_flags() -> str:
    """The instruction sets that the kernel reports (Linux), blanks between them, else ''."""
    return _cpuinfo("flags", "features")


def processor_name() -> str:
    """As the kernel calls it (Linux), else what Python knows."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(*names: str) -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in found if name.strip().lower() in names), "")


def library(symbols: Sequence[str]) -> Path:
    """A library with these functions, built by this user here and tried. BuildError, OSError."""
    compiler = _compiler()
    key = _key(compiler)
    folder = cache.folder()
    for path in sorted(folder.glob(f"numerics-{key}.*.so")):
        if _is_what_was_built(path):
            return path
        with contextlib.suppress(OSError):
            path.unlink()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / "numerics.so"
        _compile(compiler, made)
        _try(made, symbols)
        made.chmod(0o600)
        target = folder / f"numerics-{key}.{_digest(made)}.so"
        made.replace(target)
    return target


def trial(path: str, symbols: Sequence[str]) -> None:
    """In a process that may die of it: loads a library, finds its functions, computes a norm."""
    import torch

    found = ctypes.CDLL(path)
    for name in symbols:
        getattr(found, name)
    x, y, inverse = torch.full((2, 4), 3.0), torch.zeros(2, 4), torch.zeros(2)
    long, pointer = ctypes.c_long, ctypes.c_void_p
    weight = torch.ones(4)
    found.rms_norm(
        pointer(x.data_ptr()), long(4), pointer(weight.data_ptr()), ctypes.c_float(0.0),
        pointer(y.data_ptr()), long(4), pointer(inverse.data_ptr()), long(2), long(4),
    )  # fmt: skip
    if not torch.allclose(y, torch.ones(2, 4), atol=1e-6):
        sys.exit(f"computes a norm of {y[0].tolist()}, expected ones")


def _compiler() -> str:
    wanted = (os.environ.get("CC", ""), "gcc", "clang")
    found = next((path for name in wanted if (path := shutil.which(name))), None)
    if found is None:
        raise NoCompiler("no C compiler (gcc or clang) was found")
    return found


def _key(compiler: str) -> str:
    version = _run("asked", compiler, [compiler, "--version"])
    machine = (platform.system(), platform.machine(), processor_flags())
    parts = (*(file.read_text() for file in (HEADER, *SOURCES)), version, *machine, *OPTIONS)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _compile(compiler: str, target: Path) -> None:
    files = [*map(str, SOURCES), "-o", str(target), "-lm"]
    _run("built", compiler, [compiler, *OPTIONS, *files])
    if not target.is_file():
        raise BuildError(f"{compiler} made no library")


def _try(made: Path, symbols: Sequence[str]) -> None:
    package = str(Path(__file__).parents[2])
    code = [sys.executable, "-c", TRIAL, package, str(made), *symbols]
    _run("tried", "the trial of what the compiler made", code)


def _run(what: str, name: str, command: Sequence[str]) -> str:
    """Its output. BuildError where it fails or takes too long, with all that it has started."""
    with tempfile.TemporaryFile() as said:  # no pipe: what it leaves behind could hold one open
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            code = process.wait(SECONDS[what])
        except subprocess.TimeoutExpired:
            raise BuildError(f"{name} did not end in {SECONDS[what]:g} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        output = said.read(1 << 20).decode(errors="replace")
    if code:
        last = "".join(f": {line[-200:]}" for line in output.strip().splitlines()[-1:])
        ended = signal.Signals(-code).name if code < 0 else code
        raise BuildError(f"{name} failed ({ended}){last}")
    return output


def _is_what_was_built(path: Path) -> bool:
    """Whether a file is this user's alone and its bytes are those of its name."""
    try:
        return cache.not_trusted(path) is None and path.name.split(".")[-2] == _digest(path)
    except OSError:  # a directory in its place, a file that went away
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
