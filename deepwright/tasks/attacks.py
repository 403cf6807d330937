"""Completions that deserve nothing, tried on a reward: what gets paid in full tells what a policy would learn instead of the task.

Each attack is made from a problem and its reference answer, in both layouts. An attack on the format may hold the right answer (it was not
thought about, or not given once); every other attack must not be equal to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Hit:
    """How an attack on a problem fared; `paid` if it earned the full reward."""

    attack: str
    problem: Problem
    score: Score
    seconds: float
    paid: bool


def attacks(problem: Problem, programs: bool = True) -> Iterator[tuple[str, str]]:
    """Every attack on one problem, in both layouts: programs where the answer is one (if they may be tried), else answers."""
    a, q = problem.answer or "1", problem.prompt
    tried = {name: answer(a, q) for name, answer in ANSWERS.items()}
    if "tests" in problem.columns:
        tried = {
            name: f"```python\n{program}\n```" for name, program in PROGRAMS.items() if programs
        }
    for layout in INSTRUCTIONS:
        for name, answer in tried.items():
            if " ".join(answer.split()) != " ".join(a.split()):
                yield f"{name} ({layout})", framed(layout, "so", answer)
        yield from _misplaced(layout, a)
    yield "empty", ""
    yield "null bytes alone", "\0" * 1000
    yield "the prompt again", "\n".join([turn["content"] for turn in problem.messages] or [q])
    yield "the answer without layout", a


def _misplaced(layout: Layout, a: str) -> Iterator[tuple[str, str]]:
    """The right answer in a layout that is not right."""
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
        yield f"{name} ({layout})", completion


def honest(task: Task, problem: Problem) -> Score | None:
    """What the reference answer earns in the layout that pays more for it; None where the task does not say one."""
    tried = [framed(layout, "so", problem.answer) for layout in INSTRUCTIONS]
    return (
        max(score_all(task, [problem] * len(tried), tried), key=lambda score: score.value)
        if problem.answer
        else None
    )


def attack(task: Task, problems: Sequence[Problem]) -> Iterator[Hit]:
    """Tries every attack on every problem. An attack is paid if it earns what the reference answer earns, or counts as correct."""
    task, programs = paid(task), bool(confinement()) and not isinstance(task, UserReward)
    for problem in problems:
        best = honest(task, problem)
        full = best.value if best and best.verdict is Verdict.CORRECT else float("inf")
        for name, completion in attacks(problem, programs):
            start = time.monotonic()
            (score,) = score_all(task, [problem], [completion])
            yield Hit(
                name,
                problem,
                score,
                time.monotonic() - start,
                score.verdict is Verdict.CORRECT or score.value >= full,
            )


def report(task: Task, count: int = 3) -> tuple[list[str], bool]:
    """(lines to print, whether the reward held) after attacking the first `count` held-out problems."""
    if count < 1:
        raise ValueError(f"problems is {count}, expected at least 1")
    problems = [task.problem(i, "held_out") for i in range(min(count, task.size("held_out")))]
    hits = list(attack(task, problems))
    slowest = max(hits, key=lambda hit: hit.seconds)
    counts = ", ".join(
        f"{sum(hit.score.verdict is verdict for hit in hits)} {verdict.value}"
        for verdict in Verdict
    )
    lines = [
        f"{task.name}: {len(hits)} attacks on {len(problems)} problems: {counts}; slowest {slowest.seconds:.1f} s ({slowest.attack})"
    ]
    earned: dict[str, list[Hit]] = {}
    for hit in hits:
        if hit.paid:
            earned.setdefault(hit.attack, []).append(hit)
    for name, (first, *others) in earned.items():
        lines.append(
            f"  PAID {first.score.value:g}: {name}, on {1 + len(others)} of {len(problems)}: {first.score.detail[:80]}"
        )
    broken = [
        f"  FAILED, without pay: {hit.attack}: {hit.score.detail[:100]}"
        for hit in hits
        if hit.score.verdict is Verdict.FAILED
    ]
    lines += broken[:3]
    refused = [
        (p, best)
        for p in problems
        if (best := honest(task, p)) and best.verdict is not Verdict.CORRECT
    ]
    lines += [
        f"  NOT PAID: the reference answer {p.answer[:40]!r} to {p.prompt[:60]!r}: {score.detail[:80]}"
        for p, score in refused
    ]
    return [
        *lines,
        f"  {len(earned) or 'no'} attack{'s' * (len(earned) > 1)} earned the full reward",
    ], not (earned or refused)
