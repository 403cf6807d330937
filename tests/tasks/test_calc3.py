"""The sums for a real chat model."""

import re

import pytest

from deepwright.tasks import Verdict, make_task
from deepwright.tasks.task import paid

TASK = make_task("calc3")


def test_problems_are_right_and_the_sides_disjoint():
    asked = {
        split: [TASK.problem(i, split) for i in range(TASK.size(split))]
        for split in ("train", "held_out")
    }
    for problem in asked["train"] + asked["held_out"]:
        expression = re.fullmatch(r"Work out ([0-9 +-]+)\.", problem.prompt)[1]
        assert eval(expression) == int(problem.answer)
        signs = [c for c in expression if c in "+-"]
        assert problem.kind == f"a{signs[0]}b{signs[1]}c" and all(
            1 <= int(n) <= 10 for n in re.findall(r"\d+", expression)
        )
    train, held_out = (
        {problem.prompt for problem in asked[split]} for split in ("train", "held_out")
    )
    assert len(train) == 2000 and len(held_out) == 240 and not train & held_out
    kinds = [problem.kind for problem in asked["held_out"]]
    assert set(kinds) == {"a+b+c", "a+b-c", "a-b+c"} and min(map(kinds.count, set(kinds))) > 50


def test_a_problem_stays_on_its_side_whatever_the_seed():
    other = make_task("calc3", seed=7)
    held_out = {other.problem(i, "held_out").prompt for i in range(240)}
    assert not held_out & {TASK.problem(i, "train").prompt for i in range(2000)}
    assert held_out != {TASK.problem(i, "held_out").prompt for i in range(240)}


def test_the_worked_example_is_right_and_never_asked():
    problem = TASK.problem(0, "train")
    asked, shown, question = (turn["content"] for turn in problem.messages)
    assert [turn["role"] for turn in problem.messages] == ["user", "assistant", "user"]
    assert question == f"{problem.prompt}\nPut the final answer in \\boxed{{}}."
    for left, right in re.findall(r"([0-9+ -]+) = (-?[0-9]+)", shown):
        assert eval(left) == int(right)
    expression = re.match(r"Work out (.*)\.", asked)[1]
    assert shown.endswith(f"\\boxed{{{eval(expression)}}}")
    assert all(
        f"Work out {expression}." != TASK.problem(i, split).prompt
        for split in ("train", "held_out")
        for i in range(240)
    )


@pytest.mark.parametrize(
    "completion, verdict",
    [
        (r"3 + 4 = 7, 7 - 9 = -2. \boxed{-2}", Verdict.CORRECT),
        (r"\boxed{ -2 }", Verdict.CORRECT),
        (r"\boxed{2}", Verdict.WRONG),
        (r"\boxed{7 - 9}", Verdict.WRONG),
        (r"\boxed{-2.0}", Verdict.WRONG),
        (r"\boxed{−2}", Verdict.WRONG),  # another minus
        (r"\boxed{-٢}", Verdict.WRONG),
        (r"\boxed{-2} \boxed{-2}", Verdict.MALFORMED),
        ("-2", Verdict.MALFORMED),
    ],
)
def test_scores(completion, verdict):
    from deepwright.tasks import Problem

    score = paid(TASK).score(Problem(0, "Work out 3 + 4 - 9.", "-2", "a+b-c"), completion)
    assert (
        score.verdict is verdict
        and score.value
        == {Verdict.CORRECT: 1.1, Verdict.WRONG: 0.1, Verdict.MALFORMED: 0.0}[verdict]
    )


def test_harder_sums_and_tags():
    hard = make_task("calc3", terms=5, largest=50, minuses=2, layout="tags", examples=2)
    problem = hard.problem(3, "held_out")
    assert (
        len(re.findall(r"\d+", problem.prompt)) == 5
        and len(problem.messages) == 5
        and "</answer>" in problem.messages[1]["content"]
    )
    assert (
        len(hard.patterns) == 1 + 4 + 6
        and max(hard.problems["train"], key=lambda one: max(one[0]))[0]
    )
    assert (
        hard.score(problem, f"<think> so </think> <answer> {problem.answer} </answer>").verdict
        is Verdict.CORRECT
    )


@pytest.mark.parametrize(
    "options, said",
    [
        ({"terms": 1}, "terms 1"), ({"minuses": 3}, "minuses 3"), ({"layout": "xml"}, "layout is 'xml'"), ({"train": 0}, "train is 0"),
        ({"train": 5000}, "different problems"), ({"larges": 3}, "did you mean largest"), ({"examples": -1}, "examples is -1"),
    ],
)  # fmt: skip
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        make_task("calc3", **options).problem(0, "train")
    with pytest.raises(ValueError, match="item 240"):
        TASK.problem(240, "held_out")
    with pytest.raises(ValueError, match="split is 'test'"):
        TASK.problem(0, "test")
