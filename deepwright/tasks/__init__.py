"""Verifiable problems: question, check, rule rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from deepwright.files import ROW_FILES
from deepwright.refusals import expect, nearest, quoted, require
from deepwright.tasks.calc3 import Calc3
from deepwright.tasks.countdown import Countdown
from deepwright.tasks.files import DataFile
from deepwright.tasks.gym import ReasoningGym, set_options
from deepwright.tasks.layouts import BENCHMARKS
from deepwright.tasks.needle import Needle
from deepwright.tasks.requests import Requests
from deepwright.tasks.self_checks import SelfCheck, self_checks, tally
from deepwright.tasks.task import (
    Problem,
    Sampled,
    Score,
    Split,
    Task,
    Verdict,
    safe_score,
    score_all,
)
from deepwright.tasks.user_reward import UserReward

TASKS = {"countdown": Countdown, "calc3": Calc3, "needle": Needle, "requests": Requests}
# Asked for as FAMILY:MEMBER.
FAMILIES = {"reasoning_gym": ReasoningGym, "file": DataFile} | dict.fromkeys(BENCHMARKS, DataFile)
OPTION_TYPES = {  # what an option is called in a dataclass -> what it may be, in words
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a text"),
    "Layout": ((str,), "a text"),
    "Reading | None": ((str,), "a text"),
    "bool": ((bool,), "true or false"),
    "tuple[str, ...]": ((list, tuple), "a list of texts"),
}

__all__ = [
    "FAMILIES", "TASKS", "Calc3", "Countdown", "DataFile", "Needle", "Problem", "ReasoningGym", "Sampled", "Score", "SelfCheck", "Split", "Task",
    "UserReward", "Verdict", "make_task", "safe_score", "score_all", "self_checks", "tally",
]  # fmt: skip


def make_task(name: str, seed: int = 0, *, reward: str = "", **options: object) -> Task:
    """The task called `name`: one of TASKS, `reasoning_gym:SET`, `file:PATH`, or a file of a set by
    its name, `aime:PATH` (one of BENCHMARKS).

    Options are its dataclass fields, and for reasoning-gym the set's own settings too; an unknown
    name or option is refused with the nearest one. `reward`: FILE.py:FUNCTION, paid instead of the
    task's own."""
    family, _, member = name.partition(":")
    kind = FAMILIES.get(family) if member else TASKS.get(name)
    if kind is None:
        hint = f"; did you mean file:{name}?" if name.endswith(ROW_FILES) else ""
        raise ValueError(
            f"task is {quoted(name)}, expected one of {sorted(TASKS)}, 'reasoning_gym:SET', 'file:PATH',"
            f" or PATH behind one of {', '.join(sorted(BENCHMARKS))}{hint}"
        )
    known = [
        field.name
        for field in fields(kind)
        if field.name not in ("seed", "set", "path", "config", "benchmark")
    ]
    own = []
    if kind is ReasoningGym:
        require("reasoning_gym", f"task {name!r}")
        own = set_options(member)
    for option in options:
        if option not in (*known, *own):
            raise ValueError(
                f"option {option!r} of task {name!r} is unknown{nearest(option, (*known, *own))}; all: {[*known, *own]}"
            )
    given = {option: value for option, value in options.items() if option in known}
    _check_types(name, kind, given)
    if family in BENCHMARKS:
        given["benchmark"] = family
    if kind is ReasoningGym:
        given["config"] = {
            option: value for option, value in options.items() if option not in known
        }
    task = kind(member, seed=seed, **given) if member else kind(seed=seed, **given)
    return UserReward(task, reward) if reward else task


def _check_types(name: str, kind: type, given: Mapping[str, object]) -> None:
    types = {field.name: str(field.type) for field in fields(kind)}
    for option, value in given.items():
        wanted, words = OPTION_TYPES.get(types[option], ((object,), ""))
        fits = isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))
        if isinstance(value, (list, tuple)):
            fits = fits and all(isinstance(member, str) for member in value)
        expect(fits, f"option {option!r} of task {name!r}", value, words)
