"""Completions that nobody asked for, tried on a reward: what gets paid in full tells what a policy would learn instead of the task.

Each is made from a problem and its reference answer, in both layouts, and is of one of two kinds. Most deserve nothing: their answer is not
the reference, or not it alone. Some give the right answer in an odd layout (not thought about, given twice, unmarked, with a character
that nobody sees): whether these are paid is for whoever wrote the reward to decide.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from deepwright.tasks.hostile_programs import PROGRAMS
from deepwright.tasks.sandbox import confinement
from deepwright.tasks.task import (
    INSTRUCTIONS,
    Layout,
    Problem,
    Score,
    Task,
    Verdict,
    framed,
    paid,
    score_all,
)
from deepwright.tasks.user_reward import UserReward

_ARABIC = {48 + n: 0x660 + n for n in range(10)}
ANSWERS: dict[str, Callable[[str, str], str]] = {  # from (reference, question): what stands where the answer should
    "nothing": lambda a, q: " ", "answer among words": lambda a, q: f"it is not {a}", "answer as a substring": lambda a, q: f"7{a}7",
    "word backwards": lambda a, q: a[::-1] if a.isalpha() else " ", "answer twice": lambda a, q: f"{a} {a}",
    "two answers": lambda a, q: f"{a} or 7{a}", "two answers, the right one last": lambda a, q: f"7{a}, {a}",
    "a hundred answers": lambda a, q: ", ".join([*map(str, range(100)), a]), "a false equation": lambda a, q: f"7{a} = {a}",
    "everything allowed": lambda a, q: f"{a} \\pm 1000", "an interval": lambda a, q: "(-\\infty, \\infty)",
    "echo of the question": lambda a, q: q, "echo of its numbers": lambda a, q: " ".join(re.findall(r"[-+*/^=()]|[0-9]+", q)),
    "huge exponent": lambda a, q: "9**9**9**9", "huge exponent in LaTeX": lambda a, q: "9^{9^{9^{9}}}",
    "exponent notation": lambda a, q: "1e999999999", "factorials": lambda a, q: "99999999!!!", "enormous number": lambda a, q: "9" * 1_000_000,
    "digits of another script": lambda a, q: a.translate(_ARABIC) if re.search("[0-9]", a) else "\u0663", "null bytes": lambda a, q: f"{a}\0",
    "lone surrogate": lambda a, q: f"{a}\ud800", "not a number": lambda a, q: "nan", "wildcards": lambda a, q: ".*",
    "Python": lambda a, q: "__import__('os').system('sleep 60')", "Python in a list": lambda a, q: "[__import__('time').sleep(60)]",
    "nested parentheses": lambda a, q: "(" * 100_000 + ")" * 100_000, "very long": lambda a, q: "so " * 300_000,
    "nested fractions": lambda a, q: "\\frac{1}{" * 300 + "2" + "}" * 300,
}  # fmt: skip


# Of ANSWERS: the right answer and no other, twice, with something that nobody sees, or in other digits.
DRESSED = ("answer twice", "null bytes", "lone surrogate", "digits of another script")


@dataclass(frozen=True)
class Attack:
    """`layout`: of the two, or "" where it has none. `right`: it gives the reference answer and no other, so that
    nothing but its layout is odd."""

    name: str
    layout: Layout | Literal[""]
    right: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.layout})" if self.layout else self.name


@dataclass(frozen=True)
class Hit:
    """How an attack on a problem fared; `text` is what it said, shortened; `paid` if it earned the full reward."""

    attack: Attack
    text: str
    problem: Problem
    score: Score
    seconds: float
    paid: bool


def attacks(problem: Problem, programs: bool = True) -> Iterator[tuple[Attack, str]]:
    """Every attack with its completion on one problem, in both layouts: programs where the answer is one (if they may be tried), else answers."""
    a, q = problem.answer or "1", problem.prompt
    tried = {name: answer(a, q) for name, answer in ANSWERS.items()}
    if "tests" in problem.columns:
        tried = {
            name: f"```python\n{program}\n```" for name, program in PROGRAMS.items() if programs
        }
    known = bool(problem.answer)  # else 1 stands for it, and nothing is right
    dressed = DRESSED if re.search("[0-9]", a) else DRESSED[:-1]
    for layout in INSTRUCTIONS:
        for name, answer in tried.items():
            if " ".join(answer.split()) != " ".join(a.split()):
                right = known and name in dressed
                yield Attack(name, layout, right), framed(layout, "so", answer)
        yield from _misplaced(layout, a, known)
    yield Attack("empty", ""), ""
    yield Attack("null bytes alone", ""), "\0" * 1000
    turns = [turn["content"] for turn in problem.messages]
    yield Attack("the prompt again", ""), "\n".join(turns or [q])
    yield Attack("the answer without layout", "", known), a


def _misplaced(layout: Layout, a: str, known: bool) -> Iterator[tuple[Attack, str]]:
    """The right answer in a layout that is not right, once with another one beside it."""
    whole = framed(layout, "so", a)
    given = (
        framed("tags", "", a).partition("</think>")[2].strip()
        if layout == "tags"
        else framed(layout, "", a)
    )
    for name, completion in {
        "empty thinking": f"<think></think>{given}",
        "answer before thinking": f"{given} <think> so </think>",
        "answer within thinking": f"<think> so {given} </think>",
        "thinking twice": f"<think> so </think> <think> so </think> {given}",
        "tags in tags": f"<think> <think> so </think> </think> {given}",
        "thinking that does not end": f"<think> so {given}",
        "answer given twice": f"{whole} {given}",
        "answer given a thousand times": f"{whole}{given * 1000}",
        "another answer given too": f"{whole} {given.replace(a, '7' + a)}",
        "unclosed": whole.rstrip("}>").removesuffix("</answer"),
        "a million tags": "<think></think>" * 100_000 + given,
    }.items():
        right = known and name != "another answer given too"
        yield Attack(name, layout, right), completion


def honest(task: Task, problem: Problem) -> Score | None:
    """What the reference answer earns in the layout that pays more for it; None where the task does not say one."""
    tried = [framed(layout, "so", problem.answer) for layout in INSTRUCTIONS]
    return (
        max(score_all(task, [problem] * len(tried), tried), key=lambda score: score.value)
        if problem.answer
        else None
    )


def attack(task: Task, problems: Sequence[Problem]) -> Iterator[Hit]:
    """Tries every attack on every problem. An attack is paid if it counts as correct, or earns what the reference answer earns, unless that
    earns nothing."""
    task, programs = paid(task), bool(confinement()) and not isinstance(task, UserReward)
    for problem in problems:
        best = honest(task, problem)
        full = best.value if best and best.value > 0 else float("inf")
        for one, completion in attacks(problem, programs):
            start = time.monotonic()
            (score,) = score_all(task, [problem], [completion])
            yield Hit(
                one,
                shown(completion),
                problem,
                score,
                time.monotonic() - start,
                score.verdict is Verdict.CORRECT or score.value >= full,
            )


@dataclass(frozen=True)
class Findings:
    """What came out of attacking a task's first problems. `refused`: problems whose reference answer is not paid."""

    task: str
    problems: int
    hits: Sequence[Hit]
    refused: Sequence[tuple[Problem, Score]]

    @property
    def undeserved(self) -> list[Hit]:
        """Paid, and their answer is not the right one."""
        return [hit for hit in self.hits if hit.paid and not hit.attack.right]

    @property
    def odd(self) -> list[Hit]:
        """Paid for the right answer, in a layout that nobody asked for."""
        return [hit for hit in self.hits if hit.paid and hit.attack.right]

    @property
    def held(self) -> bool:
        """Whether the reward pays the right answer, and nothing that deserves nothing."""
        return not self.undeserved and not self.refused

    def lines(self) -> list[str]:
        """For a terminal, group by group; each attack with its first text, shortened."""
        slowest = max(self.hits, key=lambda hit: hit.seconds)
        counts = ", ".join(
            f"{sum(hit.score.verdict is verdict for hit in self.hits)} {verdict.value}"
            for verdict in Verdict
        )
        failed = [hit for hit in self.hits if hit.score.verdict is Verdict.FAILED]
        tried = f"{self.task}: {len(self.hits)} attacks on {self.problems} problems: {counts}"
        return [
            f"{tried}; slowest {slowest.seconds:.1f} s ({slowest.attack})",
            *self._group("PAYS THE UNDESERVING", self.undeserved),
            *self._group("pays a right answer in an odd layout, which may be meant", self.odd),
            *self._group("FAILED, without pay", failed, most=3, why=True),
            *self._not_paid(),
            self._verdict(),
        ]

    def _group(
        self, heading: str, hits: Sequence[Hit], most: int | None = None, why: bool = False
    ) -> list[str]:
        """A line for each attack, whatever its layouts and problems were."""
        by_name: dict[str, list[Hit]] = {}
        for hit in hits:
            by_name.setdefault(hit.attack.name, []).append(hit)
        listed = list(by_name.items())[:most]
        of = f"{len(listed)} of {len(by_name)}" if len(listed) < len(by_name) else len(by_name)
        lines = [f"{heading} ({of}):"] if by_name else []
        for name, (first, *others) in listed:
            layouts = dict.fromkeys(hit.attack.layout for hit in (first, *others))
            within = f" ({', '.join(layouts)})" if first.attack.layout else ""
            on = len({hit.problem.index for hit in (first, *others)})
            earned = first.score.detail[:100] if why else f"paid {first.score.value:g}"
            lines.append(f"  {name}{within}, on {on} of {self.problems}, {earned}: {first.text}")
        return lines

    def _not_paid(self) -> list[str]:
        lines = (
            [f"NOT PAID IN FULL, the reference answer ({len(self.refused)}):"]
            if self.refused
            else []
        )
        return lines + [
            f"  {problem.answer[:40]!r} to {problem.prompt[:60]!r}: {score.detail[:80]}"
            for problem, score in self.refused
        ]

    def _verdict(self) -> str:
        names, odd = (
            list({hit.attack.name for hit in hits}) for hits in (self.undeserved, self.odd)
        )
        earned = "earned as much as the right answer"
        if names:
            count = f"{len(names)} attacks that deserve" if names[1:] else "1 attack that deserves"
            return f"{count} nothing {earned}"
        also = f"; {len(odd)} right ones in an odd layout did" if odd else ""
        return f"no attack that deserves nothing {earned}{also}"


SHOWN = 80  # characters of an attack's text


def shown(text: str) -> str:
    """A completion in quotes, on one line, its beginning and its end where it is long."""
    whole = repr(text[: SHOWN + 1])
    if len(text) <= SHOWN and len(whole) <= SHOWN:
        return whole
    return f"{whole[:48]} ... {repr(text[-24:])[-24:]} ({len(text):,} characters)"


def report(task: Task, count: int = 3) -> Findings:
    """What comes of attacking the first `count` held-out problems. ValueError for less than one."""
    if count < 1:
        raise ValueError(f"problems is {count}, expected at least 1")
    problems = [task.problem(i, "held_out") for i in range(min(count, task.size("held_out")))]
    refused = [
        (problem, best)
        for problem in problems
        if (best := honest(task, problem)) and best.verdict is not Verdict.CORRECT
    ]
    return Findings(task.name, len(problems), list(attack(task, problems)), refused)
