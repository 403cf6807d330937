"""Unit tests as published sets of programming problems keep them, made into ours, and how each set
is asked.

Expected values must be literals, since they never enter the sandbox. A test that holds none (a loop
over random numbers), or that is pickled, is left unread: `Judged.unread` says so, and the row is
judged by the rest. Nothing is ever unpickled or run here; tests are read as syntax.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deepwright.files import parse_json
from deepwright.refusals import quoted
from deepwright.tasks.code import Tests, read_tests

Row = Mapping[str, Any]
LONGEST_TEST = 1_000_000  # characters of a test that is read as Python
SIDES = ("input", "output")
PICKLED = "private tests are pickled, and nothing is unpickled here"
NO_LITERAL = "tests that compare with no literal"


@dataclass(frozen=True)
class Judged:
    """Tests of a row; `unread`: which others it has, or ''."""

    tests: Tests
    unread: str = ""


# ---- each layout's tests


def plain(row: Row) -> Judged:
    """Our own column `tests`: asserts, {"input", "output"} rows, or inputs and outputs."""
    tests = _decoded(row["tests"], "tests")
    return _cases(tests, row) if isinstance(tests, Mapping) else _judged(tests, setup_of(row))


def mbpp(row: Row) -> Judged:
    return _judged(row["test_list"], setup_of(row))


def apps(row: Row) -> Judged:
    return _cases(_decoded(row["input_output"], "input_output"), row)


def verl(row: Row) -> Judged | None:
    """Programs have their cases, as JSON, where other rows have the answer."""
    truth = row["reward_model"]
    truth = truth.get("ground_truth") if isinstance(truth, Mapping) else None
    if isinstance(truth, str) and truth.lstrip().startswith("{"):
        truth = parse_json(truth, "reward_model.ground_truth")
    return _cases(truth, row) if isinstance(truth, Mapping) else None


def livecodebench(row: Row) -> Judged:
    """Public and private tests; of the published file the private ones are pickled."""
    cases, unread = list(_listed(row.get("public_test_cases"))), ""
    private = row.get("private_test_cases")
    if isinstance(private, str) and not private.lstrip().startswith("["):
        unread = PICKLED if private.strip() else ""
    else:
        cases += _listed(private)
    kinds = {str(case.get("testtype", "stdin")) for case in cases}
    if len(kinds) != 1:
        raise ValueError(f"its tests are of the kinds {quoted(sorted(kinds), 60)}, expected one")
    table: dict[str, Any] = {f"{side}s": [case.get(side) for case in cases] for side in SIDES}
    if kinds == {"functional"}:
        about = _decoded(row.get("metadata"), "metadata")
        table["fn_name"] = _named(about.get("func_name") if isinstance(about, Mapping) else about)
    return Judged(_cases(table, row).tests, unread)


def humaneval(row: Row) -> Judged:
    """The asserts of its function `check`, whose argument is the program's function."""
    check = _check_function(row["test"])
    argument = check.args.args[0].arg
    name = row.get("entry_point") or argument
    called = _named(name)
    found = list(_asserts(check, argument, called))
    read = [test for test in found if test]
    if not read:
        raise ValueError(f"no answer: {NO_LITERAL}")
    return _judged(read, row["prompt"], NO_LITERAL if len(read) < len(found) else "")


def setup_of(row: Row) -> str:
    """What MBPP's rows run before the program: imports and a text."""
    imports, code = row.get("test_imports") or (), row.get("test_setup_code") or ""
    lines = [imports] if isinstance(imports, str) else list(imports)
    if not all(isinstance(line, str) for line in (*lines, code)):
        raise ValueError(f"test_imports or test_setup_code are no texts: {quoted(lines, 60)}")
    return "\n".join(line for line in (*lines, code) if line.strip())


# ---- their reference programs, which nothing but a person reads


def program(row: Row, cell: object) -> str:
    """A text, or the first of a list of them (also as JSON); '' where there is none."""
    found = _decoded(cell, "solutions") if isinstance(cell, str) and cell[:1] == "[" else cell
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, str) else ""


def completed(row: Row, cell: object) -> str:
    return f"{row['prompt']}{program(row, cell)}"


# ---- how they are asked


def ask_program(row: Row, question: str) -> str:
    """With the code to begin with, or the function's name, or where input and output go."""
    starter = row.get("starter_code")
    if isinstance(starter, str) and starter.strip():
        return f"{question}\nBegin with this code:\n```python\n{starter.strip()}\n```"
    cases = row.get("input_output")
    cases = _decoded(cases, "input_output") if cases else {}
    if isinstance(cases, Mapping) and cases.get("fn_name"):
        return f"{question}\nWrite the function `{cases['fn_name']}`."
    return f"{question}\nThe program reads its input from stdin and prints to stdout."


def ask_completion(row: Row, question: str) -> str:
    return f"Complete this Python function; write all of it.\n```python\n{question}\n```"


def ask_by_tests(row: Row, question: str) -> str:
    """MBPP's tests say what the function is called: they are shown, as in its paper."""
    return "\n".join([question, "The program must pass these tests:", *map(str, row["test_list"])])


# ---- cases: inputs beside outputs


def _cases(table: object, row: Row) -> Judged:
    """{"inputs": [..], "outputs": [..]}, of stdin and stdout or, with "fn_name", of a function."""
    if not isinstance(table, Mapping):
        raise ValueError(f"its tests are {quoted(table, 60)}, expected inputs and outputs")
    inputs, outputs = table.get("inputs"), table.get("outputs")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and inputs):
        raise ValueError(f"its tests have the inputs {quoted(inputs, 60)}, expected a list")
    if len(inputs) != len(outputs):
        raise ValueError(f"its tests have {len(inputs)} inputs and {len(outputs)} outputs")
    if table.get("fn_name"):
        tests: list[Any] = _calls(table["fn_name"], inputs, outputs, row)
    else:
        tests = [{"input": _stream(a), "output": _stream(b)} for a, b in zip(inputs, outputs)]
    return _judged(tests, setup_of(row))


def _stream(value: object) -> str:
    """What goes through stdin or stdout; some sets keep it as a list of lines."""
    lines = value if isinstance(value, list) else [value]
    if not all(isinstance(line, str) for line in lines):
        raise ValueError(f"input or output is {quoted(value, 60)}, expected a text")
    return "\n".join(lines)


def _calls(name: object, inputs: list[Any], outputs: list[Any], row: Row) -> list[str]:
    """Asserts. Arguments are a list, or JSON line by line. APPS wraps each output in a list."""
    called = _named(name)
    if "class Solution" in f"{row.get('starter_code')}{row.get('question')}":
        called = f"Solution().{called}"
    texts = all(isinstance(given, str) for given in inputs)
    if texts:
        inputs = [_lines_of_json(given) for given in inputs]
        outputs = [parse_json(o, "an output") if isinstance(o, str) else o for o in outputs]
    elif all(isinstance(output, list) and len(output) == 1 for output in outputs):
        outputs = [output[0] for output in outputs]
    if not all(isinstance(given, list) for given in inputs):
        raise ValueError(f"arguments are {quoted(inputs, 60)}, expected a list for each call")
    return [
        f"assert {called}({', '.join(map(repr, given))}) == {wanted!r}"
        for given, wanted in zip(inputs, outputs)
    ]


def _lines_of_json(text: str) -> list[Any]:
    return [parse_json(line, "an input") for line in text.splitlines() if line.strip()]


def _named(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"the function's name is {quoted(name, 60)}, expected a name of Python")
    return name


# ---- HumanEval's asserts


def _check_function(test: object) -> ast.FunctionDef:
    if not isinstance(test, str) or len(test) > LONGEST_TEST:
        raise ValueError(f"test is {quoted(test, 60)}, expected a text of a function `check`")
    try:
        body = ast.parse(test).body
    except SyntaxError as error:
        raise ValueError(f"test is no Python: {error.msg}") from None
    checks = [one for one in body if isinstance(one, ast.FunctionDef) and one.name == "check"]
    if len(checks) != 1 or not checks[0].args.args:
        raise ValueError(f"test has {len(checks)} functions `check`, expected one with an argument")
    return checks[0]


def _asserts(check: ast.FunctionDef, argument: str, called: str) -> Iterator[str]:
    """Each test as `assert call == literal`; '' for one that has no such form."""
    for statement in check.body:
        if isinstance(statement, ast.Assert):
            if isinstance(statement.test, ast.Constant):  # "assert True" stands for no test
                continue
            yield _as_equation(_Renamed(argument, called).visit(statement.test), called)
        elif not isinstance(
            statement, (ast.Assign, ast.Expr, ast.Import, ast.ImportFrom, ast.Pass)
        ):
            yield ""


@dataclass
class _Renamed(ast.NodeTransformer):
    old: str
    new: str

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.new, node.ctx) if node.id == self.old else node


def _as_equation(test: ast.expr, called: str) -> str:
    """`f(x) == 3` as it is; `abs(f(x) - 3) < 1e-6` rounded; `f(x)` and `not f(x)` as truth."""
    left, right = ast.unparse(test), "True"
    match test:
        case ast.Compare(left=one, ops=[ast.Eq() | ast.Is()], comparators=[other]):
            left, right = ast.unparse(one), _literal(other)
        case ast.Compare(
            left=ast.Call(
                func=ast.Name("abs"), args=[ast.BinOp(left=one, op=ast.Sub(), right=other)]
            ),
            ops=[ast.Lt() | ast.LtE()],
        ) if _literal(other):
            left, right = f"round({ast.unparse(one)}, 6)", _literal(other)
        case ast.UnaryOp(op=ast.Not(), operand=one):
            left, right = f"bool({ast.unparse(one)})", "False"
        case ast.Call():
            left = f"bool({left})"
        case _:
            return ""
    return f"assert {left} == {right}" if right and f"{called}(" in left else ""


def _literal(node: ast.expr) -> str:
    """The text of a literal, also of one inside `tuple(..)` and its like; '' for all else."""
    match node:
        case ast.Call(func=ast.Name("tuple" | "list" | "set" as kind), args=[inner], keywords=[]):
            make = {"tuple": tuple, "list": list, "set": set}[kind]
        case _:
            inner, make = node, None
    try:
        value = ast.literal_eval(inner)
        return repr(make(value)) if make else ast.unparse(inner)
    except (ValueError, TypeError, SyntaxError):
        return ""


# ---- cells


def _decoded(value: object, name: str) -> Any:
    """A cell that may be the text of JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return parse_json(value, name)
    return value


def _listed(value: object) -> list[Mapping[str, Any]]:
    cases = _decoded(value, "its tests") or []
    if not isinstance(cases, list) or not all(isinstance(case, Mapping) for case in cases):
        raise ValueError(f"its tests are {quoted(cases, 60)}, expected a list of objects")
    return cases


def _judged(tests: Any, setup: str, unread: str = "") -> Judged:
    """Refuses what would take minutes to read as Python."""
    listed = tests if isinstance(tests, list) else [tests]
    if sum(len(test) for test in listed if isinstance(test, str)) > LONGEST_TEST:
        raise ValueError(f"its tests are longer than {LONGEST_TEST:,} characters")
    return Judged(read_tests(tests, setup), unread)
