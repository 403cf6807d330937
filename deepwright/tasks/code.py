"""Code judged by unit tests. Expected values never enter the sandbox, so a program cannot print, patch or exit its way to a verdict.

Two kinds of test: (input, output) of a whole program, and `assert call == literal`, whose call is evaluated inside and compared outside.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepwright.tasks.sandbox import MAX_PROGRAM, Limits, call_results, run_code

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Tests:
    """`calls`: (expression, expected value); `streams`: (stdin, expected stdout)."""

    calls: tuple[tuple[str, Any], ...] = ()
    streams: tuple[tuple[str, str], ...] = ()
    setup: str = ""  # runs before the program


def read_tests(tests: object, setup: str = "") -> Tests:
    """Tests as data files hold them: assert statements (MBPP), {"input", "output"} rows, or {"inputs": [..], "outputs": [..]} (APPS).
    ValueError naming the first test that is none of these."""
    if isinstance(tests, Mapping) and {"inputs", "outputs"} <= tests.keys():
        tests = [
            {"input": a, "output": b}
            for a, b in zip(tests["inputs"], tests["outputs"], strict=True)
        ]
    if isinstance(tests, str):
        tests = tests.strip().splitlines()
    if not isinstance(tests, Sequence) or not tests:
        raise ValueError("tests are empty or no list")
    if all(
        isinstance(test, Mapping)
        and isinstance(test.get("input"), str)
        and isinstance(test.get("output"), str)
        for test in tests
    ):
        return Tests(streams=tuple((test["input"], test["output"]) for test in tests), setup=setup)
    return Tests(calls=tuple(_call(test) for test in tests), setup=setup)


def _call(test: object) -> tuple[str, Any]:
    try:
        (statement,) = ast.parse(str(test)).body
        compare = statement.test  # type: ignore[attr-defined]
        (operator,), (right,) = compare.ops, compare.comparators
        if isinstance(statement, ast.Assert) and isinstance(operator, (ast.Eq, ast.Is)):
            return ast.unparse(compare.left), ast.literal_eval(right)
    except (SyntaxError, ValueError, AttributeError):
        pass
    raise ValueError(
        f"test {str(test)[:80]!r} is not `assert call == literal`, the form whose verdict a program cannot forge"
    )


def program_of(answer: str) -> str:
    """The last fenced block of an answer, or all of it."""
    blocks = _FENCE.findall(answer)
    return blocks[-1] if blocks else answer


def judge_code(answer: str, tests: Tests, limits: Limits, unconfined: bool) -> tuple[bool, str]:
    """Whether the program passes every test."""
    code = "\n".join(filter(None, (tests.setup, program_of(answer))))
    try:
        too_long = len(code.encode()) > MAX_PROGRAM
    except UnicodeEncodeError:
        return False, "not text"
    if too_long or "\0" in code:
        return False, f"longer than {MAX_PROGRAM} bytes, or holds a null byte"
    if tests.calls:
        return _judge_calls(code, tests.calls, limits, unconfined)
    for number, (stdin, expected) in enumerate(tests.streams, 1):
        ended = run_code(code, stdin, limits, unconfined=unconfined)
        if ended.status != 0 or [line.rstrip() for line in ended.output.rstrip().splitlines()] != [
            line.rstrip() for line in expected.rstrip().splitlines()
        ]:
            return (
                False,
                f"test {number}: {'out of time' if ended.status is None else f'exit status {ended.status}' if ended.status else 'other output'}",
            )
    return True, f"passes {len(tests.streams)} tests"


def _judge_calls(
    code: str, calls: Sequence[tuple[str, Any]], limits: Limits, unconfined: bool
) -> tuple[bool, str]:
    said, ended = call_results(code, [call for call, _ in calls], limits, unconfined=unconfined)
    for number, (text, (call, expected)) in enumerate(zip(said, calls), 1):
        try:
            right = ast.literal_eval(text) == expected
        except (
            ValueError,
            TypeError,
            SyntaxError,
            MemoryError,
            RecursionError,
        ):  # TypeError: {[]: 1}
            right = False
        if not right:
            return False, f"test {number}: {call[:60]} gives {text[:60]}"
    if len(said) < len(calls):
        return (
            False,
            f"test {len(said) + 1}: {'out of time' if ended.status is None else f'ended with status {ended.status}'}",
        )
    return True, f"passes {len(calls)} tests"
