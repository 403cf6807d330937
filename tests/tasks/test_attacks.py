"""The attack list against every reward of the package, 1,000 hostile completions, and the command."""

import itertools
import json
import re
import time
from random import Random

import pytest

from deepwright import cli
from deepwright.seeds import pick
from deepwright.tasks import Verdict, make_task, score_all
from deepwright.tasks.attacks import ANSWERS, PROGRAMS, attack, attacks, report, shown
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
    found = report(task, 2)
    assert found.held and not found.odd and "no attack" in found.lines()[-1], found.lines()


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
    assert {one.name for one, _ in attacks(problem)} >= set(PROGRAMS)
    assert not any(hit.paid for hit in hits)
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
    names = [str(one) for one, _ in attacks(problem)]
    assert len(names) == len(set(names)) > 70
    assert not {framed(layout, "so", problem.answer) for layout in ("tags", "boxed")} & {
        completion for _, completion in attacks(problem)
    }


REWARDS = {
    "naive": "[float(a in c[0]['content']) for c, a in zip(completions, answer)]",
    "broken": "[float('nan')] * len(completions)",
    # the answer and nothing else, whatever tags and boxes there are
    "lenient": r"[float(set(re.sub(r'<[^>]*>|\\boxed|[{}]|\bso\b|</answer', ' ', c[0]['content']).split())"
    r" == {a}) for c, a in zip(completions, answer)]",
}


@pytest.fixture
def tried(tmp_path, capsys):
    """(exit status, lines) of `reward test` on one of REWARDS."""

    def tried(name):
        text = f"import re\ndef pay(completions, answer, **columns):\n    return {REWARDS[name]}\n"
        (tmp_path / f"{name}.py").write_text(text)
        code = cli.main(["reward", "test", f"{tmp_path / name}.py:pay", "--problems", "2"])
        return code, capsys.readouterr().out.splitlines()

    return tried


def group(lines, heading):
    """The lines below a heading."""
    (start,) = (place for place, line in enumerate(lines) if line.startswith(heading))
    found = lines[start + 1 :]
    return list(itertools.takewhile(lambda line: line.startswith("  "), found))


def check_what_deserves_nothing_is_told_from_an_odd_layout(tried):
    """A reward that looks for the answer anywhere pays both kinds."""
    code, lines = tried("naive")
    undeserving, odd = group(lines, "PAYS THE UNDESERVING"), group(lines, "pays a right answer in")
    assert code == 1 and lines[-1].endswith(
        "that deserve nothing earned as much as the right answer"
    )
    for name in ("answer as a substring", "two answers", "another answer given too"):
        assert any(
            line.startswith(f"  {name} (tags, boxed), on 2 of 2, paid 1: '") for line in undeserving
        )
    for name in ("empty thinking", "answer given twice", "null bytes", "thinking twice"):
        assert any(line.startswith(f"  {name} (tags, boxed), on 2 of 2, paid 1: '") for line in odd)
    assert any(line.startswith("  the answer without layout, on 2 of 2, paid 1: '") for line in odd)
    assert not any("huge exponent" in line for line in lines[1:])
    names = [line.partition(",")[0] for line in (*undeserving, *odd)]
    assert len(names) == len(set(names))


def test_what_deserves_nothing_is_told_from_an_odd_layout(tried):
    check_what_deserves_nothing_is_told_from_an_odd_layout(tried)


def test_a_lenient_reader_passes_and_is_told(tried):
    code, lines = tried("lenient")
    assert code == 0, lines
    assert group(lines, "pays a right answer in an odd layout, which may be meant")
    assert lines[-1].startswith(
        "no attack that deserves nothing earned as much as the right answer; "
    )


def test_a_reward_that_pays_the_right_answer_in_part_is_compared_with_that_part(capsys):
    """The gamed reward of our own documents: a false equation beside the answer earns more than the answer."""
    gamed = "configs/shows_work.py:shows_work"
    assert cli.main(["reward", "test", gamed, "--problems", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (false,) = [line for line in lines if line.startswith("  a false equation")]
    assert ", on 2 of 2, paid 0.75: '" in false
    refused = group(lines, "NOT PAID IN FULL, the reference answer (2)")
    assert all(line.endswith(f"{gamed} gave 0.5") for line in refused)


def test_the_text_of_an_attack_is_shown_in_short(tried):
    _, lines = tried("naive")
    long = next(line for line in lines if line.startswith("  answer given a thousand times"))
    assert re.search(r": '.* \.\.\. .*' \([\d,]+ characters\)$", long) and len(long) < 170
    short = next(line for line in lines if line.startswith("  answer as a substring"))
    assert re.search(r": '<think> so </think> <answer> 7-?\d+7 </answer>'$", short)
    for text in ("x", "\0" * 60, "\n" * 5000, "\ud800" * 79, "ü" * 80, "ü" * 81):
        assert len(shown(text)) < 110 and shown(text).isprintable()


def test_the_command(tried, capsys):
    assert cli.main(["reward", "test", "calc3", "--problems", "1"]) == 0
    said = capsys.readouterr().out
    assert (
        "no attack that deserves nothing earned as much as the right answer\n" in said
        and "PAYS" not in said
    )
    code, lines = tried("broken")
    assert code == 1 and all(
        "gave nan" in line for line in group(lines, "FAILED, without pay (3 of")
    )
    assert len(group(lines, "NOT PAID IN FULL, the reference answer (2)")) == 2
    assert (
        cli.main(["reward", "test", "calc4"]) == 2
        and cli.main(["reward", "try", "calc3"]) == 2
        and cli.main(["reward"]) == 2
    )
    assert "task is 'calc4'" in capsys.readouterr().err


def test_no_problems_are_refused(rows):
    with pytest.raises(ValueError, match="problems is 0, expected at least 1"):
        report(make_task(rows(word_problem)), 0)
