"""Programs judged by tests. Expected values never enter a program's sandbox, so it cannot print,
patch or exit its way to a verdict.

What a program's sandbox, the machine or the tests themselves do wrong is no verdict: None.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import marshal
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from deepwright.files import parse_json
from deepwright.refusals import quoted
from deepwright.tasks import calls, checker
from deepwright.tasks.code_tests import Call, Tests, read_tests
from deepwright.tasks.conversation import Conversation
from deepwright.tasks.fences import program_of
from deepwright.tasks.plain import Plain, same
from deepwright.tasks.sandbox import (
    PATIENCE,
    Ended,
    Job,
    Limits,
    confined_or_refused,
    python,
    run,
    run_code,
)

__all__ = ["Tests", "judge_code", "program_of", "read_tests"]

MAX_PROGRAM = 1_000_000  # bytes
LONGEST_NUMBER = 400  # digits of one that is compared as such
_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_INSIDE = ("plain", "calls", "checker")  # modules that run in a sandbox
Judged = tuple[bool | None, str]


def judge_code(answer: str, tests: Tests, limits: Limits, unconfined: bool) -> Judged:
    """(whether the program passes every test, why); None where that is not known.

    ValueError where no program may run here."""
    code = program_of(answer, tests.names)
    try:
        long = len(code.encode()) > MAX_PROGRAM
    except UnicodeEncodeError:
        return False, "not text"
    if long:
        return False, f"longer than {MAX_PROGRAM:,} bytes"
    kind = confined_or_refused(unconfined)
    try:
        if tests.streams:
            return _judge_streams(code, tests.streams, limits, unconfined)
        judge = _judge_calls if tests.calls else _judge_script
        return judge(code, tests, limits, kind)
    except OSError as error:  # no more processes, files or memory for this process
        return None, f"it could not be run: {error}"


# ---- whole programs


def _judge_streams(
    code: str, streams: Sequence[tuple[str, str]], limits: Limits, unconfined: bool
) -> Judged:
    for number, (stdin, wanted) in enumerate(streams, 1):
        ended = run_code(code, stdin, _wider(limits, wanted), unconfined=unconfined)
        if ended.failed:
            return None, f"test {number}: {ended.failed}"
        if ended.status != 0:
            return False, f"test {number}: {ended.why}"
        if not same_output(ended.output, wanted):
            return False, f"test {number}: other output"
    return True, f"passes {len(streams)} tests"


def _wider(limits: Limits, wanted: str) -> Limits:
    """Room for what is expected, and for as much again."""
    return replace(limits, file_bytes=max(limits.file_bytes, 2 * len(wanted.encode())))


def same_output(got: str, wanted: str) -> bool:
    """Line by line, whatever ends a line and however many blanks do, and without empty lines at the
    end. In a line that differs, words may differ as numbers do: within 1e-6 where a number with
    decimals is wanted, not at all where an integer is (3.0 is 3, 007 is not 7)."""
    lines = [[line.rstrip() for line in text.rstrip().splitlines()] for text in (got, wanted)]
    return len(lines[0]) == len(lines[1]) and all(map(_same_line, *lines))


def _same_line(got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    ours, theirs = got.split(), wanted.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(got: str, wanted: str) -> bool:
    if got == wanted or max(len(got), len(wanted)) > LONGEST_NUMBER:
        return got == wanted
    if _FLOAT.fullmatch(wanted):
        return _is_number(got) and same(float(got), float(wanted), "printed")
    return bool(_INTEGER.fullmatch(wanted) and _FLOAT.fullmatch(got)) and float(got) == int(wanted)


def _is_number(word: str) -> bool:
    return bool(_FLOAT.fullmatch(word) or _INTEGER.fullmatch(word))


# ---- calls


def _inside(code: str, setup: str) -> dict[str, bytes]:
    """The files of a sandbox: the program, and of this package what asks it."""
    own = {calls.PROGRAM: code.encode(), calls.SETUP: setup.encode()}
    return _compiled() | own


@functools.cache
def _compiled() -> dict[str, bytes]:
    """Modules of this package for a sandbox, which need not be compiled there each time."""
    package = resources.files("deepwright.tasks")
    files = {"deepwright/__init__.pyc": "", "deepwright/tasks/__init__.pyc": ""}
    for name in _INSIDE:
        files[f"deepwright/tasks/{name}.pyc"] = (package / f"{name}.py").read_text("utf-8")
    begun = importlib.util.MAGIC_NUMBER + bytes(12)
    return {
        name: begun + marshal.dumps(compile(text, name, "exec")) for name, text in files.items()
    }


def _started(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line that runs `main` of a module in the sandbox's own copy of this package."""
    start = f"import sys; sys.path.insert(0, '.'); from {module} import main; main()"
    return python("-c", start, *arguments)


def _judge_calls(code: str, tests: Tests, limits: Limits, kind: str) -> Judged:
    said, ended = call_results(code, tests, limits, kind)
    if ended.failed:
        return None, ended.failed
    for number, (line, call) in enumerate(zip(said, tests.calls), 1):
        if why := _wrong(line, call):
            return False, f"test {number}: {call.expression[:60]} {why}"
    if len(said) < len(tests.calls):
        return False, f"test {len(said) + 1}: {ended.why}"
    return True, f"passes {len(tests.calls)} tests"


def call_results(code: str, tests: Tests, limits: Limits, kind: str) -> tuple[list[str], Ended]:
    """A line of JSON for each call after the program has run; fewer where it ended early."""
    asked = "".join(json.dumps({"eval": call.expression}) + "\n" for call in tests.calls)
    wanted = json.dumps([call.wanted for call in tests.calls])
    argv, files = _started("deepwright.tasks.calls"), _inside(code, tests.setup)
    ended = run(Job(argv, _wider(limits, wanted), files), asked.encode(), kind)
    return ended.output.split("\n")[:-1][: len(tests.calls)], ended


def _wrong(line: str, call: Call) -> str:
    """What is wrong with the answer to a call; '' where it is right."""
    answer = _read(line)
    if "value" not in answer:
        raised = answer.get("raised")
        return f"raised {raised}"[:60] if isinstance(raised, str) else "says nothing of a value"
    if same(answer["value"], call.wanted, call.how):
        return ""
    return f"gives {quoted(answer['value'], 60)}"


def _read(line: str | bytes) -> dict[str, Plain]:
    """A line that a program may have written itself."""
    try:
        answer: Any = parse_json(line, "its answer", constants="float")
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"raised": "no plain data"}


# ---- tests that are code


def _judge_script(code: str, tests: Tests, limits: Limits, kind: str) -> Judged:
    """Tests and program talk through this process: it knows which of the two is waited for."""
    files = _inside("", "") | {checker.TESTS: tests.script.encode()}
    patient = replace(limits, seconds=(PATIENCE + 2) * limits.seconds)
    asking = Job(_started("deepwright.tasks.checker", *tests.names), patient, files)
    answering = Job(_started("deepwright.tasks.calls"), limits, _inside(code, tests.setup))
    with Conversation(asking, kind) as script:
        message = _read(script.hear() or b"")
        if "ask" not in message:  # the program is started when it is asked something
            return _verdict(message, script)
        with Conversation(answering, kind) as program:
            while "ask" in message:
                program.tell(json.dumps(message["ask"]).encode())
                answer = program.hear()
                if answer is None:
                    return _silent(program)
                script.tell(answer)
                message = _read(script.hear() or b"")
            return _verdict(message, script)


def _silent(program: Conversation) -> Judged:
    """A program that gave no answer. Its time runs on while the tests do other things."""
    ended = program.close()
    if ended.failed:
        return None, ended.failed
    if ended.stopped and 2 * program.waited < ended.seconds:
        return None, f"its tests took the time of the program, which was {ended.why}"
    return False, ended.why


def _verdict(message: dict[str, Plain], script: Conversation) -> Judged:
    if "verdict" not in message:
        ended = script.close()
        return None, f"its tests gave no verdict: {ended.failed or ended.why}"
    right = message["verdict"]
    return (right if isinstance(right, bool) else None), str(message.get("why"))
