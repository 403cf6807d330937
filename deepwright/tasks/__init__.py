"""Verifiable problems: question, check, rule rewards."""

from __future__ import annotations

import difflib
from dataclasses import fields

from deepwright.tasks.arithmetic import Arithmetic
from deepwright.tasks.countdown import Countdown
from deepwright.tasks.self_checks import SelfCheck, self_checks, tally
from deepwright.tasks.task import Problem, Score, Split, Task, Verdict, safe_score

TASKS = {"countdown": Countdown, "arithmetic": Arithmetic}

__all__ = [
    "TASKS", "Arithmetic", "Countdown", "Problem", "Score", "SelfCheck", "Split", "Task", "Verdict", "make_task", "safe_score",
    "self_checks", "tally",
]  # fmt: skip


def make_task(name: str, seed: int = 0, **options: object) -> Task:
    """The task called `name`. Options are its dataclass fields; an unknown name or option is refused with the nearest one."""
    if name not in TASKS:
        raise ValueError(f"task is {name!r}, expected one of {sorted(TASKS)}")
    known = [field.name for field in fields(TASKS[name]) if field.name != "seed"]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"option {option!r} of task {name!r} is unknown, did you mean {near!r}? All: {known}")
    return TASKS[name](seed=seed, **options)
