"""The procedural sets of the package reasoning-gym by name, with its scorers hardened.

A set's own scorer decides, in a confined process, under four rules that the originals lack (they pay a share of the reward for an answer that
contains the right one, and some pay all of it): only the full score counts; where a scorer hands the answer to Python, `eval` reads
literals alone, and sympy sees only names that the reference has; an answer far longer than the reference is not looked at; and a scorer that pays
for one of a few plainly wrong answers is not trusted at all: then only the reference itself, blanks aside, is right. Items are made by position,
held-out ones first, and a training item with the question of a held-out one is replaced.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deepwright.refusals import nearest, require
from deepwright.tasks.answers import same_number, strange
from deepwright.tasks.pool import shared_pool
from deepwright.tasks.task import ChatTask, Layout, Problem, Reading, Split, framed

_MAKE_SECONDS = 60.0  # for an item: some sets search long
_TRIES = 8  # positions that a training item may fall on before its set counts as too small
_SYMPY_NAMES = {"sin", "cos", "tan", "exp", "log", "sqrt", "pi", "E", "Abs"}


@dataclass(frozen=True)
class ReasoningGym(ChatTask):
    """`set` with its own settings in `config`. `by` names an entry of an item's metadata that kinds are reported under."""

    set: str
    seed: int = 0
    train: int = 2000
    held_out: int = 200
    examples: int = 1
    by: str = ""
    layout: Layout = "boxed"
    format_reward: float = 0.1
    reading: Reading | None = None
    seconds: float = 5.0
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        require("reasoning_gym", f"task {self.name!r}")
        super().__post_init__()
        assert self.source

    @property
    def name(self) -> str:
        return f"reasoning_gym:{self.set}"

    @cached_property
    def settings(self) -> dict[str, Any]:
        return {**self.config, "seed": self.seed * 1_000_003 % 2**31}

    @cached_property
    def source(self) -> str:
        """The code of the set's module. Also makes it once, so that a bad setting is said now."""
        import reasoning_gym

        try:
            return inspect.getsource(
                sys.modules[
                    type(reasoning_gym.create_dataset(self.set, **self.settings)).__module__
                ]
            )
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(f"{self.name!r} refuses {dict(self.config)}: {error}") from None

    @cached_property
    def _items(self) -> dict[int, dict[str, Any]]:
        return {}

    def items(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Items by position, made in a worker: its string hashes are fixed, on which the items of some sets depend."""
        missing = [at for at in positions if at not in self._items]
        config = json.dumps(
            self.settings | {"size": self.held_out + self.examples + _TRIES * self.train},
            sort_keys=True,
        )
        jobs = [
            {"set": self.set, "config": config, "index": at, "seconds": _MAKE_SECONDS}
            for at in missing
        ]
        for at, outcome in zip(
            missing, shared_pool("reasoning_gym", self.seconds).run(jobs), strict=True
        ):
            if outcome.error:
                raise ValueError(f"{self.name!r} could not make item {at}: {outcome.error}")
            self._items[at] = outcome.value
        return [self._items[at] for at in positions]

    @cached_property
    def reserved(self) -> dict[str, str]:
        """Question -> answer of the items that are held out or, after them, shown as examples."""
        return {
            item["question"]: item["answer"]
            for item in self.items(range(self.held_out + self.examples))
        }

    def problem(self, i: int, split: Split) -> Problem:
        position = self.place(i, split)
        if split == "train":
            places = (
                self.held_out + self.examples + position + turn * self.train
                for turn in range(_TRIES)
            )
            position = next(
                (at for at in places if self.items([at])[0]["question"] not in self.reserved), -1
            )
            if position < 0:
                raise ValueError(
                    f"{self.name!r} has too few different questions for held_out = {self.held_out}"
                )
        (item,) = self.items([position])
        shown = self.items(range(self.held_out, self.held_out + self.examples))
        examples = [
            (one["question"], framed(self.layout, "Answer:", one["answer"]))
            for one in shown
            if one["answer"]
        ]
        kind = f"{self.by} {item['metadata'][self.by]}" if self.by in item["metadata"] else self.set
        messages = self.conversation(item["question"], examples)
        return Problem(i, item["question"], item["answer"], kind, messages, {"position": position})

    def judge(
        self, problems: Sequence[Problem], answers: Sequence[str]
    ) -> list[tuple[bool | None, str]]:
        return [
            self._verdict(*one)
            for one in zip(problems, answers, self._values(problems, answers), strict=True)
        ]

    def _verdict(
        self, problem: Problem, answer: str, value: float | str
    ) -> tuple[bool | None, str]:
        if problem.answer and answer.split() == problem.answer.split():
            return True, "is the reference"
        if isinstance(value, str):
            return (None if value.startswith("raised") or "process" in value else False), value
        if value >= 1 and self.distrusted:
            return False, f"not the reference; the scorer is not trusted, for it {self.distrusted}"
        return value >= 1, f"scored {value:g}"

    def _values(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[float | str]:
        """The scorer's values, or why there is none."""
        config = json.dumps(self.settings, sort_keys=True)
        refused = [
            self._refused(answer, problem.answer)
            for problem, answer in zip(problems, answers, strict=True)
        ]
        jobs = {}
        for i, (problem, answer, why) in enumerate(zip(problems, answers, refused)):
            if not why:
                at = problem.columns["position"]
                jobs[i] = {
                    "set": self.set,
                    "config": config,
                    "index": at,
                    "entry": self.items([at])[0]["entry"],
                    "answer": answer.strip(),
                }
        outcomes = dict(
            zip(jobs, shared_pool("reasoning_gym", self.seconds).run(list(jobs.values())))
        )
        return [why or outcomes[i].error or outcomes[i].value for i, why in enumerate(refused)]

    def _refused(self, answer: str, reference: str) -> str:
        if len(answer) > 200 + 4 * max(len(reference), 400):
            return "far longer than an answer"
        if why := strange(answer, reference):
            return why
        if "sympy" in self.source and "parse_expr(" in self.source:
            names = (
                set(re.findall(r"[^\W\d]\w*", answer))
                - _SYMPY_NAMES
                - set(re.findall(r"[^\W\d]\w*", reference))
            )
            if names or "__" in answer or re.search(r"\.\s*[^\W\d]|[\[\]{}'\"@:;=!]", answer):
                return "no expression in the names of the reference"
        return ""

    @cached_property
    def distrusted(self) -> str:
        """What plainly wrong answer the set's own scorer pays in full for on one of the first held-out items; '' if none."""
        for i in range(min(3, self.held_out)):
            problem = self.problem(i, "held_out")
            wrong = wrong_answers(problem)
            for answer, value in zip(wrong, self._values([problem] * len(wrong), wrong)):
                if isinstance(value, float) and value >= 1:
                    return f"pays for {answer[:40]!r}"
        return ""


def wrong_answers(problem: Problem) -> list[str]:
    """Answers that no scorer may pay in full: constants, the question, the reference among other words."""
    right = problem.answer
    padded = [f"{right} or 7", f"maybe {right}", f"{right} {right}", f"{right}\nZ"] if right else []
    constants = [
        text
        for text in ("0", "1", "x", "yes", "-", "[]")
        if text != right.strip().casefold() and not same_number(text, right)
    ]
    return [*padded, *constants, problem.prompt]


def set_options(name: str) -> list[str]:
    """The settings of a set but its seed and size. ValueError for an unknown set, with the nearest one."""
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        raise ValueError(f"reasoning-gym has no set {name!r}{nearest(name, DATASETS)}")
    return [
        one.name
        for one in dataclasses.fields(DATASETS[name][1])
        if one.name not in ("seed", "size")
    ]
