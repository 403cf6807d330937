"""The attack list against every reward of the package, 1,000 hostile completions, and the command."""

import json
import time
from random import Random

import pytest

from deepwright import cli
from deepwright.seeds import pick
from deepwright.tasks import Verdict, make_task, score_all
from deepwright.tasks.attacks import ANSWERS, PROGRAMS, attack, attacks, report
from deepwright.tasks.task import framed, paid


@pytest.fixture
def rows(tmp_path):
    def rows(row, count=40, name="rows.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row(n)) + "\n" for n in range(2, count)))
        return f"file:{tmp_path / name}"

    return rows


def word_problem(n):
    return {
        "question": f"Tom has {n} boxes of {n + 1}. How many in all?",
        "answer": f"so\n#### {n * (n + 1)}",
    }


def expansion(n):
    return {"problem": f"Expand $(x+{n})^2 - {n * n}$.", "solution": f"\\boxed{{x^2+{2 * n}x}}"}


@pytest.mark.parametrize(
    "name",
    [
        "countdown",
        "calc3",
        "calc3 in tags",
        "words",
        "gsm8k",
        "math",
        "reasoning_gym:chain_sum",
        "reasoning_gym:countdown",
    ],
)
def test_no_attack_earns_the_full_reward(name, rows):
    if name == "math":
        pytest.importorskip("math_verify", reason="the extra `tasks` is not installed")
    if name.startswith("reasoning_gym"):
        pytest.importorskip("reasoning_gym", reason="the extra `tasks` is not installed")
        task = make_task(name, train=4, held_out=3, seconds=2.0)
    elif name == "calc3 in tags":
        task = make_task("calc3", layout="tags")
    elif name in ("words", "gsm8k", "math"):
        row = {
            "words": lambda n: {"prompt": f"City {n}?", "answer": "Paris"},
            "gsm8k": word_problem,
            "math": expansion,
        }[name]
        task = make_task(rows(row), seconds=2.0)
    else:
        task = make_task(name)
    lines, held = report(task, 2)
    assert held and "no attack" in lines[-1], lines


@pytest.mark.usefixtures("confined")
def test_code_attacks(rows):
    task = make_task(
        rows(
            lambda n: {
                "text": f"Add {n}.",
                "code": f"def f(x): return x + {n}",
                "test_list": [f"assert f(1) == {1 + n}"],
            }
        ),
        seconds=1.5,
    )
    problem = task.problem(0, "held_out")
    hits = list(attack(task, [problem]))
    assert {name.partition(" (")[0] for name, _ in attacks(problem)} >= set(PROGRAMS) and not any(
        hit.paid for hit in hits
    )
    assert max(hit.seconds for hit in hits) < 30  # on a busy machine; an hour where one hangs
    assert not any(
        "fork" in completion for _, completion in attacks(problem, programs=False)
    )  # as a user's own reward is attacked


def hostile(seed, count, problem):
    """Random mixtures of every piece that has confused a parser; the reference answer is among them."""
    rng = Random(seed)
    words = [answer(problem.answer or "1", problem.prompt)[:3000] for answer in ANSWERS.values()]
    tags = [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "\\boxed{",
        "\\boxed",
        "{",
        "}",
        "\\",
        "```python\n",
        "\n",
        "####",
        "<｜end▁of▁sentence｜>",
    ]
    for i in range(count):
        body = " ".join(pick(rng, pick(rng, (words, tags))) for _ in range(int(rng.random() * 12)))
        yield body if i % 2 else framed(pick(rng, ("tags", "boxed")), "so", body)


@pytest.mark.parametrize(
    "name", ["countdown", "calc3", "math", "reasoning_gym:polynomial_multiplication"]
)
def test_a_thousand_hostile_completions_neither_crash_nor_stall(name, rows):
    """In one batch, as the loop asks: a verdict for each, a bounded time for all, and the reference is still right afterwards."""
    if name == "math":
        pytest.importorskip("math_verify", reason="the extra `tasks` is not installed")
        task = make_task(rows(expansion), seconds=0.5)
    elif name.startswith("reasoning_gym"):
        pytest.importorskip("reasoning_gym", reason="the extra `tasks` is not installed")
        task = make_task(name, train=4, held_out=3, seconds=0.5)
    else:
        task = make_task(name)
    task = paid(task)
    problem = task.problem(0, "held_out")
    task.score(problem, framed("boxed", "so", problem.answer))  # processes are up
    start = time.monotonic()
    completions = list(hostile(5, 1000, problem))
    scores = score_all(task, [problem] * 1000, completions)
    assert len(scores) == 1000 and time.monotonic() - start < 100
    alone = [framed(layout, "so", problem.answer).strip() for layout in ("tags", "boxed")]
    earned = [
        completion
        for completion, score in zip(completions, scores)
        if score.verdict is Verdict.CORRECT and completion.strip() not in alone
    ]
    assert not earned
    assert all(
        score.value == 0 for score in scores if score.verdict in (Verdict.MALFORMED, Verdict.FAILED)
    )
    layout = "tags" if name == "countdown" else "boxed"
    assert task.score(problem, framed(layout, "so", problem.answer)).verdict is Verdict.CORRECT


@pytest.mark.slow
@pytest.mark.usefixtures("confined")
def test_three_hundred_hostile_programs_neither_crash_nor_stall(rows):
    """Fork bombs, endless loops, huge allocations and the rest of the list, each with one more line at its end, in one batch."""
    row = {"code": "def f(x): return x + 1", "test_list": ["assert f(1) == 2", "assert f(7) == 8"]}
    task = make_task(
        rows(lambda n: row | {"text": f"Write f, number {n}."}), layout="tags", seconds=1.0
    )
    problem, rng, names = task.problem(0, "held_out"), Random(7), list(PROGRAMS)
    last = (
        "",
        "import sys; sys.exit(0)",
        "raise SystemExit(0)",
        "print('2'); print('8')",
        "\\",
        "\x00",
        "def f(",
    )
    programs = [
        f"```python\n{PROGRAMS[names[i % len(names)]]}\n{pick(rng, last)}\n```" for i in range(300)
    ]
    completions = [framed("tags", "so", program) for program in programs]
    start = time.monotonic()
    scores = score_all(task, [problem] * 300, completions)
    assert len(scores) == 300 and not any(
        score.verdict is Verdict.CORRECT or score.value == 1 for score in scores
    )
    assert not any(score.verdict is Verdict.MALFORMED for score in scores)  # every one has run
    assert time.monotonic() - start < 450
    assert (
        task.score(problem, framed("tags", "so", "```python\ndef f(x): return x + 1\n```")).verdict
        is Verdict.CORRECT
    )


def test_every_attack_differs_from_the_honest_completion():
    problem = make_task("calc3").problem(0, "train")
    names = [name for name, _ in attacks(problem)]
    assert len(names) == len(set(names)) > 70
    assert not {framed(layout, "so", problem.answer) for layout in ("tags", "boxed")} & {
        completion for _, completion in attacks(problem)
    }


def test_the_command(tmp_path, capsys):
    assert cli.main(["reward", "test", "calc3", "--problems", "1"]) == 0
    assert "no attack earned the full reward" in capsys.readouterr().out
    (tmp_path / "naive.py").write_text(
        "def contains(completions, answer, **columns):\n    return [float(a in c[0]['content']) for c, a in zip(completions, answer)]\n"
    )
    assert cli.main(["reward", "test", f"{tmp_path / 'naive.py'}:contains", "--problems", "1"]) == 1
    said = capsys.readouterr().out
    assert (
        "PAID 1: answer as a substring" in said
        and "PAID 1: empty thinking" in said
        and "PAID 1: huge exponent" not in said
    )
    (tmp_path / "broken.py").write_text(
        "def broken(completions, **columns):\n    return [float('nan')] * len(completions)\n"
    )
    assert cli.main(["reward", "test", f"{tmp_path / 'broken.py'}:broken", "--problems", "1"]) == 1
    said = capsys.readouterr().out
    assert (
        "NOT PAID: the reference answer" in said
        and "FAILED, without pay" in said
        and "gave nan" in said
    )
    assert (
        cli.main(["reward", "test", "calc4"]) == 2
        and cli.main(["reward", "try", "calc3"]) == 2
        and cli.main(["reward"]) == 2
    )
    assert "task is 'calc4'" in capsys.readouterr().err


def test_no_problems_are_refused(rows):
    with pytest.raises(ValueError, match="problems is 0, expected at least 1"):
        report(make_task(rows(word_problem)), 0)
