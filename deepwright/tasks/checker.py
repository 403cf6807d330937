"""Runs inside a sandbox: tests as they were written, which ask a program that is elsewhere.

The names that the tests use and do not define are the program's. Each is a `Remote`, whose calls
leave as a line of JSON ({"ask": request} of `calls.py`) and come back as plain data, so what the
tests expect, and how they compare, is never where the program is. The last line is the verdict:
{"verdict": true, false or null, "why": ..}; null where the tests cannot be judged by.

In assertions `==` is `plain.same`. Objects of the program's own classes can be used, but they are
equal to nothing and not true: they would say what they like about themselves.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from deepwright.tasks.calls import changes, moved_away, read
from deepwright.tasks.plain import Plain, decode, encode, same

TESTS = "tests.py"
_SAME, _COUNT = "_deepwright_same", "_deepwright_count"
_OWN_FAULTS = (ImportError, NameError, SyntaxError)  # that no value of a program leads to


class Unjudgeable(BaseException):
    """The tests do what no verdict can be drawn from."""


class Line:
    """The way to the judge and, through it, to the program."""

    def __init__(self, answers: Any, requests: Any) -> None:
        self.answers, self.requests = answers, requests
        self.asked = self.asserted = 0

    def say(self, message: dict[str, Any]) -> None:
        self.requests.write(json.dumps(message).encode() + b"\n")
        self.requests.flush()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        self.say({"ask": request})
        line = self.answers.readline()
        if not line:  # the program is gone; the judge knows why
            os._exit(0)
        return json.loads(line)

    def count(self, value: Any) -> Any:
        self.asserted += 1
        return value


class Remote:
    """Something of the program's: what is done with it is done there."""

    def __init__(self, line: Line, target: dict[str, Any]) -> None:
        self.__dict__.update(_line=line, _target=target)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = [_given(one) for one in args]
        named = {name: _given(one) for name, one in kwargs.items()}
        reply = self._line.ask({"call": self._target, "args": given, "kwargs": named})
        value = _taken(self._line, reply)
        for place, tree in reply.get("after", {}).items():
            _change(args[int(place)], _decoded(self._line, tree))
        return value

    def __getattr__(self, name: str) -> Any:
        return _taken(self._line, self._line.ask({"get": self._target, "name": name}))

    def __setattr__(self, name: str, value: Any) -> None:
        request = {"set": self._target, "name": name, "value": _given(value)}
        _taken(self._line, self._line.ask(request))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Remote):
            raise Unjudgeable("compares two objects of the program's own classes")
        return False

    def __bool__(self) -> bool:
        raise AssertionError("an object of the program's own class is neither true nor false")

    __hash__ = object.__hash__


def _forwarded(name: str) -> Any:
    return lambda self, *args: Remote.__getattr__(self, name)(*args)


for _name in ("len", "iter", "next", "getitem", "setitem", "contains", "str", "repr"):
    setattr(Remote, f"__{_name}__", _forwarded(f"__{_name}__"))


def _given(value: Any) -> Plain:
    def other(value: Any) -> Plain:
        if isinstance(value, Remote):
            return value.__dict__["_target"]
        raise Unjudgeable(f"hands over a {type(value).__name__}, which is no plain data")

    return encode(value, other)


def _taken(line: Line, reply: dict[str, Any]) -> Any:
    if "raised" in reply:
        kind = getattr(builtins, str(reply["raised"]), None)
        known = isinstance(kind, type) and issubclass(kind, Exception)
        error = (kind if known else type(str(reply["raised"]), (Exception,), {}))(reply["text"])
        error.by_the_program = True
        raise error
    return _decoded(line, reply["value"])


def _decoded(line: Line, tree: Plain) -> Any:
    return decode(tree, lambda target: Remote(line, target))


def _change(old: Any, new: Any) -> None:
    """Makes an argument what the call has made of its copy."""
    if changes(old) and type(new) is type(old):
        old.clear()
        (old.extend if isinstance(old, list) else old.update)(new)


class _Compared(ast.NodeTransformer):
    """Counts assertions and compares in them by `plain.same`."""

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        self.generic_visit(node)
        node.test = _called(_COUNT, self._test(node.test))
        return node

    def _test(self, node: ast.expr) -> ast.expr:
        match node:
            case ast.BoolOp():
                node.values = [self._test(value) for value in node.values]
            case ast.UnaryOp(op=ast.Not()):
                node.operand = self._test(node.operand)
            case ast.Compare(left, [ast.Eq()], [right]):
                return _called(_SAME, *((right, left) if is_literal(left) else (left, right)))
            case ast.Compare(left, [ast.NotEq()], [right]):
                return ast.UnaryOp(ast.Not(), _called(_SAME, left, right))
        return node


def _called(name: str, *args: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return False
    return True


def _same(got: Any, wanted: Any) -> bool:
    """Plain data as `plain.same` has it; what the tests have made themselves as they compare it."""
    try:
        return same(*(encode(one, _refuse) for one in (got, wanted)))
    except LookupError:
        return bool(got == wanted)


def _refuse(value: Any) -> Plain:
    raise LookupError(type(value).__name__)


def verdict(text: str, names: Sequence[str], line: Line) -> tuple[bool | None, str]:
    """What the tests say of the program behind `line`."""
    space: dict[str, Any] = {"__name__": "tests", _SAME: _same, _COUNT: line.count}
    space |= {name: Remote(line, {"name": name}) for name in names}
    try:
        tree = ast.fix_missing_locations(_Compared().visit(ast.parse(text)))
        exec(compile(tree, TESTS, "exec"), space)  # noqa: S102 - what this sandbox is for
    except Unjudgeable as error:
        return None, f"its tests cannot be judged by: {_where(error, text)}{error}"
    except Exception as error:
        if isinstance(error, _OWN_FAULTS) and not hasattr(error, "by_the_program"):
            return None, f"its tests are broken: {_where(error, text)}{error}"
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return False, _where(error, text) + (f"{kind}{error}" or "does not hold")
    if not line.asserted or not line.asked:
        return None, "its tests assert nothing about the program"
    return True, f"passes {line.asserted} assertions"


def _where(error: BaseException, text: str) -> str:
    """The line of the tests that an error comes from."""
    trace, number = error.__traceback__, 0
    while trace:
        if trace.tb_frame.f_code.co_filename == TESTS:
            number = trace.tb_lineno
        trace = trace.tb_next
    return f"{text.splitlines()[number - 1].strip()[:80]}: " if number else ""


def main() -> None:
    names = sys.argv[1:]
    line = Line(*moved_away())
    right, why = verdict(read(TESTS), names, line)
    line.say({"verdict": right, "why": why[:300]})
