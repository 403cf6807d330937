"""Submitted programs kept from harming anything, and what the sandbox says of their end. Runs once
for each confinement that this machine has."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import deepwright
from deepwright.tasks import sandbox
from deepwright.tasks.code import judge_code, read_tests
from deepwright.tasks.hostile_programs import PROGRAMS
from deepwright.tasks.sandbox import Job, Limits, python, run, run_code

LIMITS = Limits(seconds=30, cpu_seconds=10)
ADD = read_tests(["assert f(1) == 2", "assert f(-1) == 0", "assert f(2) == 3"])


@pytest.fixture(params=["bwrap", "unshare"])
def confined(request, monkeypatch):
    if why := sandbox.why_not(request.param):
        pytest.skip(why)
    monkeypatch.setattr(sandbox, "confinement", lambda: request.param)
    return request.param


@pytest.fixture
def left_over(monkeypatch):
    """Asked afterwards: users that programs of the test were given and that still have processes."""
    given, choose = [], sandbox.own_user
    monkeypatch.setattr(sandbox, "own_user", lambda: given.append(choose()) or given[-1])

    def found():
        said = subprocess.run(["ps", "-eo", "uid="], capture_output=True, text=True).stdout
        return set(given) & set(map(int, said.split()))

    return found


def test_hostile_programs_are_wrong_in_bounded_time_and_leave_nothing(confined, left_over):
    """All of them side by side. Files and processes are as before."""
    decoy, escaped = Path("/tmp/deepwright-decoy"), [Path("/tmp/escaped"), Path("/etc/escaped")]
    decoy.mkdir(exist_ok=True)
    (decoy / "file").write_text("1")

    def judged(program):
        start = time.monotonic()
        limits = Limits(seconds=1.5, cpu_seconds=1)
        return *judge_code(program, ADD, limits, False), time.monotonic() - start

    with ThreadPoolExecutor(4) as threads:
        found = dict(zip(PROGRAMS, threads.map(judged, PROGRAMS.values())))
    odd = {name: why for name, (right, why, _) in found.items() if right is not False}
    assert not [name for name, why in odd.items() if "too busy" not in why], odd
    assert max(seconds for *_, seconds in found.values()) < 1.5 * sandbox.PATIENCE + 20
    assert (decoy / "file").read_text() == "1" and not any(path.exists() for path in escaped)
    shutil.rmtree(decoy)
    assert not left_over()


def seen(code, **limits):
    return run_code(code, "", Limits(**{"seconds": 5, "cpu_seconds": 2} | limits))


def test_what_a_program_sees(confined):
    ended = seen(
        "import os\nthere = os.path.exists\nnumbers = filter(str.isdigit, os.listdir('/proc'))\n"
        "print(sorted(os.environ), os.getcwd(), there('/home'), there('/etc/passwd'))\n"
        "print(os.listdir('/proc/self/fd'), sorted(numbers))"
    )
    names, _, rest = ended.output.partition("\n")[0].rpartition("]")
    assert ended.status == 0 and rest.split() == ["/tmp", "False", "False"]
    assert "SECRET" not in names and len(names.split(",")) < 9
    assert ended.output.splitlines()[1] == "['0', '1', '2', '3'] ['1', '2']"  # 3: the list itself
    assert "Read-only" in seen("open('/usr/x', 'w')").errors
    assert seen("open('x', 'w').write('1'); print(open('x').read())").output == "1\n"
    assert "unreachable" in seen("import socket; socket.create_connection(('1.1.1.1', 80))").errors
    refused = seen("import socket; socket.create_connection(('127.0.0.1', 22))").errors
    assert "refused" in refused or "unreachable" in refused  # not the host's, whatever listens
    assert "MemoryError" in seen("bytearray(100 << 30)").errors
    assert "too large" in seen("open('x', 'wb').write(bytes(10 << 20))").errors
    many = "import os\nfor i in range(100): open(str(i), 'wb').write(bytes(3 << 20))"
    assert "No space" in seen(many).errors
    assert len(seen("while True: print('x' * 1000)").output) <= 4 << 20
    status = seen("print(open('/proc/self/status').read())").output
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert "Operation not permitted" in seen("import os; os.chroot('/tmp')").errors
    assert seen("import numpy; print(numpy.int64(4))").output == "4\n"
    assert "ModuleNotFoundError" in seen("import torch").errors
    assert seen("print(len(str(10**5000)))").output == "5001\n"
    assert len({seen("print(set('judge'))").output for _ in range(3)}) == 1  # the same every time


def test_no_privileges_come_back_through_a_namespace(confined):
    code = (
        "import ctypes; libc = ctypes.CDLL(None)\n"
        "print(libc.unshare(0x10000000 | 0x20000), libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0))"
    )
    assert seen(code).output.split() == ["-1", "-1"]


BOMB = """
import os, time
n = 0
try:
    while True:
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        n += 1
except OSError:
    print(n)
"""


def test_processes_are_counted_for_each_program_and_die_with_it(confined, left_over):
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(seen, [BOMB] * 3))
    assert {ended.output for ended in found} == {"14\n"}  # 16 with the launcher and the program
    assert all(ended.status == 0 for ended in found) and not left_over()


@pytest.mark.parametrize(
    "code, said",
    [
        ("while True: pass", "out of"),  # time or the processor's, whichever it has had sooner
        ("import time; time.sleep(600)", "out of time (1 s)"),
        ("import os\nfor _ in range(3): os.fork()\nwhile True: pass", "out of"),
        (PROGRAMS["memory of many processes"], "more than 512 MB of memory"),
        (PROGRAMS["a million empty files"], "more than 4096 files"),
        (PROGRAMS["children nobody waits for"], "out of"),
    ],
)
def test_what_a_program_is_stopped_for(confined, code, said):
    ended = seen(code, seconds=1, cpu_seconds=1)
    assert ended.status is None and said in ended.stopped and not ended.failed


def test_files_in_tmp_count_as_memory(confined):
    code = (
        "import time\nx = bytearray(b'1') * (30 << 20)\n"
        "for i in range(15): open(str(i), 'wb').write(bytes(3 << 20))\ntime.sleep(5)"
    )
    assert "more than 70 MB" in seen(code, memory=70 << 20).stopped


def test_the_limit_on_the_processor_is_that_of_all_processes(confined):
    code = "import os\nos.fork(), os.fork()\nwhile True: pass"
    ended = seen(code, seconds=60, cpu_seconds=1)
    assert ended.stopped == "out of processor time (1 s)" and ended.seconds < 30


def test_a_quiet_limit_kills_too(confined):
    """Where the launcher would not see it, the kernel's own limit on each process holds."""
    job = Job(python("-c", "while True: pass"), Limits(seconds=0, cpu_seconds=1))
    assert run(job, b"", confined).status in (-9, -24, None)


def test_what_the_launcher_cannot_do_is_a_failure_and_no_end(confined):
    job = Job(("/no/such/python",), LIMITS)
    ended = run(job, b"", confined)
    assert ended.status is None and "No such file or directory" in ended.failed
    job = Job(python("-c", "pass"), LIMITS, {"/usr/x": b""})
    assert "Read-only file system: '/usr/x'" in run(job, b"", confined).failed


def test_a_missing_interpreter_and_full_machines_are_failures(confined, monkeypatch):
    """Nothing follows about a program that was never run."""
    monkeypatch.setattr(sandbox, "PYTHON", "/no/such/python")
    right, why = judge_code("def f(x): return x + 1", ADD, LIMITS, False)
    assert right is None and "could not be run" in why
    monkeypatch.setattr(sandbox, "PYTHON", sys.executable)

    def busy(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", busy)
    right, why = judge_code("def f(x): return x + 1", ADD, LIMITS, False)
    assert right is None and "Resource temporarily unavailable" in why


def test_a_program_cannot_write_a_report(confined):
    """The line to the judge is not among its files, and a program that writes the same words to
    every file it has changes nothing."""
    code = (
        "import os\nfor end in range(64):\n"
        "    try: os.write(end, b'failed by itself\\nended 0\\n')\n"
        "    except OSError: pass\nos._exit(3)"
    )
    ended = seen(code)
    assert ended.status == 3 and not ended.failed and "failed by itself" in ended.output


def test_programs_of_a_batch_do_not_meet(confined):
    """Each has its own processes, shared memory, files and user."""
    code = (
        "import os, time\nopen('/tmp/mine', 'x')\ntime.sleep(0.5)\n"
        "print(os.getuid(), len([name for name in os.listdir('/proc') if name.isdigit()]))"
    )
    with ThreadPoolExecutor(4) as threads:
        found = [ended.output.split() for ended in threads.map(seen, [code] * 4)]
    assert all(count == "2" for _, count in found)
    if os.geteuid() == 0:
        assert len({user for user, _ in found}) == 4


def test_the_bwrap_on_the_path_is_the_one_that_runs(tmp_path, monkeypatch):
    real = shutil.which("bwrap")
    if not real or sandbox.why_not("bwrap"):
        pytest.skip("bwrap does not work on this machine")
    own = tmp_path / "bwrap"
    own.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\nexec {real} "$@"\n')
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sandbox, "confinement", lambda: "bwrap")
    assert run_code("print(1)", "").output == "1\n" and (tmp_path / "ran").exists()
    sandbox.why_not.cache_clear()
    assert sandbox.described().startswith(f"bwrap ({own})")
    sandbox.why_not.cache_clear()


def test_unshare_takes_over_and_says_why(tmp_path, monkeypatch):
    if sandbox.why_not("unshare"):
        pytest.skip("unshare does not work on this machine")
    own = tmp_path / "bwrap"
    own.write_text("#!/bin/sh\necho bwrap: no permissions to create a namespace >&2\nexit 1\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sandbox.why_not.cache_clear()
    try:
        said = sandbox.described()
        assert said.startswith("unshare (") and "bwrap: no permissions to create a names" in said
    finally:
        sandbox.why_not.cache_clear()


def test_without_confinement_it_is_refused_unless_allowed(monkeypatch):
    monkeypatch.setattr(sandbox, "confinement", lambda: "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="Install bubblewrap; say unconfined=true"):
        sandbox.confined_or_refused(False)
    assert sandbox.confined_or_refused(True) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ValueError, match="as root it is never run unconfined"):
        sandbox.confined_or_refused(True)


def test_unconfined_programs_have_their_limits():
    """Which is no boundary; the launcher watches the program's own process alone."""
    done = run(Job(python("-c", "print(input())"), Limits(5)), b"7\n", "")
    assert done.status == 0 and done.output == "7\n"
    sleeps = run(Job(python("-c", "import time; time.sleep(99)"), Limits(0.5)), b"", "")
    assert sleeps.stopped == "out of time (0.5 s)"
    spins = run(Job(python("-c", "while True: pass"), Limits(60, cpu_seconds=1)), b"", "")
    assert spins.stopped == "out of processor time (1 s)"
    sleep = f"time.sleep({600 + os.getpid()})"  # that no other run of this test has
    leaves = f"import os, time\nfor _ in range(3):\n    if not os.fork(): {sleep}\n{{}}"
    for ending in ("", sleep):
        run(Job(python("-c", leaves.format(ending)), Limits(0.5)), b"", "")
        end = time.monotonic() + 10  # what was killed is seen until it has had a turn to die
        while sleep in (listed := programs()) and time.monotonic() < end:
            time.sleep(0.05)
        assert sleep not in listed


def programs() -> str:
    return subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True).stdout


OTHER_USER = """
from deepwright.tasks import sandbox
from deepwright.tasks.code import judge_code, read_tests
from deepwright.tasks.sandbox import Limits, run_code

for kind in ("bwrap", "unshare"):
    if why := sandbox.why_not(kind):
        print("not", kind, why)
        continue
    sandbox.confinement = lambda: kind
    right, wrong = "def f(x): return x + 1", "def f(x): return x"
    for program, test in ((right, "2 == f(1)"), (wrong, "2 == f(1)"), (right, "1 < f(1)")):
        print(kind, judge_code(program, read_tests([f"assert {test}"]), Limits(9), False)[0])
    ended = run_code(BOMB, "", Limits(9))
    print(kind, ended.output.strip() or ended.stopped)
    print(kind, run_code("import os; os.listdir('/home')", "", Limits(9)).errors.strip()[-40:])
    print(kind, run_code("import time; time.sleep(9)", "", Limits(0.5)).stopped)
    print(kind, "Cap\\t" in run_code("print(open('/proc/self/status').read())", "").output)
"""


@pytest.mark.parametrize("become", ["another user", "root of a namespace"])
def test_the_user_who_runs_it_may_be_another(tmp_path_factory, become):
    """As root the same checks run once more as an ordinary user, with the system's Python."""
    python = "/usr/bin/python3"
    run = {
        "another user": ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"],
        "root of a namespace": ["unshare", "--map-root-user"],
    }[become]
    if os.geteuid() != 0 or not Path(python).exists() or not shutil.which(run[0]):
        pytest.skip("needs root, setpriv, unshare and a system Python to become somebody else")
    folder = tmp_path_factory.mktemp("package") / "deepwright"
    (folder / "tasks").mkdir(parents=True)
    for path in Path(deepwright.__file__).parent.glob("*.py"):
        shutil.copy(path, folder)
    for path in Path(sandbox.__file__).parent.glob("*.py"):
        shutil.copy(path, folder / "tasks")
    for package in (folder, folder / "tasks"):
        (package / "__init__.py").write_text("")
    for path in (folder, *folder.rglob("*"), *folder.parents[:-2]):
        path.chmod(0o755)
    env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(folder.parent)}
    argv = [*run, python, "-B", "-c", f"BOMB = {BOMB!r}{OTHER_USER}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd="/", env=env)
    assert done.returncode == 0, done.stderr
    for kind in ("bwrap", "unshare"):
        said = [
            line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith(kind)
        ]
        if not said and f"not {kind}" in done.stdout:
            continue
        counted = ("13", "14") if become == "another user" else ("more than 16 processes",)
        *verdicts, children, files, time, capable = said
        assert verdicts == ["True", "False", "True"] and children in counted, done.stdout
        assert files.endswith("No such file or directory: '/home'"), done.stdout
        assert time == "out of time (0.5 s)" and capable == "False", done.stdout
    assert "True" in done.stdout, "ordinary users cannot be confined here: " + done.stdout
