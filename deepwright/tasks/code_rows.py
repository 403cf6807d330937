"""Where published sets of programming problems keep their unit tests, and how each set is asked.

Of LiveCodeBench's published file the private tests are pickled. Nothing is ever unpickled: such a
row is judged by its public tests alone, and `Judged.unread` says so.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepwright.files import parse_json
from deepwright.refusals import expect, quoted
from deepwright.tasks.code_tests import Tests, read_tests

Row = Mapping[str, Any]
PICKLED = "private tests are pickled, and nothing is unpickled here"


@dataclass(frozen=True)
class Judged:
    """Tests of a row; `unread`: which others it has, or ''."""

    tests: Tests
    unread: str = ""


# ---- each layout's tests


def plain(row: Row) -> Judged:
    """Our own column `tests`: asserts, {"input", "output"} rows, or inputs and outputs."""
    tests = decoded(row["tests"], "tests")
    if isinstance(tests, Mapping):
        return _of_table(tests, setup_of(row))
    return Judged(read_tests(tests, setup_of(row), entry_point=_name(row, "entry_point")))


def mbpp(row: Row) -> Judged:
    return Judged(read_tests(row["test_list"], setup_of(row)))


def humaneval(row: Row) -> Judged:
    """`prompt` begins the program: what it imports and defines is there for all of it."""
    prompt = row["prompt"]
    expect(isinstance(prompt, str), "prompt", prompt, "the beginning of a program")
    last = re.findall(r"^def (\w+)", prompt, re.MULTILINE)[-1:]
    name = _name(row, "entry_point") or "".join(last)
    return Judged(read_tests(row["test"], prompt, entry_point=name))


def apps(row: Row) -> Judged:
    return _of_table(decoded(row["input_output"], "input_output"))


def verl(row: Row) -> Judged | None:
    """Programs have their cases, as JSON, where other rows have the answer."""
    truth = decoded(row["reward_model"], "reward_model")
    truth = truth.get("ground_truth") if isinstance(truth, Mapping) else None
    if isinstance(truth, str) and truth.lstrip().startswith("{"):
        truth = parse_json(truth, "reward_model.ground_truth")
    return _of_table(truth) if isinstance(truth, Mapping) else None


def livecodebench(row: Row) -> Judged:
    """Public and private tests: of a program's streams or, named in `metadata`, of a function."""
    private, unread = row.get("private_test_cases"), ""
    if isinstance(private, str) and not private.lstrip().startswith("["):
        private, unread = [], PICKLED if private.strip() else ""
    cases = [*_listed(row.get("public_test_cases")), *_listed(private)]
    about = decoded(row.get("metadata"), "metadata")
    return Judged(read_tests(cases, entry_point=_name(about, "func_name")), unread)


def _of_table(table: Any, setup: str = "") -> Judged:
    """{"inputs": [..], "outputs": [..]}; with "fn_name" they are a function's, and APPS then wraps
    each output in a list."""
    expect(isinstance(table, Mapping), "what its tests stand in", table, "inputs and outputs")
    outputs = table.get("outputs")
    wrapped = isinstance(outputs, list) and all(
        isinstance(output, list) and len(output) == 1 for output in outputs
    )
    if _name(table, "fn_name") and wrapped:
        table = {**table, "outputs": [output[0] for output in outputs]}
    return Judged(read_tests(table, setup))


def setup_of(row: Row) -> str:
    """What MBPP's rows run before the program: imports and a text."""
    imports, code = row.get("test_imports") or [], row.get("test_setup_code") or ""
    lines = [*(imports if isinstance(imports, list) else [imports]), code]
    if not all(isinstance(line, str) for line in lines):
        raise ValueError(f"test_imports or test_setup_code are no texts: {quoted(lines, 60)}")
    return "\n".join(line for line in lines if line.strip())


def _name(table: object, column: str) -> str:
    """Of a function; '' where there is none."""
    name = table.get(column) if isinstance(table, Mapping) else None
    if name is None or name == "":
        return ""
    known = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
    expect(known, column, name, "a name of Python")
    return str(name)


# ---- their reference programs, which nothing but a person reads


def program(row: Row, cell: object) -> str:
    """A text, or the first of a list of them (also as JSON); '' where there is none."""
    found = decoded(cell, "solutions") if isinstance(cell, str) and cell[:1] == "[" else cell
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
    cases = decoded(row.get("input_output"), "input_output")
    if isinstance(cases, Mapping) and cases.get("fn_name"):
        return f"{question}\nWrite the function `{cases['fn_name']}`."
    return f"{question}\nThe program reads its input from stdin and prints to stdout."


def ask_completion(row: Row, question: str) -> str:
    return f"Complete this Python function; write all of it.\n```python\n{question}\n```"


def ask_by_tests(row: Row, question: str) -> str:
    """MBPP's tests say what the function is called: they are shown, as in its paper."""
    tests = row["test_list"]
    lines = [tests] if isinstance(tests, str) else map(str, tests)
    return "\n".join([question, "The program must pass these tests:", *lines])


# ---- cells


def decoded(value: object, name: str) -> Any:
    """A cell that may be the text of JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return parse_json(value, name)
    return value


def _listed(value: object) -> list[Mapping[str, Any]]:
    cases = decoded(value, "its tests") or []
    if not isinstance(cases, list) or not all(isinstance(case, Mapping) for case in cases):
        raise ValueError(f"its tests are {quoted(cases, 60)}, expected a list of objects")
    return cases
