"""Programs nobody trusts, run where they can harm nothing: no network, no files but the system's own (read only), an empty environment, limits.

Confined by bubblewrap where it works, else by `unshare`; both give the program its own mounts, processes, network and IPC, and killing the
outermost process kills all of them. Inside, a launcher drops privileges and sets limits before the program starts. Where neither works, only
limits and a process group remain, which is no boundary: callers must have been allowed to use that, and as root it is refused.
Left out: system call filters and cgroups. A kernel bug is not defended against; memory is bounded by processes x bytes each.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
SCRATCH = 64 << 20  # bytes of /tmp inside
PYTHON = os.path.realpath(
    sys.executable
)  # what programs run under: this interpreter, without its virtual environment
MAX_PROGRAM = 60_000  # bytes: a program travels as one argument, which Linux bounds


@dataclass(frozen=True)
class Limits:
    """`seconds` of wall-clock time for all of it; the rest for each process. `file_bytes` bounds the output too. 0: no limit on CPU."""

    seconds: float = 10.0
    cpu_seconds: int = 5
    memory: int = 512 << 20
    file_bytes: int = 4 << 20
    processes: int = 16


@dataclass(frozen=True)
class Ended:
    """How a program ended: `status` is its exit status, negative for a signal, None where the time ran out and it was killed."""

    status: int | None
    output: str
    seconds: float


# Runs inside, before the program: limits first, then every privilege is given up for good. Real root becomes nobody, whose processes the kernel counts
# (root's it does not). A last user namespace that allows none within itself keeps the program from making one and being root there.
_LAUNCHER = """
import ctypes, os, resource as r, sys
confined, cpu, memory, size, processes = map(int, sys.argv[1:6])
libc = ctypes.CDLL(None, use_errno=True)
for name, value in [(r.RLIMIT_CORE, 0), (r.RLIMIT_NOFILE, 64), (r.RLIMIT_AS, memory), (r.RLIMIT_FSIZE, size), (r.RLIMIT_NPROC, processes)]:
    r.setrlimit(name, (value, value))
if cpu:
    r.setrlimit(r.RLIMIT_CPU, (cpu, cpu))
if confined:
    if os.geteuid() == 0 and int(open("/proc/self/uid_map").read().split()[2]) > 65534:
        os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
        libc.prctl(4, 1, 0, 0, 0)  # dumpable again: its own maps are its to write
    ids = os.geteuid(), os.getegid()
    if libc.unshare(0x10000000) == 0:
        for name, text in ("setgroups", "deny"), ("uid_map", f"65534 {ids[0]} 1"), ("gid_map", f"65534 {ids[1]} 1"):
            open("/proc/self/" + name, "w").write(text)
        open("/proc/sys/user/max_user_namespaces", "w").write("0")
    elif ctypes.get_errno() != 28:  # 28: none are allowed already
        sys.exit("no user namespace for the program")
    for cap in range(64):
        libc.prctl(24, cap, 0, 0, 0)
libc.prctl(38, 1, 0, 0, 0)
if os.getpid() == 1 and (child := os.fork()):  # the first process of a namespace ignores signals, also those of the limits: the program is the second
    while (ended := os.wait())[0] != child:
        pass
    os._exit(os.waitstatus_to_exitcode(ended[1]) & 255)
os.execv(sys.argv[6], sys.argv[6:])
"""

# The same confinement as bubblewrap's, by hand: $1 an empty folder, $2 bytes of scratch, then what to show read only, `--`, the command.
_MOUNTS = """
set -e
root=$1 size=$2; shift 2
mount -t tmpfs -o mode=755,nosuid,size=1m sandbox "$root"
mkdir "$root/proc" "$root/tmp" "$root/old"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=$size scratch "$root/tmp"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$root${1%/*}"; : > "$root$1"; fi
    mount --bind "$1" "$root$1"
    case "$1" in /dev/*) ;; *) mount -o remount,bind,ro,nosuid "$root$1" ;; esac
    shift
done
shift
mount -t proc proc "$root/proc"
cd "$root"
pivot_root . old
umount -l /old
mount -o remount,bind,ro /
cd /tmp
exec "$@"
"""


@functools.cache
def confinement() -> str:
    """ "bwrap", "unshare" or "" for none, found by trying (milliseconds, once in a process)."""
    for kind in ("bwrap", "unshare"):
        if shutil.which(kind) and _works(kind):
            return kind
    return ""


def _works(kind: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        argv = command([PYTHON, "-I", "-S", "-c", "pass"], Limits(), folder, (), kind)
        try:
            return (
                subprocess.run(
                    argv,
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=20,
                ).returncode
                == 0
            )
        except (OSError, subprocess.TimeoutExpired):
            return False


def confined_or_refused(allowed: bool) -> str:
    """`confinement()`; where there is none, "" if the user allowed that and is not root, else ValueError saying what is missing."""
    kind, root = confinement(), os.geteuid() == 0
    if kind or (allowed and not root):
        return kind
    way = (
        "as root it is never run unconfined"
        if root
        else "say unconfined=true to run it with limits alone, with your network and your files"
    )
    raise ValueError(
        f"code cannot be judged here: neither bwrap nor unshare can confine it. Install bubblewrap; {way}"
    )


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


def command(
    argv: Sequence[str], limits: Limits, folder: str, readable: Sequence[str], kind: str
) -> list[str]:
    """`argv` behind the launcher and the confinement `kind`. `folder`: empty, the caller's; `readable`: what is shown besides the system."""
    launch = [
        PYTHON,
        "-I",
        "-S",
        "-c",
        _LAUNCHER,
        str(int(bool(kind))),
        *(str(int(value)) for value in astuple(limits)[1:]),
        *argv,
    ]
    shown = [
        path
        for path in dict.fromkeys(
            (*SYSTEM, sys.base_prefix, os.path.realpath(sys.base_prefix), *readable)
        )
        if os.path.exists(path)
    ]
    if kind == "bwrap":
        return [*_bubblewrap(shown), *launch]
    if kind == "unshare":
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        spaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
        return [
            "unshare",
            *user,
            *spaces,
            "sh",
            "-c",
            _MOUNTS,
            "sh",
            folder,
            str(SCRATCH),
            *shown,
            *DEVICES,
            "--",
            *launch,
        ]
    return launch


def _bubblewrap(shown: Sequence[str]) -> list[str]:
    """As root without a user namespace, so that the launcher can become nobody, whose processes the kernel counts; root's it does not."""
    parents = {str(parent) for path in (*shown, *DEVICES) for parent in Path(path).parents} - {"/"}
    argv = [
        "bwrap",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--unshare-uts",
        "--die-with-parent",
        "--new-session",
    ]
    if os.geteuid() == 0:
        argv += [
            "--cap-drop",
            "ALL",
            *(
                word
                for cap in ("SETUID", "SETGID", "SETPCAP")
                for word in ("--cap-add", f"CAP_{cap}")
            ),
        ]
    else:
        argv += ["--unshare-user"]
    argv += [
        "--perms",
        "1777",
        "--size",
        str(SCRATCH),
        "--tmpfs",
        "/tmp",
    ]  # before what is shown: the package may lie below it
    argv += [
        word for path in sorted(parents - {"/tmp"}) for word in ("--perms", "0755", "--dir", path)
    ]
    argv += [word for path in shown for word in ("--ro-bind", path, path)]
    argv += [word for path in DEVICES for word in ("--dev-bind", path, path)]
    return [*argv, "--proc", "/proc", "--remount-ro", "/", "--chdir", "/tmp"]


def run_code(
    code: str,
    text: str,
    limits: Limits = Limits(),
    *,
    unconfined: bool = False,
    arguments: Sequence[str] = (),
) -> Ended:
    """Runs a Python program with `text` on stdin; what it writes to stdout and stderr is the output.

    Returns within `limits.seconds` and a moment, with every process of it dead. ValueError where it may not run at all."""
    kind = confined_or_refused(unconfined)
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="deepwright-") as folder,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as stdin,
    ):
        stdin.write(text.encode("utf-8", "surrogatepass"))
        stdin.seek(0)
        argv = command([PYTHON, "-I", "-c", code, *arguments], limits, folder, (), kind)
        process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=out,
            stderr=out,
            env=environment(),
            cwd=folder,
            start_new_session=True,
        )
        try:
            status = process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            kill(process)
        out.seek(0)
        output = out.read(limits.file_bytes).decode("utf-8", "replace")
    return Ended(status, output, time.monotonic() - start)


def kill(process: subprocess.Popen) -> None:
    """Ends a process that leads its own group, and with it the group and the namespace that it holds."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (
        ProcessLookupError,
        PermissionError,
    ):  # the leader is gone already; its namespace went with it
        process.kill()
    process.wait()


# Runs inside. Expected values never come in here, so nothing that a program does to Python or to this driver can tell it what to print.
_CALLS = """
import json, os, sys
code, calls = sys.argv[1], json.loads(sys.argv[2])
sys.argv[:] = ["program"]
out, nothing = os.dup(1), os.open("/dev/null", os.O_WRONLY)
os.dup2(nothing, 1), os.dup2(nothing, 2)
space = {"__name__": "program"}
exec(compile(code, "program", "exec"), space)
for call in calls:
    try:
        said = " ".join(repr(eval(call, space))[:20000].split("\\n"))
    except Exception as error:
        said = "raised " + type(error).__name__
    os.write(out, (said + "\\n").encode())
"""


def call_results(
    code: str, calls: Sequence[str], limits: Limits = Limits(), *, unconfined: bool = False
) -> tuple[list[str], Ended]:
    """What each call (an expression) gives after `code` has run, as `repr` writes it; shorter than `calls` where the program ended early."""
    ended = run_code(
        _CALLS, "", limits, unconfined=unconfined, arguments=(code, json.dumps(list(calls)))
    )
    return ended.output.split("\n")[:-1][: len(calls)], ended
