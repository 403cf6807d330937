"""reasoning-gym's sets: disjoint sides, full pay for right answers alone, no Python from an answer."""

import subprocess
import sys
import time

import pytest

from deepwright.tasks import Problem, Verdict, make_task, score_all

reasoning_gym = pytest.importorskip("reasoning_gym", reason="the extra `tasks` is not installed")
from reasoning_gym.factory import DATASETS  # noqa: E402

SMALL = {"train": 12, "held_out": 6}


def boxed(answer):
    return f"so \\boxed{{{answer}}}"


def task_of(name, **options):
    return make_task(f"reasoning_gym:{name}", **SMALL | options)


def test_items_are_the_packages_own_and_the_sides_disjoint():
    task = task_of("chain_sum", seed=2, held_out=40, train=60)
    theirs = reasoning_gym.create_dataset("chain_sum", seed=2 * 1_000_003)
    for i in range(40):
        assert (task.problem(i, "held_out").prompt, task.problem(i, "held_out").answer) == (
            theirs[i]["question"],
            theirs[i]["answer"],
        )
    train = {task.problem(i, "train").prompt for i in range(60)}
    assert (
        not train & {task.problem(i, "held_out").prompt for i in range(40)}
        and theirs[40]["question"] not in train
    )
    assert task.problem(60, "train").prompt == task.problem(0, "train").prompt  # training repeats
    assert task.problem(0, "train").messages[0]["content"].startswith(theirs[40]["question"])
    assert (
        task.problem(0, "train").messages[1]["content"]
        == f"Answer: \\boxed{{{theirs[40]['answer']}}}"
    )


def test_a_set_with_few_questions_is_refused_or_kept_apart():
    task = make_task("reasoning_gym:gcd", train=50, held_out=10, min_value=1, max_value=12)
    held_out = {task.problem(i, "held_out").prompt for i in range(10)}
    assert not held_out & {task.problem(i, "train").prompt for i in range(50)}
    tiny = make_task("reasoning_gym:gcd", train=5, held_out=50, min_value=1, max_value=2)
    with pytest.raises(ValueError, match="too few different questions"):
        tiny.problem(0, "train")


def test_options_reach_the_set_and_kinds_come_from_its_metadata():
    task = task_of("chain_sum", min_terms=2, max_terms=3, by="num_terms")
    kinds = {task.problem(i, "train").kind for i in range(12)}
    assert kinds == {"num_terms 2", "num_terms 3"}
    with pytest.raises(ValueError, match="did you mean min_terms"):
        task_of("chain_sum", min_term=2)
    with pytest.raises(ValueError, match="did you mean gcd"):
        task_of("gdc")
    with pytest.raises(ValueError, match="refuses"):
        task_of("chain_sum", min_terms=5, max_terms=2)


@pytest.mark.parametrize(
    "name",
    [
        "chain_sum",
        "polynomial_multiplication",
        "n_queens",
        "spell_backward",
        "gsm_symbolic",
        "word_ladder",
    ],
)
def test_the_reference_is_right_and_parts_of_it_are_not(name):
    task = task_of(name)
    problem = task.problem(0, "held_out")
    wrong = [
        f"{problem.answer} or 7",
        f"it is {problem.answer}",
        problem.answer[:-1],
        "0x",
        f"7{problem.answer}7",
        problem.prompt,
    ]
    scores = score_all(task, [problem] * 7, [boxed(answer) for answer in (problem.answer, *wrong)])
    assert [score.verdict for score in scores] == [Verdict.CORRECT, *[Verdict.WRONG] * 6], scores
    assert {score.value for score in scores[1:]} == {0.1}


def test_other_right_answers_count_where_the_scorer_is_trusted():
    task = task_of("polynomial_multiplication")
    problem = task.problem(0, "held_out")
    terms = problem.answer.replace(" - ", " + -").split(" + ")
    assert (
        not task.distrusted
        and task.score(problem, boxed(" + ".join(reversed(terms)))).verdict is Verdict.CORRECT
    )


def test_items_do_not_depend_on_the_process():
    """These sets draw from Python sets of strings, so elsewhere their items change with PYTHONHASHSEED."""
    names = ("isomorphic_strings", "word_ladder", "ransom_note")
    code = (
        "from deepwright.tasks import make_task\n"
        f"for name in {names}:\n"
        f"    task = make_task(f'reasoning_gym:{{name}}', **{SMALL})\n"
        "    print(task.problem(5, 'train').prompt)"
    )
    here = "".join(task_of(name).problem(5, "train").prompt + "\n" for name in names)
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert there.stdout == here


@pytest.mark.parametrize("name", ["game_of_life_halting", "coin_flip", "gsm_symbolic"])
def test_scorers_that_pay_for_anything_are_not_trusted(name):
    """Each of these pays 1.0 for plainly wrong answers, which the same dataset shows first."""
    task = task_of(name)
    theirs = reasoning_gym.create_dataset(name, seed=0)
    at = next(i for i in range(6) if len(theirs[i]["answer"]) > 1)
    problem, entry = task.problem(at, "held_out"), theirs[at]
    wrong = {
        "game_of_life_halting": "no idea",
        "coin_flip": entry["answer"][0],
        "gsm_symbolic": f"{entry['answer']} or 7",
    }[name]
    assert theirs.score_answer(wrong, entry) == 1.0
    assert task.distrusted and "not trusted" in task.score(problem, boxed(wrong)).detail


@pytest.mark.parametrize(
    "name",
    [
        "spiral_matrix",
        "string_insertion",
        "binary_matrix",
        "n_queens",
        "polynomial_multiplication",
        "simple_integration",
        "countdown",
    ],
)
def test_no_answer_runs_as_python(name, tmp_path):
    """These scorers hand the answer to eval, or to sympy, which evaluates it."""
    task, mark = task_of(name), tmp_path / "ran"
    calls = [
        f"open('{mark}', 'w')",
        f"[open('{mark}', 'w')]",
        f"__import__('os').system('touch {mark}')",
        f"(lambda: open('{mark}', 'w'))()",
    ]
    start = time.monotonic()
    scores = score_all(
        task,
        [task.problem(0, "held_out")] * 5,
        [boxed(call) for call in (*calls, "[__import__('time').sleep(60)]")],
    )
    assert (
        all(score.verdict is Verdict.WRONG for score in scores)
        and not mark.exists()
        and time.monotonic() - start < 50
    )


def test_an_answer_that_the_scorer_cannot_read_is_wrong_and_one_that_hangs_it_failed():
    primes = task_of("prime_factorization")
    assert primes.score(primes.problem(0, "held_out"), boxed("x")).verdict is Verdict.WRONG
    polynomials = task_of("polynomial_multiplication", seconds=1.5)
    score = polynomials.score(polynomials.problem(0, "held_out"), boxed("9**9**9**9"))
    assert (
        score.verdict is Verdict.FAILED
        and score.value == 0
        and "no verdict within 1.5 s" in score.detail
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"composite"}))
def test_every_set_makes_problems_and_holds(name):
    from deepwright.tasks.attacks import report

    task = make_task(f"reasoning_gym:{name}", train=4, held_out=3)
    assert isinstance(task.problem(0, "train"), Problem)
    found = report(task, 2)
    assert found.held and not found.odd, found.lines()


def test_missing_package_is_one_sentence(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"needs the package 'reasoning-gym': pip install 'deepwright\[tasks\]'"
    ):
        task_of("gcd")
