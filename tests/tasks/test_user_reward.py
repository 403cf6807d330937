"""User rewards by TRL's contract: what breaks it is FAILED and named."""

import textwrap

import pytest

from deepwright.tasks import UserReward, Verdict, make_task, score_all

REWARDS = """
    import time
    def fair(completions, answer, **columns):
        return [1.0 if c[-1]["content"].endswith("{%s}" % a) else 0.25 for c, a in zip(completions, answer)]
    def sees(completions, prompts, kind, answer, **columns):
        assert prompts[0][-1]["role"] == "user" and kind[0].startswith("a") and completions[0][0]["role"] == "assistant"
        return [float(len(prompts))] * len(completions)
    def plain(completions, prompts, **columns): return [1.0 if isinstance(c, str) and isinstance(p, str) else 0.0 for c, p in zip(completions, prompts)]
    def short(completions, **columns): return [1.0]
    def nan(completions, **columns): return [float("nan"), 1.0, None, "well", float("inf"), True]
    def raises(completions, **columns): raise ZeroDivisionError("oh")
    def nothing(completions, **columns): return None
    def text(completions, **columns): return "1" * len(completions)
    def hangs(completions, **columns): time.sleep(600)
    def leaves(completions, **columns): raise SystemExit
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards") / "rewards.py"
    path.write_text(textwrap.dedent(REWARDS))
    return path


def scored(path, name, count=2, task="calc3", **options):
    task = UserReward(make_task(task), f"{path}:{name}", **options)
    problems = [task.problem(i, "train") for i in range(count)]
    return score_all(task, problems, [f"\\boxed{{{problems[0].answer}}}"] * count)


def test_values_are_the_functions_own(path):
    right, other = scored(path, "fair")
    assert (right.value, right.verdict, other.value, other.verdict) == (
        1.0,
        Verdict.CORRECT,
        0.25,
        Verdict.WRONG,
    )
    assert right.parts == {"accuracy": 1.0} and not right.formatted  # nobody looked at a format


def test_columns_follow_the_contract(path):
    assert [score.value for score in scored(path, "sees", 3)] == [3.0] * 3
    assert [score.value for score in scored(path, "plain", 2, task="countdown")] == [1.0] * 2
    task = make_task("calc3", reward=f"{path}:fair")
    assert (
        task.size("held_out") == 240
        and task.tokenizer_words() == ()
        and task.name == f"calc3 rewarded by {path}:fair"
    )


@pytest.mark.parametrize(
    "name, said",
    [
        ("short", "returned 1 rewards for 2 completions"), ("raises", "raised ZeroDivisionError: oh"), ("nothing", "returned a NoneType"),
        ("text", "returned a str"),
        ("hangs", "no verdict within 3 s"), ("leaves", "raised SystemExit"),
    ],
)  # fmt: skip
def test_a_broken_batch_fails_whole_and_is_named(path, name, said):
    for score in scored(path, name, seconds=3.0):
        assert (
            score.verdict is Verdict.FAILED
            and score.value == 0
            and said in score.detail
            and f"rewards.py:{name}" in score.detail
        )


def test_a_broken_value_fails_alone(path):
    scores = scored(path, "nan", 6)
    assert [score.verdict for score in scores] == [
        Verdict.FAILED,
        Verdict.CORRECT,
        *[Verdict.FAILED] * 3,
        Verdict.CORRECT,
    ]
    assert [
        "nan" in scores[0].detail,
        "None" in scores[2].detail,
        "well" in scores[3].detail,
        "inf" in scores[4].detail,
    ] == [True] * 4


@pytest.mark.parametrize(
    "reward, said",
    [
        ("rewards.txt:f", "FILE.py:FUNCTION"),
        ("{}", "FILE.py:FUNCTION"),
        ("{}:gone", "no function 'gone'"),
        ("{}:0", "FILE.py:FUNCTION"),
    ],
)
def test_bad_names(path, reward, said):
    with pytest.raises(ValueError, match=said):
        make_task("calc3", reward=reward.format(path))
