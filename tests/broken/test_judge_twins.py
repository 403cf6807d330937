"""Wrong twins of the judge of programs, its sandbox, the workers and user rewards: each makes a
mistake that was made here or elsewhere."""

import datetime
import json
import os
import subprocess

import pytest

from deepwright.tasks import (
    code,
    code_tests,
    fences,
    launcher,
    plain,
    pool,
    reward_call,
    sandbox,
    syscalls,
)
from deepwright.tasks.code import judge_code, read_tests
from deepwright.tasks.hostile_programs import PROGRAMS
from deepwright.tasks.sandbox import Ended, Limits, run_code
from tests.broken.patched import must_reject

LIMITS = Limits(seconds=4, cpu_seconds=2)
AGREES = """
class Any:
    def __eq__(self, other): return True
    def __bool__(self): return True
def f(x): return Any()
"""
COUNTS = """
```python3
from collections import Counter
def f(s): return Counter(s)
```
Try:
```bash
python f.py
```
"""
STARTS_A_THREAD = """
import threading
thread = threading.Thread(target=int)
thread.start(), thread.join()
def f(x): return x + 1
"""


def judged(program, tests, **options):
    if not sandbox.confinement():
        pytest.skip("neither bwrap nor unshare works on this machine")
    return judge_code(program, read_tests(tests, **options), LIMITS, False)[0]


def right_programs_pass():
    """Whatever they print beside, return, and stand in."""
    aloud = "import sys\nprint('so', file=sys.stderr)\nprint(3)"
    assert judged(aloud, [{"input": "", "output": "3"}])
    assert judged(COUNTS, ["assert f('aab') == {'a': 2, 'b': 1}"])
    assert judged("def f(): return 0.1 + 0.2, True", ["assert f() == (0.3, True)"])
    assert judged("print(1 / 3)", [{"input": "", "output": "0.333333"}])
    assert judged("def f(x): return x * K", ["assert f(3) == 9"], setup="K = 3")
    shown = "```python3\nprint(3)\n```\nIt prints\n```\nthree\n```"
    assert judged(shown, [{"input": "", "output": "3"}])
    used = "```py\ndef f(x):\n    return x\n```\nUse it:\n```py\nprint(f(2))\n```"
    assert judged(used, ["assert f(1) == 1"])


def wrong_programs_do_not():
    for test in ("assert f(1) == 41", "assert f(1)", "assert f(1) in (41, 42)"):
        assert judged(AGREES, test) is False
    assert judged("def f(x): return True", ["assert f(1) == 1"]) is False
    assert judged("def f(x): return 1.1", ["assert f(1) == 1.0"]) is False
    assert judged("print(0.34)", [{"input": "", "output": "0.333333"}]) is False


def machines_are_no_verdict():
    """A launcher that fails, other users' processes, a processor that others have."""
    tests = read_tests(["assert f(1) == 2"])
    program = STARTS_A_THREAD
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "PYTHON", "/no/such/python")
        assert judge_code(program, tests, LIMITS, False)[0] is None
    if os.geteuid() == 0:
        others = [subprocess.Popen(["sleep", "60"], user=65534) for _ in range(50)]
        try:
            assert judge_code(program, tests, LIMITS, False)[0] is True
        finally:
            for process in others:
                process.kill()
                process.wait()
    clock = launcher.Clock(0.0, 0.05)
    for n in range(1, 101):
        clock.advance(n * 0.05, 0.04, 1, 9)
    assert clock.own < 2.0


def what_no_limit_counts_is_refused():
    for name in ("shared memory of the kernel", "memory files", "a socket to the host"):
        ended = run_code(PROGRAMS[name], "", LIMITS)
        assert ended.status == 1 and ("Error" in ended.errors), name
    ended = run_code(PROGRAMS["a million empty files"], "", LIMITS)
    assert "files" in ended.stopped
    ended = run_code(PROGRAMS["slows its judge"], "", LIMITS)
    assert "PermissionError" in ended.errors


def hostile_answers_take_no_time():
    """A set of numbers that hash alike is compared by something else than their hashes."""
    import time

    alike = {"set": [n * (2**61 - 1) for n in range(16_000)]}
    begun = time.process_time()
    assert not plain.same(alike, plain.encode({1}))
    assert time.process_time() - begun < 1


def jobs_fail_alone(tmp_path):
    """One that JSON cannot hold, and the next batch after a batch that was broken off."""
    (tmp_path / "r.py").write_text("def f(completions): return [float(len(completions[0]))]\n")
    job = {"path": str(tmp_path / "r.py"), "name": "f", "columns": {}, "step": 0, "steps": 1}
    one, two = (job | {"given": {"completions": ["x" * n]}} for n in (1, 2))
    workers = pool.Pool("function", workers=1, seconds=5, trusted=True)
    try:
        try:
            found = workers.run([one, job | {"given": datetime.date(2020, 1, 1)}, two])
        except TypeError:
            raise AssertionError("a batch ends with one odd job") from None
        assert [bool(outcome.error) for outcome in found] == [False, True, False]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                pool.Pool, "_heard", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
            )
            with pytest.raises(KeyboardInterrupt):
                workers.run([one])
        (outcome,) = workers.run([two])
        assert not outcome.error and outcome.value["rewards"] == [2.0]
    finally:
        workers.close()


def rewards_follow_the_contract(tmp_path):
    """What a function takes, by name, and what is a number."""
    text = "async def f(completion_ids): return [1.0, '0.5', None, True]\n"
    (tmp_path / "r.py").write_text(text)
    job = {"path": str(tmp_path / "r.py"), "name": "f", "columns": {}, "step": 0, "steps": 1}
    job |= {"given": {"completions": ["a"] * 4, "prompts": ["b"] * 4}}
    try:
        answer = reward_call.call(job, plain.decode)
    except TypeError as error:
        raise AssertionError(str(error)) from None
    assert answer.get("rewards") == [1.0, "str '0.5'", None, 1.0]


# --- the mistakes


def stderr_is_output(original):
    def run(*given, **options):
        ended = original(*given, **options)
        return Ended(ended.status, ended.errors + ended.output, ended.seconds)

    return run


def by_their_repr(original):
    return lambda got, wanted, how="exact": json.dumps(got) == json.dumps(wanted)


def by_pythons_own_equality(original):
    def same(got, wanted, how="exact"):
        try:
            return plain.decode(got) == plain.decode(wanted)
        except (ValueError, TypeError):
            return False

    return same


def nearly_is_enough(original):
    return lambda got, wanted, how="exact": (
        original(got, wanted, how) or (isinstance(got, float) and abs(got - wanted) < 0.2)
    )


def one_name_for_python(original):
    import re

    return re.compile("python$|py$")


def the_last_block_whatever_it_defines(_):
    return lambda text, names: False


def no_setup(original):
    return lambda tests, setup="", **options: original(tests, **options)


def compared_inside(original):
    def judge(program, tests, limits, kind):
        text = "".join(
            f"assert {c.expression} == {plain.decode(c.wanted)!r}\n" for c in tests.calls
        )
        return judge_with_asserts(program, text, limits)

    return judge


def run_beside_the_program(original):
    return lambda program, tests, limits, kind: judge_with_asserts(program, tests.script, limits)


def judge_with_asserts(program, text, limits):
    ended = run_code(f"{program}\n{text}", "", limits)
    return ended.status == 0, "ended"


def failures_are_wrong(original):
    def told(self, output, errors):
        ended = original(self, output, errors)
        return Ended(1, output, ended.seconds, errors) if ended.failed else ended

    return told


def everybody_is_nobody(original):
    return lambda: 65534 if os.geteuid() == 0 else None


def the_clock_on_the_wall(original):
    def advance(self, now, *_):
        self.own, self.seen = now - self.begun, now

    return advance


def everything_allowed(original):
    import struct

    return lambda machine: struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)


def as_sets_of_python(original):
    return lambda got, wanted, how: plain.decode(got) == plain.decode(wanted)


def odd_jobs_end_the_batch(original):
    return lambda self, job: json.dumps({"seconds": self.seconds, **job}).encode() + b"\n"


def workers_are_kept(original):
    return lambda self, jobs: self._run(jobs)


def everything_is_handed_over(original):
    return lambda function, given: given


def text_is_a_number(original):
    return lambda one: None if one is None else float(one)


TWINS = [
    (right_programs_pass, code, "run_code", stderr_is_output),
    (right_programs_pass, code, "same", by_their_repr),
    (right_programs_pass, fences, "_PYTHON", one_name_for_python),
    (right_programs_pass, fences, "_defines", the_last_block_whatever_it_defines),
    (wrong_programs_do_not, code, "same", by_pythons_own_equality),
    (wrong_programs_do_not, code, "same", nearly_is_enough),
    (wrong_programs_do_not, code, "_judge_calls", compared_inside),
    (wrong_programs_do_not, code, "_judge_script", run_beside_the_program),
    (machines_are_no_verdict, sandbox.Started, "told", failures_are_wrong),
    (machines_are_no_verdict, sandbox, "own_user", everybody_is_nobody),
    (machines_are_no_verdict, launcher.Clock, "advance", the_clock_on_the_wall),
    (what_no_limit_counts_is_refused, syscalls, "refusals", everything_allowed),
    (what_no_limit_counts_is_refused, sandbox, "MOST_FILES", lambda _: 1 << 40),
    (hostile_answers_take_no_time, plain, "_same", as_sets_of_python),
    (jobs_fail_alone, pool.Pool, "_line", odd_jobs_end_the_batch),
    (jobs_fail_alone, pool.Pool, "run", workers_are_kept),
    (rewards_follow_the_contract, reward_call, "taken", everything_is_handed_over),
    (rewards_follow_the_contract, reward_call, "number", text_is_a_number),
]


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[f"{twin[2]}-{twin[3].__name__}" for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)


def test_a_setup_that_is_not_passed_on_is_seen(monkeypatch):
    """`read_tests` is imported by name, so its twin stands where the check looks it up."""
    monkeypatch.setitem(globals(), "read_tests", no_setup(code_tests.read_tests))
    with pytest.raises(AssertionError):
        right_programs_pass()
