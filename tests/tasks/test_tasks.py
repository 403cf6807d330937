"""Countdown: disjoint splits, right answers score, structural attacks do not."""

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.tasks import Problem, Score, Verdict, make_task, safe_score
from deepwright.tasks.countdown import read_prompt
from deepwright.text import number_tokenizer

COUNTDOWN = make_task("countdown", seed=3)
TWENTY = Problem(0, "nums 3 7 1 make 20 :", "( 3 * 7 ) - 1", "2-3 solutions")


def framed(answer, thought="so"):
    return f"<think> {thought} </think> <answer> {answer} </answer>"


def identity(problem):
    numbers, target = read_prompt(problem.prompt)
    return (*sorted(numbers), target)


def test_no_problem_is_on_both_sides():
    train = {identity(COUNTDOWN.problem(i, "train")) for i in range(COUNTDOWN.size("train"))}
    held_out = {identity(COUNTDOWN.problem(i, "held_out")) for i in range(600)}
    assert len(held_out) == COUNTDOWN.size("held_out") == 600 and len(train) == COUNTDOWN.size(
        "train"
    )
    assert not train & held_out
    assert len(train) + 600 == 2609  # counted by a separate brute force


def test_training_goes_on_with_new_orders_and_held_out_ends():
    size = COUNTDOWN.size("train")
    rounds = [COUNTDOWN.problem(5 + size * k, "train") for k in range(8)]
    assert len({identity(p) for p in rounds}) == 1 and len({p.prompt for p in rounds}) > 1
    with pytest.raises(ValueError, match="item 600"):
        COUNTDOWN.problem(600, "held_out")


def test_items_depend_on_seed_and_place_alone():
    """Also across processes with another hash seed."""
    tasks = "[make_task('countdown', seed=3), make_task('calc3', seed=3)]"
    prompts = f"[task.problem(i, 'train').prompt for task in {tasks} for i in (0, 7, 2500)]"
    code = f"import json; from deepwright.tasks import make_task; print(json.dumps({prompts}))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "17"},
    )
    assert json.loads(out.stdout) == [
        t.problem(i, "train").prompt
        for t in (COUNTDOWN, make_task("calc3", seed=3))
        for i in (0, 7, 2500)
    ]
    assert make_task("countdown", seed=4).problem(0, "train") != COUNTDOWN.problem(0, "train")


def test_reference_answers_are_right_and_in_the_vocabulary():
    tokenizer = number_tokenizer(COUNTDOWN.tokenizer_words(), COUNTDOWN.largest_number)
    for split in ("train", "held_out"):
        for i in range(200):
            problem = COUNTDOWN.problem(i, split)
            score = COUNTDOWN.score(problem, framed(problem.answer))
            assert (
                score.verdict is Verdict.CORRECT
                and score.value == 1.1
                and score.parts == {"accuracy": 1.0, "format": 0.1}
            )
            tokenizer.encode(problem.prompt + " " + problem.answer)


def test_puzzles_of_the_same_numbers_share_their_trees():
    """Five numbers have thousands, for a hundred targets."""
    by_numbers = {}
    for puzzle in (*COUNTDOWN.puzzles["train"], *COUNTDOWN.puzzles["held_out"]):
        trees = by_numbers.setdefault(puzzle.numbers, puzzle.trees)
        assert puzzle.trees is trees
        assert sorted(puzzle.right + puzzle.wrong) == sorted(trees) and all(
            tree[0] != puzzle.target for tree in puzzle.wrong
        )


def test_kind_counts_solutions():
    for i in range(300):
        puzzle = COUNTDOWN.puzzle(i, "train")
        assert all(tree[0] == puzzle.target for tree in puzzle.right) and all(
            tree[0] != puzzle.target for tree in puzzle.wrong
        )
        assert puzzle.kind == {1: "1 solution", 2: "2-3 solutions", 3: "2-3 solutions"}.get(
            len(puzzle.right), "4+ solutions"
        )


@pytest.mark.parametrize(
    "answer, verdict",
    [
        ("( 3 * 7 ) - 1", Verdict.CORRECT),
        ("(7*3)-1", Verdict.CORRECT),
        ("( 3 * 7 ) + 1", Verdict.WRONG),
        ("20", Verdict.WRONG),  # the target itself
        ("3 * 7 - 1 + 1 - 1", Verdict.WRONG),  # a number twice
        ("( 3 * 7 ) - 1 = 20", Verdict.WRONG),
        ("nums 3 7 1 make 20 :", Verdict.WRONG),
        ("banana", Verdict.WRONG),
    ],
)
def test_countdown_answers(answer, verdict):
    score = COUNTDOWN.score(TWENTY, framed(answer))
    assert (
        score.verdict is verdict
        and score.parts["format"] == 0.1
        and score.value == sum(score.parts.values())
    )


def test_division_is_exact():
    problem = Problem(0, "nums 1 3 7 make 21 :", "7 * ( 3 * 1 )", "")
    assert COUNTDOWN.score(problem, framed("7 / ( 1 / 3 )")).verdict is Verdict.CORRECT
    assert COUNTDOWN.score(problem, framed("7 / ( 1 / 0 )")).verdict is Verdict.WRONG


GOOD = "( 3 * 7 ) - 1"


@pytest.mark.parametrize(
    "completion",
    [
        "",
        GOOD,
        f"<think> </think> <answer> {GOOD} </answer>",  # no thought
        f"<think></think><answer>{GOOD}</answer>",
        f"<answer> {GOOD} </answer> <think> so </think>",  # answer before thought
        f"<think> so <answer> {GOOD} </answer> </think>",
        f"<think> so </think> <answer> {GOOD} </answer> <answer> {GOOD} </answer>",
        f"<think> so <think> </think> <answer> {GOOD} </answer>",
        f"<think> so </think> </think> <answer> {GOOD} </answer>",
        f"<think> so </think> <answer> {GOOD} </answer> yes",
        f"yes <think> so </think> <answer> {GOOD} </answer>",
        f"<think> so </think> yes <answer> {GOOD} </answer>",
        "<think> so </think> <answer> </answer>",
        f"<think> so </think> <answer> {GOOD}",
        f"<Think> so </Think> <Answer> {GOOD} </Answer>",
        f"<think> so </think> <answer> {GOOD} </answer><｜end▁of▁sentence｜>1",
    ],
)
def test_structural_attacks_earn_nothing(completion):
    score = COUNTDOWN.score(TWENTY, completion)
    assert (
        score.verdict is Verdict.MALFORMED
        and score.value == 0
        and score.parts == {"accuracy": 0.0, "format": 0.0}
        and score.detail
    )


@pytest.mark.parametrize(
    "answer",
    [
        "(" * 100_000 + "1" + ")" * 100_000,
        "9" * 1_000_000,
        "3 * " * 100_000,
        "٣",
        "<think>" * 100_000,
    ],
)
def test_hostile_completions_cost_little_and_raise_nothing(answer):
    problem = COUNTDOWN.problem(0, "held_out")
    start = time.process_time()
    for completion in (framed(answer), framed("1", thought=answer), answer):
        assert COUNTDOWN.score(problem, completion).verdict in (Verdict.WRONG, Verdict.MALFORMED)
    assert (
        time.process_time() - start < 1
    )  # milliseconds in practice; the processor's time, not the clock's


@given(
    st.lists(
        st.sampled_from([*"0123456789+-*/() ", "<think>", "</think>", "<answer>", "</answer>"])
    ).map("".join)
)
def test_any_completion_gets_a_verdict(completion):
    score = COUNTDOWN.score(TWENTY, completion)
    assert score.value == sum(score.parts.values()) and (score.verdict is Verdict.MALFORMED) == (
        score.parts["format"] == 0
    )


def test_a_check_that_raises_is_failed_not_wrong():
    class Broken:
        name = "broken"

        def score(self, problem, completion) -> Score:
            raise RecursionError("too deep")

    score = safe_score(Broken(), TWENTY, "x")
    assert (
        score.verdict is Verdict.FAILED
        and score.value == 0
        and "RecursionError: too deep" in score.detail
    )


def test_difficulty_options():
    easy, hard = (
        make_task("countdown", largest=6, held_out=100),
        make_task("countdown", count=4, largest=5, least=10, held_out=50),
    )
    assert easy.size("train") < COUNTDOWN.size("train") < 3000
    numbers, target = read_prompt(hard.problem(0, "train").prompt)
    assert len(numbers) == 4 and max(numbers) <= 5 and target >= 10


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("countup", {}, "task is 'countup'"),
        ("countdown", {"larges": 9}, "did you mean largest"),
        ("countdown", {"held_out": 10_000}, "expected fewer than the 2609"),
        ("countdown", {"count": 9}, "count is 9"),
        ("countdown", {"operators": "+^"}, r"operators is '\+\^'"),
        ("countdown", {"largest": 100}, "largest 100"),
        ("countdown", {"seed": -1}, "seed -1"),
    ],
)
def test_bad_options_are_one_sentence(name, options, said):
    with pytest.raises(ValueError, match=said):
        make_task(name, **options).size("train") and make_task(name, **options).problem(0, "train")
    with pytest.raises(ValueError, match="split is 'test'"):
        COUNTDOWN.problem(0, "test")
