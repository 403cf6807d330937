"""Verifiable problems: question, check, rule rewards."""

from __future__ import annotations

from dataclasses import fields

from deepwright.refusals import nearest, require
from deepwright.tasks.calc3 import Calc3
from deepwright.tasks.countdown import Countdown
from deepwright.tasks.files import DataFile
from deepwright.tasks.gym import ReasoningGym, set_options
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

TASKS = {"countdown": Countdown, "calc3": Calc3, "requests": Requests}
FAMILIES = {"reasoning_gym": ReasoningGym, "file": DataFile}  # asked for as FAMILY:MEMBER

__all__ = [
    "FAMILIES", "TASKS", "Calc3", "Countdown", "DataFile", "Problem", "ReasoningGym", "Sampled", "Score", "SelfCheck", "Split", "Task",
    "UserReward", "Verdict", "make_task", "safe_score", "score_all", "self_checks", "tally",
]  # fmt: skip


def make_task(name: str, seed: int = 0, *, reward: str = "", **options: object) -> Task:
    """The task called `name`: one of TASKS, `reasoning_gym:SET` or `file:PATH`. Options are its dataclass fields, and for reasoning-gym the set's
    own settings too; an unknown name or option is refused with the nearest one. `reward`: FILE.py:FUNCTION, paid instead of the task's own."""
    family, _, member = name.partition(":")
    kind = FAMILIES.get(family) if member else TASKS.get(name)
    if kind is None:
        raise ValueError(
            f"task is {name!r}, expected one of {sorted(TASKS)}, 'reasoning_gym:SET' or 'file:PATH'"
        )
    known = [
        field.name for field in fields(kind) if field.name not in ("seed", "set", "path", "config")
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
    if kind is ReasoningGym:
        given["config"] = {
            option: value for option, value in options.items() if option not in known
        }
    try:
        task = kind(member, seed=seed, **given) if member else kind(seed=seed, **given)
    except TypeError as error:  # a text where a number is compared
        raise ValueError(
            f"task {name!r} was given {given or options}, of which one has the wrong type: {error}"
        ) from None
    return UserReward(task, reward) if reward else task
