"""Runs inside a sandbox with a program: answers what it is asked of it, a line of JSON for each.

{"eval": text}, or what `checker.py` asks for: {"call": target, "args": [..], "kwargs": {..}},
{"get": target, "name": ..}, {"set": target, "name": .., "value": ..}, where a target is
{"name": ..} of the program or {"object": number} that it gave before. Answers: {"value": plain},
with {"after": {place: plain}} of what a call may have changed, or {"raised": class, "text": ..}.

Expected values never come in here, so nothing that the program does to Python or to these lines
can tell it what to answer. The texts of both come as files beside this package's own.
"""

from __future__ import annotations

import json
import os
import sys
import types
from typing import Any

from deepwright.tasks.plain import Plain, decode, encode

PROGRAM, SETUP = "program.py", "setup.py"


def main() -> None:
    requests, answers = moved_away()
    space = load()
    asked = Asked(space)
    for line in requests:
        answers.write(json.dumps(asked.answer(json.loads(line))).encode() + b"\n")
        answers.flush()


def moved_away() -> tuple[Any, Any]:
    """stdin and stdout, put where a program's input() and print() do not find them."""
    ends = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    sys.argv[:] = [PROGRAM]
    return ends


def read(name: str) -> str:
    with open(name, encoding="utf-8") as file:
        return file.read()


def load() -> dict[str, Any]:
    """The program's names. The set-up of its tests runs before it; after it where it must."""
    module = types.ModuleType("program")
    sys.modules["program"] = module  # dataclasses look it up
    setup, space = read(SETUP), module.__dict__
    try:
        exec(compile(setup, SETUP, "exec"), space)  # noqa: S102 - what this sandbox is for
        setup = ""
    except Exception:  # it uses what only the program defines
        pass
    exec(compile(read(PROGRAM), PROGRAM, "exec"), space)  # noqa: S102
    exec(compile(setup, SETUP, "exec"), space)  # noqa: S102
    return space


class Asked:
    """A loaded program, and the objects that it gave out because they are no plain data."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.space, self.objects = space, []

    def answer(self, request: dict[str, Any]) -> dict[str, Plain]:
        try:
            if "eval" in request:
                return {"value": encode(eval(request["eval"], self.space))}  # noqa: S307
            if "call" in request:
                return self.call(request)
            target = self.found(request.get("get") or request["set"])
            if "get" in request:
                return {"value": self.given(getattr(target, request["name"]))}
            setattr(target, request["name"], self.value(request["value"]))
            return {"value": None}
        except Exception as error:
            return {"raised": type(error).__name__, "text": str(error)[:200]}

    def call(self, request: dict[str, Any]) -> dict[str, Plain]:
        args = [self.value(tree) for tree in request["args"]]
        kwargs = {name: self.value(tree) for name, tree in request["kwargs"].items()}
        value = self.given(self.found(request["call"])(*args, **kwargs))
        after = {place: self.given(one) for place, one in enumerate(args) if changes(one)}
        return {"value": value, "after": after}

    def found(self, target: dict[str, Any]) -> Any:
        if "object" in target:
            return self.objects[target["object"]]
        name = target["name"]
        if name not in self.space:
            raise NameError(f"name {name!r} is not defined")
        return self.space[name]

    def value(self, tree: Plain) -> Any:
        return decode(tree, self.found)

    def given(self, value: Any) -> Plain:
        return encode(value, self.kept)

    def kept(self, value: Any) -> Plain:
        self.objects.append(value)
        return {"object": len(self.objects) - 1}


def changes(value: Any) -> bool:
    """Whether a call can have changed what it was given."""
    return type(value) in (list, dict, set)
