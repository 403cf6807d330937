"""Tests of programs as data files hold them, read into what is judged without trusting a program.

Three forms. `streams`: what goes in and what must come out. `calls`: an expression that is
evaluated where the program is, and the value that it must have, compared elsewhere. `script`: any
other code that asserts (a HumanEval `check`, comparisons, loops), which runs in a sandbox of its
own and asks the program from there: a program meets the arguments of a call, and never what is
expected of it.

What no verdict can be drawn from is refused by name: code that asserts nothing, tests that use
nothing of the program, a function of tests that nothing calls.
"""

from __future__ import annotations

import ast
import builtins
import json
import symtable
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepwright.refusals import expect, quoted
from deepwright.tasks.checker import is_literal
from deepwright.tasks.plain import Plain, encode

LONGEST = 4_000_000  # characters of code
_CHECK = "check"  # the name of HumanEval's functions of tests


@dataclass(frozen=True)
class Call:
    """`expression` must be `wanted` (plain data), as `plain.same` compares by `how`."""

    expression: str
    wanted: Plain
    how: str = "exact"


@dataclass(frozen=True)
class Tests:
    """One of `calls`, `streams` (stdin, expected stdout) and `script`. `names`: what calls and
    script use of the program. `setup`: code that calls and program may use. `given`: what this was read from."""

    calls: tuple[Call, ...] = ()
    streams: tuple[tuple[str, str], ...] = ()
    script: str = ""
    names: tuple[str, ...] = ()
    setup: str = ""
    given: Any = field(default=None, repr=False, compare=False)


def read_tests(tests: object, setup: str | Sequence[str] = "", *, entry_point: str = "") -> Tests:
    """Tests in the layouts of MBPP (assert statements), HumanEval (`def check(candidate)`, with the
    `entry_point` that it is called with), APPS and LiveCodeBench ({"inputs", "outputs"}, rows of
    {"input", "output"}; with `fn_name`, or an entry point, what goes in are arguments), as objects
    or as the JSON text of them. `setup`: code that stands before the tests.

    ValueError naming the first test that no verdict can be drawn from."""
    try:
        return _read(tests, setup, entry_point)
    except RecursionError:
        raise ValueError(f"tests {quoted(tests)} are nested too deeply") from None


def _read(tests: object, setup: str | Sequence[str], entry_point: str) -> Tests:
    setup = setup if isinstance(setup, str) else "\n".join(setup)
    before = _before(_parsed(setup, "the set-up of the tests"), entry_point)
    found = _unpacked(tests)
    if isinstance(found, Mapping):
        entry_point = str(found.get("fn_name") or entry_point)
        found = _pairs(found)
    expect(bool(found) and isinstance(found, (str, Sequence)), "tests", found, "a list or code")
    if isinstance(found[0], Mapping):
        read = _read_pairs(found, entry_point)
    else:
        text = found if isinstance(found, str) else "\n".join(map(_statement, found))
        read = _read_code(text, before, entry_point)
    return Tests(**{"setup": ast.unparse(before), "given": tests} | read)


def _before(setup: ast.Module, entry_point: str) -> ast.Module:
    """The set-up without what only stands for the program's own function: HumanEval's prompts."""
    kept = [node for node in setup.body if getattr(node, "name", None) != entry_point]
    return ast.Module(kept, [])


def _unpacked(tests: object) -> Any:
    """What a JSON text holds; all else, and code, as it is."""
    if isinstance(tests, str) and tests.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(tests)
        except (ValueError, RecursionError):
            return tests
    return tests


# ---- what goes in, what must come out


def _pairs(tests: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    inputs, outputs = tests.get("inputs"), tests.get("outputs")
    lists = all(isinstance(one, Sequence) and not isinstance(one, str) for one in (inputs, outputs))
    if not lists or len(inputs) != len(outputs):
        raise ValueError(f"tests are {quoted(tests)}, expected as many inputs as outputs")
    return [{"input": a, "output": b} for a, b in zip(inputs, outputs)]


def _read_pairs(rows: Sequence[Any], entry_point: str) -> dict[str, Any]:
    for row in rows:
        known = isinstance(row, Mapping) and {"input", "output"} <= row.keys()
        expect(known, "test", row, "an object with input and output")
    functional = {row.get("testtype", "functional" if entry_point else "stdin") for row in rows}
    if functional == {"functional"}:
        expect(entry_point.isidentifier(), "entry point of tests", entry_point, "a name")
        calls = tuple(_argument_call(row, entry_point) for row in rows)
        return {"calls": calls, "names": ("Solution", entry_point)}
    return {"streams": tuple((_lines(row["input"]), _lines(row["output"])) for row in rows)}


def _lines(value: object) -> str:
    if isinstance(value, Sequence) and all(isinstance(line, str) for line in value):
        return value if isinstance(value, str) else "\n".join(value)
    raise ValueError(f"test has {quoted(value)} as input or output, expected text")


def _argument_call(row: Mapping[str, Any], name: str) -> Call:
    """A call of a function, or a method of LeetCode's class. Texts hold a JSON value a line."""
    args, wanted = row["input"], row["output"]
    try:
        args = [json.loads(line) for line in args.splitlines()] if isinstance(args, str) else args
        wanted = json.loads(wanted) if isinstance(wanted, str) else wanted
    except (ValueError, RecursionError) as error:
        raise ValueError(f"test {quoted(row)} holds no JSON ({str(error)[:80]})") from None
    expect(isinstance(args, list), "arguments of a test", args, "a list")
    function = f"(Solution().{name} if 'Solution' in globals() else {name})"
    return Call(f"{function}(*{args!r})", encode(wanted), "printed")


# ---- code that asserts


def _statement(test: object) -> str:
    expect(isinstance(test, str), "test", test, "an assert statement")
    return test.strip()


def _read_code(text: str, setup: ast.Module, entry_point: str) -> dict[str, Any]:
    tree = _parsed(text, "test")
    calls = _calls(tree.body)
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if calls is None and entry_point and _CHECK in {node.name for node in checks}:
        calls = _calls_of_check(tree.body, checks, entry_point)
        text += f"\n{_CHECK}({entry_point})\n"
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise ValueError(f"test {quoted(text)} asserts nothing")
    script = f"{ast.unparse(setup)}\n{text}"
    names = _free_names(text if calls else script)
    if calls and not names:  # one row of MBPP asks for a function called sum
        calls = (*_defined(calls), *calls)
    elif not names:
        lacks = "; a function of tests needs an entry point" if checks else ""
        raise ValueError(f"test {quoted(text)} uses nothing of the program{lacks}")
    if calls:
        return {"calls": calls, "names": names}
    return {"script": script, "names": names, "setup": ast.unparse(_definitions(setup))}


def _definitions(setup: ast.Module) -> ast.Module:
    """What a program may see of a set-up that could hold expected values: no data."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    return ast.Module([node for node in setup.body if isinstance(node, kinds)], [])


def _parsed(text: str, what: str) -> ast.Module:
    if len(text) > LONGEST:
        raise ValueError(f"{what} {quoted(text)} is longer than {LONGEST:,} characters")
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{what} {quoted(text)} is not Python: {error}") from None


def _calls(statements: Sequence[ast.stmt]) -> tuple[Call, ...] | None:
    """The calls of assertions that all have the form `expression == literal`; None for others."""
    calls = [_call(statement) for statement in statements]
    return tuple(calls) if calls and None not in calls else None


def _call(statement: ast.stmt) -> Call | None:
    match statement:
        case ast.Assert(ast.Compare(left, [ast.Eq()], [right])):
            left, right = (right, left) if is_literal(left) else (left, right)
            how = "exact"
        case ast.Assert(ast.Compare(left, [ast.Is()], [ast.Constant(None | True | False)])):
            right, how = statement.test.comparators[0], "is"
        case _:
            return None
    if not is_literal(right) or is_literal(left):
        return None
    return Call(ast.unparse(left), encode(ast.literal_eval(right)), how)


def _defined(calls: Sequence[Call]) -> tuple[Call, ...]:
    """That the program itself defines what these calls call, which Python has too."""
    roots = [ast.parse(call.expression, mode="eval").body for call in calls]
    names = {
        root.func.id
        for root in roots
        if isinstance(root, ast.Call) and isinstance(root.func, ast.Name)
    }
    if not names:
        raise ValueError(f"test {calls[0].expression!r} uses nothing of the program")
    return tuple(Call(f"{name!r} in globals()", True, "is") for name in sorted(names))


def _calls_of_check(
    statements: Sequence[ast.stmt], functions: Sequence[ast.FunctionDef], entry_point: str
) -> tuple[Call, ...] | None:
    """Those of a function of tests that only asserts, with the program's name for its argument."""
    if len(functions) > 1 or [arg.arg for arg in functions[0].args.args] != ["candidate"]:
        return None
    if any(not isinstance(one, (ast.FunctionDef, ast.Assign)) for one in statements):
        return None
    for node in ast.walk(functions[0]):
        if isinstance(node, ast.Name) and node.id == "candidate":
            node.id = entry_point
    return _calls([one for one in functions[0].body if not _says_nothing(one)])


def _says_nothing(statement: ast.stmt) -> bool:
    """`assert True, "a message"` and texts, of which HumanEval has some."""
    match statement:
        case ast.Assert(ast.Constant(True)) | ast.Expr(ast.Constant()):
            return True
    return False


def _free_names(code: str) -> tuple[str, ...]:
    """The names that code uses and neither defines nor finds in Python."""
    top = symtable.symtable(code, "tests", "exec")
    used, tables = set(), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table is top):
                used.add(symbol.get_name())
    own = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    own |= {s.get_name() for s in top.get_symbols() if s.is_namespace()}
    return tuple(sorted(used - own - set(dir(builtins)) - {"__name__", "__file__"}))
