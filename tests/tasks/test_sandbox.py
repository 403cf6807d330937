"""Submitted code: judged right, and kept from harming anything. Runs once for each confinement that this machine has."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepwright.tasks import sandbox
from deepwright.tasks.attacks import PROGRAMS
from deepwright.tasks.code import judge_code, program_of, read_tests
from deepwright.tasks.sandbox import Limits, call_results, run_code

LIMITS = Limits(seconds=30, cpu_seconds=10)
ADD = read_tests(["assert f(1) == 2", "assert f(-1) == 0", "assert f(2) == 3"])
GOOD = "def f(x):\n    return x + 1"


@pytest.fixture(params=["bwrap", "unshare"])
def confined(request, monkeypatch):
    if not sandbox._works(request.param):
        pytest.skip(f"{request.param} does not work on this machine")
    monkeypatch.setattr(sandbox, "confinement", lambda: request.param)
    return request.param


def test_right_and_wrong_programs(confined):
    assert judge_code(f"Here:\n```python\n{GOOD}\n```", ADD, LIMITS, False) == (
        True,
        "passes 3 tests",
    )
    assert judge_code(GOOD.replace("1", "2"), ADD, LIMITS, False) == (False, "test 1: f(1) gives 3")
    assert judge_code("def g(x): pass", ADD, LIMITS, False) == (
        False,
        "test 1: f(1) gives raised NameError",
    )
    assert judge_code("syntax error", ADD, LIMITS, False)[1] == "test 1: ended with status 1"
    hostile = "class A:\n    def __repr__(self): return '{[]: 1}'\ndef f(x): return A()"  # reads as a literal and cannot be one
    assert judge_code(hostile, ADD, LIMITS, False) == (False, "test 1: f(1) gives {[]: 1}")
    streams = read_tests({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7"]})
    assert judge_code("print(sum(map(int, input().split())), '  ')", streams, LIMITS, False) == (
        True,
        "passes 2 tests",
    )
    assert judge_code("print(3)", streams, LIMITS, False) == (False, "test 2: other output")
    assert judge_code("print(3); raise SystemExit(1)", streams, LIMITS, False) == (
        False,
        "test 1: exit status 1",
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_programs_are_wrong_in_bounded_time_and_leave_nothing(confined, name):
    """Files and processes are as before."""
    decoy, escaped = Path("/tmp/deepwright-decoy"), [Path("/tmp/escaped"), Path("/etc/escaped")]
    decoy.mkdir(exist_ok=True)
    (decoy / "file").write_text("1")
    start = time.monotonic()
    right, why = judge_code(PROGRAMS[name], ADD, Limits(seconds=1.5, cpu_seconds=1), False)
    assert not right and why and time.monotonic() - start < 10
    assert (decoy / "file").read_text() == "1" and not any(path.exists() for path in escaped)
    shutil.rmtree(decoy)
    assert (
        subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.count(
            PROGRAMS[name][:40]
        )
        == 0
    )


def seen(code, **limits):
    return run_code(code, "", Limits(**{"seconds": 5, "cpu_seconds": 2} | limits))


def test_what_a_program_sees(confined):
    ended = seen(
        "import os; print(sorted(os.environ), os.getcwd(), os.path.exists('/home'), os.path.exists('/etc/passwd'))"
    )
    names, _, rest = ended.output.rpartition("]")
    assert (
        ended.status == 0
        and rest.split() == ["/tmp", "False", "False"]
        and "SECRET" not in names
        and len(names.split(",")) < 9
    )
    assert "Read-only" in seen("open('/usr/x', 'w')").output
    assert "ok" in seen("open('x', 'w').write('1'); print('ok' if open('x').read() else '')").output
    assert (
        "unreachable" in seen("import socket; socket.create_connection(('1.1.1.1', 80), 2)").output
    )
    refused = seen("import socket; socket.create_connection(('127.0.0.1', 22), 2)").output
    assert (
        "refused" in refused or "unreachable" in refused
    )  # not the host's own port, whatever listens there
    assert "MemoryError" in seen("bytearray(100 << 30)").output
    assert "too large" in seen("open('x', 'wb').write(bytes(10 << 20))").output
    many = "import os\nfor i in range(100): open(str(i), 'wb').write(bytes(3 << 20))"
    assert "No space" in seen(many).output
    assert len(seen("while True: print('x' * 1000)").output) <= 4 << 20
    status = seen("print(open('/proc/self/status').read())").output
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert "Operation not permitted" in seen("import os; os.chroot('/tmp')").output


def test_no_privileges_come_back_through_a_namespace(confined):
    code = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); print(libc.unshare(0x10000000 | 0x20000), libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0))"
    assert seen(code).output.split() == ["-1", "-1"]


def test_processes_are_counted_and_die_with_the_program(confined):
    code = "import os\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: os.setsid(); import time; time.sleep(600)\n    n += 1\nexcept OSError: print(n)"
    for _ in range(5):  # the kernel counts those of the test before as long as they are dying
        if (ended := seen(code)).output != "0\n":
            break
        time.sleep(1)
    assert ended.status == 0 and 0 < int(ended.output) < 16 and ended.seconds < 5
    assert (
        b"time.sleep(600)" not in subprocess.run(["ps", "-eo", "args"], capture_output=True).stdout
    )


def test_the_limit_on_cpu_holds_for_the_program(confined):
    ended = seen("while True: pass", seconds=60, cpu_seconds=1)
    assert ended.status not in (0, None) and ended.seconds < 30


def test_a_program_cannot_forge_results(confined):
    """It may print what it likes, patch Python, or leave early: without the right values there is no verdict."""
    tests = read_tests(["assert f(1) == 41"])
    for code in (
        "import os\nos.write(1, b'\"41\" ' * 2)\nos._exit(0)",
        "import builtins\nbuiltins.repr = lambda x: 'True'\ndef f(x): return 1",
        "class A(int):\n    def __eq__(self, other): return True\n    def __repr__(self): return '(' * 5000\ndef f(x): return A()",
        "import json\njson.dumps = lambda x: '\"\\\\\"'\ndef f(x): return 0",
        "import sys\nsys.exit(0)",
    ):
        assert not judge_code(code, tests, LIMITS, False)[0]
    assert "41" not in run_code("import sys; print(sys.orig_argv)", "").output
    said, _ = call_results("import sys\ndef f(x): return sys.orig_argv", ["f(1)"], LIMITS)
    assert "41" not in said[0]


@pytest.mark.parametrize("code", ["\0", "\ud800", "x" * 70_000, "```python\n\0\n```"])
def test_what_is_no_program(code):
    assert judge_code(code, ADD, LIMITS, False)[0] is False


def test_the_last_block_is_the_program():
    assert (
        program_of("```python\na\n``` or\n```py\nb\n```") == "b\n"
        and program_of("x = 1") == "x = 1"
    )


@pytest.mark.parametrize(
    "tests",
    [
        [],
        "",
        None,
        ["assert f(1)"],
        ["assert f(1) < 2"],
        ["assert f(1) == g(2)"],
        ["f(1) == 2"],
        ["import os"],
        [{"input": 1}],
        [3],
    ],
)
def test_tests_that_cannot_be_judged_are_named(tests):
    with pytest.raises(ValueError, match=r"test"):
        read_tests(tests)


def test_tests_of_every_layout():
    assert read_tests("assert f([1]) == {'a': (1, None)}\nassert g() is True").calls == (
        ("f([1])", {"a": (1, None)}),
        ("g()", True),
    )
    assert read_tests([{"input": "1", "output": "2"}]).streams == (("1", "2"),)


def test_without_confinement_it_is_refused_unless_allowed(monkeypatch):
    monkeypatch.setattr(sandbox, "confinement", lambda: "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="Install bubblewrap; say unconfined=true"):
        sandbox.confined_or_refused(False)
    assert sandbox.confined_or_refused(True) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ValueError, match="as root it is never run unconfined"):
        sandbox.confined_or_refused(True)


def test_the_user_who_runs_it_may_be_another():
    """As root the same checks run once more as an ordinary user, with the system's Python."""
    python = "/usr/bin/python3"
    if (
        os.geteuid() != 0
        or not Path(python).exists()
        or subprocess.run(["which", "setpriv"], capture_output=True).returncode
    ):
        pytest.skip("needs root, setpriv and a system Python to become somebody else")
    source = Path(sandbox.__file__).read_text()
    code = source + (
        "\nkind = confinement()\nprint(kind)\nif kind:\n    print(run_code('import os; os.fork(); os.listdir(\"/home\")', '', Limits(3)).output)\n"
        "    print(run_code('while True:\\n import os; os.fork()', '', Limits(3)).seconds < 6, call_results('f = lambda x: x + 1', ['f(1)'])[0])\n"
    )
    run = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", python, "-c", code]
    done = subprocess.run(
        run,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    if not done.stdout.strip():
        pytest.skip(f"ordinary users cannot be confined here {done.stderr[-200:]}")
    assert "No such file" in done.stdout and "True ['2']" in done.stdout, done.stdout + done.stderr
    assert sys.version_info >= (3, 11)
