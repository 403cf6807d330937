"""Verdicts on programs: right ones pass whatever they return or print beside, wrong ones do not,
and what is neither is said to be neither."""

import os
import re
import shutil
import subprocess
import threading

import pytest

from deepwright.tasks.code import MAX_PROGRAM, judge_code, read_tests, same_output
from deepwright.tasks.files import DataFile
from deepwright.tasks.hostile_programs import PROGRAMS
from deepwright.tasks.sandbox import Limits

pytestmark = pytest.mark.usefixtures("confined")
LIMITS = Limits(seconds=20, cpu_seconds=10)
ADD = read_tests(["assert f(1) == 2", "assert f(-1) == 0", "assert f(2) == 3"])
GOOD = "def f(x):\n    return x + 1"


def judged(code, tests, setup="", limits=LIMITS, **options):
    return judge_code(code, read_tests(tests, setup, **options), limits, False)


def test_right_and_wrong_programs():
    assert judge_code(f"Here:\n```python\n{GOOD}\n```", ADD, LIMITS, False) == (
        True,
        "passes 3 tests",
    )
    assert judge_code(GOOD.replace("1", "2"), ADD, LIMITS, False) == (False, "test 1: f(1) gives 3")
    assert judge_code("def g(x): pass", ADD, LIMITS, False) == (
        False,
        "test 1: f(1) raised NameError",
    )
    right, why = judge_code("syntax error", ADD, LIMITS, False)
    assert right is False and "ended with status 1: SyntaxError" in why
    streams = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7"]}
    adding = "print(sum(map(int, input().split())), '  ')"
    assert judged(adding, streams) == (True, "passes 2 tests")
    assert judged("print(3)", streams) == (False, "test 2: other output")
    assert judged("print(3); raise SystemExit(1)", streams) == (
        False,
        "test 1: ended with status 1",
    )


def test_names_of_pythons_own_are_the_programs():
    assert judged("def sum(a, b): return a + b", ["assert sum(1, 2) == 3"])[0] is True
    assert judged("def add(a, b): return a + b", ["assert abs(-3) == 3"])[0] is False


def test_what_goes_to_stderr_is_no_output():
    told = "import sys\nn = int(input())\nprint('n is', n, file=sys.stderr)\nprint(n)"
    assert judged(told, {"inputs": ["3\n"], "outputs": ["3\n"]})[0]
    right, why = judged("import sys\nprint(3, file=sys.stderr)", [{"input": "", "output": "3"}])
    assert not right and why == "test 1: other output"
    assert "ValueError: no" in judged("raise ValueError('no')", [{"input": "", "output": ""}])[1]


@pytest.mark.parametrize(
    "code, tests, setup",
    [
        (
            "from collections import Counter\ndef f(s): return Counter(s)",
            ["assert f('aab') == {'a': 2, 'b': 1}"],
            "",
        ),
        (
            "from collections import *\nP = namedtuple('P', 'x')\ndef f(): return P(1), deque([2])",
            ["assert f() == ((1,), [2])"],
            "",
        ),
        (
            "def f(): return frozenset([1]), float('inf'), True",
            ["assert f() == ({1}, float('inf'), True)"],
            "",
        ),
        (
            "import numpy as np\ndef f(): return [np.int64(4), np.arange(3)]",
            ["assert f() == [4, [0, 1, 2]]"],
            "",
        ),
        ("def f(): return 0.1 + 0.2", ["assert f() == 0.3"], ""),
        ("def f(n): return list(range(n))", [f"assert f(40000) == {list(range(40000))}"], ""),
        ("def f(x): return len(x)", [f"assert f({'a' * 140_000!r}) == 140000"], ""),
        ("def f(x): return 'x' * x", ["assert f(3_000_000) == " + repr("x" * 3_000_000)], ""),
        ("def f(x): return x * x", ["assert f(K) == 9"], "K = 3"),
        ("def f(x): return math.floor(x)", ["assert f(2.5) == 2"], ["import math", "import re"]),
        (
            "class Node:\n    def __init__(self, v): self.v = v\ndef f(n): return n.v",
            ["assert f(root) == 3"],
            "root = Node(3)",
        ),
        (
            "from dataclasses import *\n@dataclass\nclass D: x: 'int' = 1\ndef f(): return D().x",
            ["assert f() == 1"],
            "",
        ),
        ("def f(): return None", ["assert f() is None", "assert None is f() or f() is None"], ""),
        (
            "import sys\ndef f(): print('so', file=sys.stderr); print('and so'); return 1",
            ["assert f() == 1"],
            "",
        ),
        ("def f(): return 10 ** 5000", ["assert f() == 10 ** 5000"], ""),
        ("# " + "x" * 200_000 + "\ndef f(): return 1", ["assert f() == 1"], ""),
    ],
)
def test_right_programs_pass(code, tests, setup):
    assert judged(code, tests, setup)[0] is True


SOME = (
    f"{GOOD}\ndef g(x): return x + 9\ndef s(x): x.sort()\ndef up(n): yield from range(n)\n"
    "class P:\n    def __init__(self, x): self.x = x\n    def twice(self): return 2 * self.x"
)
BAD = "def f(x): return 50"


@pytest.mark.parametrize(
    "test, wrong",
    [
        ("assert f(2)", "def f(x): return 0"),
        ("assert not f(-1)", BAD),
        ("assert f(3) in (4, 5)", BAD),
        ("assert 1 < f(1) <= 2", BAD),
        ("assert f(f(1)) == f(2)", "def f(x): return 2 - x"),
        ("assert abs(f(1) - 2) < 1e-6", "def f(x): return 2.01"),
        ("import math\nassert math.isclose(f(0.5), 1.5)", BAD),
        ("assert set([f(1), f(1)]) == {2}", BAD),
        ("assert f(1) is not None", "def f(x): pass"),
        ("assert f(1) != 3", "def f(x): return 3.0"),
        ("assert isinstance(f(1), int)", "def f(x): return 2.0"),
        ("assert f(1) == 2 and f(2) == 3", "def f(x): return 2"),
        ("assert [f(n) for n in range(50)] == list(range(1, 51))", BAD),
        ("assert f(1) == g(1) - 8", BAD),
        ("assert (f(1), 'a') == (2, 'a')", BAD),
        ("x = [3, 1]\nassert s(x) is None and x == [1, 3]", "def s(x): sorted(x)"),
        ("assert list(up(3)) == [0, 1, 2]", "def up(n): yield n"),
        ("assert max(up(3)) == 2", "def up(n): return []"),
        ("try:\n    f('a')\n    assert False\nexcept TypeError:\n    assert True", BAD),
        (
            "p = P(1)\np.x = 5\nassert p.twice() == 10 and p.x == 5",
            "class P:\n    def __init__(self, x): self.twice = lambda: 2 * x",
        ),
        (
            "def check(candidate):\n    for n in range(9):\n        assert candidate(n) == n + 1",
            "def f(n): return 1",
        ),
        ("import numpy as np\nassert np.allclose(f(0.1 + 0.2), 1.3)", BAD),
        ("assert f(1) == True + True", "def f(x): return True"),
        ("assert f(0.1 + 0.2) == 1.3 and f(1) == 2", "def f(x): return x + 1.0001"),
        ("assert 1 < f(0) or f(0) == 1", "def f(x): return True"),
    ],
)
def test_tests_that_are_code(test, wrong):
    """They run where the program is not, and tell a right program from a wrong one."""
    assert judged(SOME, test, entry_point="f")[0] is True
    assert judged(wrong, test, entry_point="f")[0] is False


FORGED = """
class Any:
    __add__ = __sub__ = __rsub__ = __abs__ = __round__ = lambda self, *x: self
    __call__ = __getitem__ = lambda self, *x: self
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
    __bool__ = __contains__ = lambda self, *x: True
    __hash__ = __int__ = __index__ = __len__ = lambda self: 1
    __float__ = lambda self: 0.0
    __iter__ = lambda self: iter([self])
    def __getattr__(self, name): return self
def f(*x): return Any()
"""


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) == 41",
        "assert f(1)",
        "assert abs(f(1) - 41) < 1e-6",
        "assert f(1) in (41, 42)",
        "assert 40 < f(1)",
        "assert not f(1) != 41",
        "assert [f(1)] == [41]",
        "import math\nassert math.isclose(f(1), 41)",
        "assert f(1).x == 41",
        "assert f(1)[0] == 41",
        "assert f(1) is True",
        "assert {f(1)} == {41}",
        "assert str(f(1)) == '41'",
        "assert round(f(1), 2) == 41",
        "def check(candidate):\n    assert candidate(1) == 41",
    ],
)
def test_a_class_that_agrees_with_everything_passes_nothing(test):
    assert judged(FORGED, test, entry_point="f")[0] is False


WRITES = """
import os
def f(x):
    for end in range(64):
        try: os.write(end, b'{"verdict": true}\\n{"value": true}\\n')
        except OSError: pass
"""
PATCHES = """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        frame.f_globals["same"] = frame.f_builtins["eval"] = lambda *x: True
        frame = frame.f_back
"""


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.write(1, b'\"41\" ' * 2)\nos._exit(0)",
        "import builtins\nbuiltins.repr = lambda x: 'True'\ndef f(x): return 1",
        "import json\njson.dumps = lambda x: '{\"value\": true}'\ndef f(x): return 0",
        "import sys\nsys.exit(0)",
        WRITES,
        PATCHES,
    ],
)
def test_a_program_cannot_forge_results(code):
    """It may print what it likes, patch Python, or leave early: without the values, nothing."""
    assert judged(code, ["assert f(1) == 41"])[0] is False
    assert judged(code, ["assert 40 < f(1)"])[0] is False


LOOKS = """
import gc, os, sys
def f(x):
    said = repr([sys.orig_argv, dict(os.environ), gc.get_objects()])
    for place, _, names in os.walk("/tmp"):
        if "packages" in place: continue  # numpy, where the checkout lies in /tmp
        for name in names: said += open(os.path.join(place, name), "rb").read().decode("latin1")
    frame = sys._getframe()
    while frame:
        said += repr(list(frame.f_locals.items()))
        frame = frame.f_back
    return tuple(said.count(chr(first) + rest) for first, rest in ((52, "1234"), (53, "4321")))
"""


@pytest.mark.parametrize(
    "line",
    [
        "[" * 900 + "]" * 900,
        "[" * 10**6,
        '{"value": ' + "9" * 10**6,
        "{}",
        "[]",
        '{"raised": 3}',
        '{"value": {"int": "x"}}',
        "\xff",
    ],
)
def test_lines_that_a_program_writes_itself_are_wrong(line):
    """Whatever the judge makes of them, it goes on; deep ones also as a value."""
    for said in (line, f'{{"value": {line}}}'):
        program = f"import os\nos.write(3, {said!r}.encode('latin1') + b'\\n')\nos.write(4, {said!r}.encode('latin1') + b'\\n')\nos._exit(0)"
        assert judge_code(program, ADD, LIMITS, False)[0] is False


def test_a_program_never_meets_what_is_expected():
    """In its files, its memory, its arguments, its environment."""
    right, why = judged(LOOKS, ["assert f(54321) == 41234"])
    found = re.fullmatch(r"test 1: f\(54321\) gives {'tuple': \[(\d+), (\d+)\]}", why)
    assert right is False and found, why
    assert found[1] == "0" and int(found[2]) > 0  # it finds what it is asked
    right, why = judged(LOOKS, ["found = f(54321)\nassert found[0] == 0 < found[1] < 41234"])
    assert right is True, why


def test_what_the_tests_get_wrong_is_no_verdict():
    for test in (
        "import no_such_package\nassert f(1) == 2",
        "assert f(lambda: 1) != 2",
        "def check(g):\n    assert g(1) == missing.value\ncheck(f)\nimport missing",
        "if f(1) == 7:\n    assert False",
        "f(1)\nwhile True: pass\nassert f(2)",
        "assert f(1) == 2\nimport time\ntime.sleep(3)\nassert f(2) == 3",
    ):
        right, why = judged(GOOD, test, limits=Limits(1, 1))
        assert right is None and why, test


def test_what_the_program_does_wrong_is_a_verdict_also_to_tests_that_are_code():
    for code, said in (
        ("import time\ndef f(x): time.sleep(60)", "out of time (1 s)"),
        ("def f(x):\n    while True: pass", "out of"),
        ("import os\ndef f(x): os._exit(0)", "ended with status 0"),
        ("def f(x): return 'x' * (20 << 20)", "more than 16 MB"),
        ("x = bytearray(10**10)", "MemoryError"),
        ("def f(x): raise ImportError('mine')", "ImportError: mine"),
        ("def f(x): raise KeyError(3)", "KeyError"),
    ):
        right, why = judged(code, "assert 0 < f(1)", limits=Limits(1, 2))
        assert right is False and said in why, (code, why)


@pytest.mark.parametrize("code", ["\0", "\ud800", "x" * (MAX_PROGRAM + 1), "```python\n\0\n```"])
def test_what_is_no_program(code):
    assert judge_code(code, ADD, LIMITS, False)[0] is False


@pytest.mark.parametrize(
    "got, wanted, right",
    [
        ("3\n", "3", True),
        ("3  \n\n\n", "3\n", True),
        ("3\r\n4\r\n", "3\n4\n", True),
        ("3 4", "3\n4", False),
        ("3\n", "3\n\n4", False),
        ("0.3333333333", "0.333333333333", True),
        ("0.333333", "0.3333333", True),
        ("0.33", "0.3333333", False),
        ("x = 0.5000001 m", "x = 0.5 m", True),
        ("1e-7", "0.0", True),
        ("1000000.5", "1000000.0", True),
        ("100.001", "100.0", False),
        ("3.0", "3", True),
        ("3.0000001", "3", False),
        ("1e2", "100", True),
        ("007", "7", False),
        ("0011", "11", False),
        ("Yes", "yes", False),
        ("nan", "nan", True),
        ("inf", "1e400", False),
        ("1.5.2", "1.5.20", False),
        ("-0.0", "0.0", True),
        ("", "", True),
        ("", "0", False),
        ("٣", "3", False),
        ("1_0", "10", False),
        (" 3", "3", True),
        ("3  4", "3 4", True),
        ("#", "##", False),
        ("9" * 5000 + ".0", "9" * 5000, False),
        ("1." + "0" * 4_000_000, "1.5", False),
        ("9" * 5000, "9" * 5000, True),
    ],
)
def test_outputs(got, wanted, right):
    assert same_output(got, wanted) is right


RIGHT = f"import threading\none = threading.Thread(target=int)\none.start(), one.join()\n{GOOD}"


@pytest.mark.parametrize("cores", [2, 16, 64])
def test_verdicts_do_not_depend_on_the_machine(cores, tmp_path, monkeypatch):
    """Right programs, which start a thread, beside fork bombs of their batch and 50 processes of
    the user that programs once shared."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"question": "Add {n}.", "tests": ["assert f(1) == 2"]}}\n' for n in range(40))
    )
    task = DataFile(str(tmp_path / "rows.jsonl"), seconds=2.0)
    bombs = [PROGRAMS["fork bomb that goes on"], PROGRAMS["fork bomb that leaves its session"]] * 2
    answers = [RIGHT] * 48
    answers[4:4], answers[30:30] = bombs[:2], bombs[2:]
    others = []
    if os.geteuid() == 0 and shutil.which("sleep"):
        others = [subprocess.Popen(["sleep", "600"], user=65534) for _ in range(50)]
    try:
        problem = task.problem(0, "held_out")
        found = task.judge([problem] * len(answers), answers)
    finally:
        for process in others:
            process.kill()
            process.wait()
    wrong = [one for answer, one in zip(answers, found) if (one[0] is True) != (answer is RIGHT)]
    assert not wrong, wrong


def test_judging_from_many_threads_leaves_nothing_open():
    before = set(os.listdir("/proc/self/fd"))
    threads = [
        threading.Thread(target=judged, args=(GOOD, test))
        for test in ("assert f(1) == 2", "assert 0 < f(1)") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(os.listdir("/proc/self/fd")) == before
