"""Cases of unit tests in the forms of published sets, brought into those that `code.py` judges.

Expected values must be literals, since they never enter the sandbox: tests of which one has none (a
loop over random numbers) are refused. They are read as syntax and never run here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deepwright.files import parse_json
from deepwright.refusals import expect, quoted
from deepwright.tasks.code import Tests, read_tests

LONGEST = 1_000_000  # characters of tests that are read as Python
CHECK = "check"  # what HumanEval calls its function of tests


def read_cases(cases: Any, setup: str = "", entry_point: str = "") -> Tests:
    """Tests from {"inputs", "outputs"}, rows of {"input", "output"}, asserts, or the text of a
    function `check(candidate)` with the name that it is called with. Inputs and outputs are a
    program's streams; with "fn_name" or an entry point a function's arguments and value.

    ValueError saying what cannot be judged."""
    if isinstance(cases, Mapping):
        entry_point = cases.get("fn_name") or entry_point
        cases = _paired(cases.get("inputs"), cases.get("outputs"))
    listed = cases if isinstance(cases, list) else [cases]
    if listed and all(isinstance(case, Mapping) for case in listed):
        kinds = {
            str(case.get("testtype", "functional" if entry_point else "stdin")) for case in listed
        }
        if len(kinds) != 1:
            raise ValueError(f"its tests are of several kinds: {quoted(sorted(kinds), 60)}")
        if kinds == {"functional"}:
            cases = [_call(case, _named(entry_point)) for case in listed]
        else:
            cases = [
                {side: _stream(case.get(side)) for side in ("input", "output")} for case in listed
            ]
    elif sum(len(text) for text in listed if isinstance(text, str)) > LONGEST:
        raise ValueError(f"its tests are longer than {LONGEST:,} characters")
    elif isinstance(cases, str) and f"def {CHECK}" in cases:
        cases = list(_asserts(_check_function(cases), entry_point))
    return read_tests(cases, setup)


def _paired(inputs: object, outputs: object) -> list[dict[str, Any]]:
    if not (isinstance(inputs, list) and isinstance(outputs, list) and inputs):
        raise ValueError(f"its tests have the inputs {quoted(inputs, 60)}, expected a list")
    if len(inputs) != len(outputs):
        raise ValueError(f"its tests have {len(inputs)} inputs and {len(outputs)} outputs")
    return [{"input": given, "output": wanted} for given, wanted in zip(inputs, outputs)]


def _stream(value: object) -> str:
    """What goes through stdin or stdout; some sets keep it as a list of lines."""
    lines = value if isinstance(value, list) else [value]
    if not all(isinstance(line, str) for line in lines):
        raise ValueError(f"input or output is {quoted(value, 60)}, expected a text")
    return "\n".join(lines)


def _call(case: Mapping[str, Any], name: str) -> str:
    """An assert. Arguments are a list, or a text of JSON line by line; the function may be the
    method of LeetCode's class."""
    given, wanted = case.get("input"), case.get("output")
    if isinstance(given, str):
        given = [parse_json(line, "an input") for line in given.splitlines() if line.strip()]
        wanted = parse_json(wanted, "an output") if isinstance(wanted, str) else wanted
    if not isinstance(given, list):
        raise ValueError(f"arguments are {quoted(given, 60)}, expected a list")
    function = f"(Solution().{name} if 'Solution' in globals() else {name})"
    return f"assert {function}(*{given!r}) == {wanted!r}"


def _named(entry_point: str) -> str:
    expect(bool(entry_point), "the name of the function that is tested", entry_point, "one")
    return entry_point


# ---- HumanEval's asserts


def _check_function(test: str) -> ast.FunctionDef:
    try:
        body = ast.parse(test).body
    except SyntaxError as error:
        raise ValueError(f"test is no Python: {error.msg}") from None
    checks = [one for one in body if isinstance(one, ast.FunctionDef) and one.name == CHECK]
    if len(checks) != 1 or not checks[0].args.args:
        raise ValueError(f"test has {len(checks)} functions `check`, expected one with an argument")
    return checks[0]


def _asserts(check: ast.FunctionDef, entry_point: str) -> Iterator[str]:
    """Each test as `assert call == literal`."""
    rename = _Renamed(check.args.args[0].arg, _named(entry_point))
    for statement in check.body:
        if isinstance(statement, ast.Assert):
            if not isinstance(statement.test, ast.Constant):  # "assert True" stands for no test
                yield _as_equation(rename.visit(statement.test))
        elif not isinstance(statement, (ast.Expr, ast.Import, ast.ImportFrom, ast.Pass)):
            raise ValueError(
                f"its test holds more than asserts: {quoted(ast.unparse(statement), 60)}"
            )


@dataclass
class _Renamed(ast.NodeTransformer):
    old: str
    new: str

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.new, node.ctx) if node.id == self.old else node


def _as_equation(test: ast.expr) -> str:
    """`f(x) == 3` as it is; `abs(f(x) - 3) < 1e-6` rounded; `f(x)` and `not f(x)` as truth."""
    match test:
        case ast.Compare(
            left=ast.Call(
                func=ast.Name("abs"), args=[ast.BinOp(left=one, op=ast.Sub(), right=wanted)]
            ),
            ops=[ast.Lt() | ast.LtE()],
        ):
            return f"assert round({ast.unparse(one)}, 6) == {ast.unparse(wanted)}"
        case ast.UnaryOp(op=ast.Not(), operand=one):
            return f"assert bool({ast.unparse(one)}) == False"
        case ast.Call():
            return f"assert bool({ast.unparse(test)}) == True"
        case _:
            return f"assert {ast.unparse(test)}"
