"""Programs nobody trusts, run where they can harm nothing: no network, no files but the system's
own (read only), an empty environment, limits.

Confined by bubblewrap where it works, else by `unshare`; both give the program its own mounts,
processes, network and IPC. Inside, `launcher.py` is the first process: it gives up every privilege,
filters system calls, starts the program under its limits, and watches all its processes together:
processor time, memory with the files in /tmp, time. As root each program is a user of its own, else
it has a user namespace of its own, so that the kernel counts its processes alone (in a namespace
since Linux 5.14). Where neither works, only the limits remain, which is no boundary: callers must
have been allowed to use that, and as root it is refused.

What is said about a program follows from the program. Its time stands still while no processor is
free for it; what the launcher, the machine or the clock does wrong is told apart by a channel that
the program does not have. Left out: cgroups; a kernel bug is not defended against.
"""

from __future__ import annotations

import functools
import marshal
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepwright.tasks import syscalls

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
SCRATCH = 64 << 20  # bytes of /tmp inside
MOST_FILES = 4096  # in /tmp
PYTHON = sys.executable
PACKAGES = ("numpy", "numpy.libs")  # of this environment that programs may import
PATIENCE = 8  # times its seconds that a program may take on a machine that is busy with others
STARTING = 60.0  # seconds for the confinement itself, on a machine that is very busy
LEAVING = 10.0  # and for its end
_USERS, _SPAN = 0x7F000000, 1 << 24  # ids that nobody has: beyond containers and directories
_LAUNCHER = Path(__file__).with_name("launcher.py").read_text(encoding="utf-8")
_OPTIONS = ("-X", "int_max_str_digits=0")  # long numbers print, as before Python 3.11


@dataclass(frozen=True)
class Limits:
    """Of a program with all its processes: `seconds` in which it may run, of the processor
    `cpu_seconds`; bytes of `memory` (for each process of address space); `processes`. `file_bytes`
    bounds each file, and the output too. 0: no limit on time, or on the processor's time."""

    seconds: float = 10.0
    cpu_seconds: int = 5
    memory: int = 512 << 20
    file_bytes: int = 4 << 20
    processes: int = 16


@dataclass(frozen=True)
class Ended:
    """How a program ended: `status` is its exit status, negative for a signal; None where it was
    stopped, and `stopped` says for what. `failed`: what went wrong that is not the program's doing,
    after which nothing here says anything about it. `errors`: the end of what it wrote to stderr.
    """

    status: int | None
    output: str
    seconds: float
    errors: str = ""
    stopped: str = ""
    failed: str = ""

    @property
    def why(self) -> str:
        """In one phrase, for a program that did not end well."""
        last = self.errors.strip().rpartition("\n")[2].strip()
        return self.stopped or f"ended with status {self.status}" + (last and f": {last[:100]}")


# ---- which confinement


def confinement() -> str:
    """ "bwrap", "unshare" or "" for none, found by trying (milliseconds, once in a process)."""
    return next((kind for kind in ("bwrap", "unshare") if not why_not(kind)), "")


@functools.cache
def why_not(kind: str) -> str:
    """Why a confinement does not work here; '' where it does."""
    if os.uname().machine not in syscalls.machines():
        return f"no list of system calls for {os.uname().machine}"
    if not shutil.which(kind):
        return f"{kind} is not installed"
    code = "import os, threading\nfor _ in range(3): threading.Thread(target=int).start()"
    job = Job((PYTHON, "-I", "-S", "-c", code), Limits(20.0))
    return _tried(job, kind) and _tried(job, kind)  # once more: it holds for this whole process


def _tried(job: Job, kind: str) -> str:
    """Why a job that cannot fail has failed; '' where it did not."""
    try:
        ended = run(job, b"", kind)
    except OSError as error:
        return str(error)
    return "" if ended.status == 0 else ended.failed or ended.why


def described() -> str:
    """Which confinement runs here, and why not a better one; for `doctor`."""
    kind, refused = confinement(), []
    for name in ("bwrap", "unshare"):
        if name == kind:
            return "; ".join([f"{name} ({shutil.which(name)})", *refused])
        refused.append(f"not {name}: {why_not(name)}")
    return "; ".join(["nothing", *refused])


def confined_or_refused(allowed: bool) -> str:
    """`confinement()`; where there is none, "" if the user allowed that and is not root, else
    ValueError saying what is missing."""
    kind, root = confinement(), os.geteuid() == 0
    if kind or (allowed and not root):
        return kind
    way = (
        "as root it is never run unconfined"
        if root
        else "say unconfined=true to run it with limits alone, with your network and your files"
    )
    raise ValueError(
        "code cannot be judged here: neither bwrap nor unshare can confine it. "
        f"Install bubblewrap; {way}"
    )


# ---- what is run


@dataclass(frozen=True)
class Job:
    """`argv` in the folder /tmp that holds `files`; `readable` is shown besides the system."""

    argv: Sequence[str]
    limits: Limits
    files: Mapping[str, bytes] | None = None
    readable: Sequence[str] = ()

    @property
    def shown(self) -> list[str]:
        """What can be read inside. Of a virtual environment only the interpreter, where its links
        lead, and PACKAGES: others may hold right answers."""
        library = Path(sysconfig.get_path("platlib"))
        own = [os.path.dirname(sys.executable), f"{sys.prefix}/pyvenv.cfg"]
        own += [str(library / name) for name in PACKAGES]
        base = (sys.base_prefix, os.path.realpath(sys.base_prefix))
        paths = {path for path in (*SYSTEM, *base, *own, *self.readable) if os.path.exists(path)}
        return sorted(path for path in paths if paths.isdisjoint(map(str, Path(path).parents)))

    def packed(self, kind: str, folder: str) -> bytes:
        """What `launcher.py` reads. `folder`: empty, the caller's."""
        limits, machine = self.limits, os.uname().machine
        enclosed = (folder, self.shown, DEVICES, SCRATCH, syscalls.number("pivot_root", machine))
        rlimits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_AS": limits.memory,
            "RLIMIT_FSIZE": limits.file_bytes,
            "RLIMIT_NPROC": limits.processes,
        }
        if limits.cpu_seconds:  # a second beyond what stops all processes together
            rlimits["RLIMIT_CPU"] = limits.cpu_seconds + 1
        return marshal.dumps(
            {
                "argv": list(self.argv),
                "files": dict(self.files or {}),
                "confined": bool(kind),
                "enclosed": enclosed if kind == "unshare" else None,
                "uid": own_user(),
                "limits": rlimits,
                "refusals": syscalls.refusals(machine) if kind else b"",
                "seconds": limits.seconds,
                "cpu_seconds": limits.cpu_seconds,
                "memory": limits.memory,
                "processes": limits.processes,
                "files_most": MOST_FILES,
                "patience": PATIENCE,
                "tick": 0.05 if limits.seconds else 0.5,
            }
        )


def python(*arguments: str) -> tuple[str, ...]:
    """The command line of this interpreter as programs get it. Not isolated from the environment,
    which is ours: it fixes the hashes of texts, by which sets are ordered."""
    return (PYTHON, "-s", "-P", "-B", *_OPTIONS, *arguments)


def own_user() -> int | None:
    """A user id for one program; None for who may not become another user."""
    if os.geteuid() != 0:
        return None
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    first, _, count = max((tuple(map(int, line.split())) for line in lines), key=lambda ids: ids[2])
    if first + count > _USERS + _SPAN:
        return _USERS + secrets.randbelow(_SPAN)
    if count < 1 << 15:  # root of a namespace with few users
        return None
    return first + count // 2 + secrets.randbelow(count // 2 - 2)


def environment() -> dict[str, str]:
    """All that a program finds in its environment."""
    path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    return {
        "PATH": path,
        "LANG": "C.UTF-8",
        "HOME": "/tmp",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
    }


def command(argv: Sequence[str], shown: Sequence[str], kind: str) -> list[str]:
    """`argv`, which starts the launcher, behind the confinement `kind`."""
    if kind == "bwrap":
        return [*_bubblewrap(shown), *argv]
    if kind == "unshare":
        user = [] if own_user() is not None else ["--map-root-user"]
        spaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
        return [shutil.which("unshare") or "", *user, *spaces, *argv]
    return list(argv)


def _bubblewrap(shown: Sequence[str]) -> list[str]:
    """As root without a user namespace, so that the launcher can become a user of its own."""
    parents = {str(parent) for path in (*shown, *DEVICES) for parent in Path(path).parents} - {"/"}
    spaces = ("pid", "net", "ipc", "uts", *(["user"] if own_user() is None else []))
    argv = [shutil.which("bwrap") or "", *(f"--unshare-{space}" for space in spaces)]
    argv += ["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    if own_user() is not None:
        for capability in ("SETUID", "SETGID", "SETPCAP"):
            argv += ["--cap-add", f"CAP_{capability}"]
    # before what is shown: the package may lie below it
    argv += ["--perms", "1777", "--size", str(SCRATCH), "--tmpfs", "/tmp"]
    for path in sorted(parents - {"/tmp"}):
        argv += ["--perms", "0755", "--dir", path]
    for path in shown:
        argv += ["--ro-bind", path, path]
    for path in DEVICES:
        argv += ["--dev-bind", path, path]
    return [*argv, "--proc", "/proc", "--remount-ro", "/", "--chdir", "/tmp"]


# ---- running it


class Started:
    """A job that runs: `process` is the confinement, `line` what its launcher reports on."""

    def __init__(self, job: Job, kind: str, stdin: int, stdout: int, stderr: int) -> None:
        self.begun, self.said, self._kind = time.monotonic(), b"", kind
        self._folder = tempfile.TemporaryDirectory(prefix="deepwright-")
        self.line, other = socket.socketpair()
        given = os.memfd_create("job")
        try:
            with open(given, "wb", closefd=False) as file:
                file.write(job.packed(kind, self._folder.name))
            os.lseek(given, 0, os.SEEK_SET)
            ends = (given, other.fileno())
            inside = [PYTHON, "-I", "-S", "-c", _LAUNCHER, *map(str, ends)]
            self.process = subprocess.Popen(
                command(inside, job.shown, kind),
                stdin=stdin, stdout=stdout, stderr=stderr, env=environment(),
                cwd=self._folder.name, start_new_session=True, pass_fds=ends,
            )  # fmt: skip
        except BaseException:
            self.line.close()
            self._folder.cleanup()
            raise
        finally:
            os.close(given)
            other.close()

    def ended(self, seconds: float) -> bool:
        """Waits for the launcher's report, or for its end without one."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.line, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                if not self.heard():
                    return True
        return False

    def heard(self) -> bool:
        """Reads of the report what is there; False once it is complete."""
        piece = self.line.recv(4096)
        self.said += piece
        return bool(piece)

    def close(self) -> None:
        """Ends the program with all its processes; returns when they are dead. Does it once."""
        self.line.close()  # the launcher leaves, and with it everybody in its namespace
        if not self._kind:  # there is none: its group, before its number is anybody else's
            kill(self.process)
        try:
            self.process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            kill(self.process)
        self._folder.cleanup()

    def told(self, output: str, errors: str) -> Ended:
        """How it ended, by the launcher's report; where there is none, by what stands on stderr."""
        word, _, rest = self.said.decode("utf-8", "replace").partition("\n")[0].partition(" ")
        seconds = time.monotonic() - self.begun
        if word == "ended":
            return Ended(int(rest), output, seconds, errors)
        if word == "stopped":
            return Ended(None, output, seconds, errors, stopped=rest)
        why = rest or errors.strip()[-300:] or "no report in time"
        return Ended(None, output, seconds, errors, failed=f"it could not be run: {why}")


def kill(process: subprocess.Popen) -> None:
    """Ends a process that leads its own group, and with it the group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # the leader is gone already
        process.kill()
    process.wait()


def run(job: Job, text: bytes, kind: str) -> Ended:
    """Runs a job with `text` on stdin until it has ended or is stopped."""
    limits = job.limits
    files = [os.memfd_create(name) for name in ("in", "out", "err")]  # no disk that may be full
    stdin, out, err = files
    try:
        _fill(stdin, text)
        started = Started(job, kind, stdin, out, err)
        try:
            started.ended(STARTING + PATIENCE * limits.seconds)
        finally:
            started.close()
        return started.told(text_of(out, limits.file_bytes), text_of(err, limits.file_bytes))
    finally:
        for file in files:
            os.close(file)


def _fill(file: int, text: bytes) -> None:
    with open(file, "wb", closefd=False) as stream:
        stream.write(text)
    os.lseek(file, 0, os.SEEK_SET)


def text_of(file: int, most: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", closefd=False) as stream:
        return stream.read(most).decode("utf-8", "replace")


def run_code(code: str, text: str, limits: Limits = Limits(), *, unconfined: bool = False) -> Ended:
    """Runs a Python program with `text` on stdin; what it writes to stdout is the output.

    Every process of it is dead afterwards. ValueError where it may not run at all; OSError where
    this process cannot start another."""
    kind = confined_or_refused(unconfined)
    files = {"program.py": code.encode("utf-8")}
    return run(
        Job(python("program.py"), limits, files), text.encode("utf-8", "surrogatepass"), kind
    )
