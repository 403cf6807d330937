"""User rewards by TRL's contract: what breaks it is FAILED and named."""

import datetime
import textwrap
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from deepwright.sampler import Completion, StopReason
from deepwright.tasks import Problem, Sampled, UserReward, Verdict, make_task, score_all
from deepwright.tasks.code import read_tests

REWARDS = """
    import time
    from functools import partial
    try:
        from beside import outside
    except ImportError:
        outside = None
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
    def ids(completion_ids): return [float(sum(one)) for one in completion_ids]
    def exact(answer, completions):
        return [float(a in c[0]["content"]) for a, c in zip(answer, completions)]
    async def slowly(completions, **columns):
        import asyncio
        await asyncio.sleep(0.01)
        return [1.0] * len(completions)
    def scaled(completions, scale, **columns): return [scale] * len(completions)
    half = partial(scaled, scale=0.5)
    class Judge:
        def __init__(self, value): self.value = value
        def __call__(self, completions): return (self.value for _ in completions)
        async def later(self, prompts): return [self.value] * len(prompts)
    judge = Judge(0.25)
    later: object = judge.later
    one = lambda completions: map(len, completions)
    def state(trainer_state, completions):
        return [trainer_state.global_step / trainer_state.max_steps] * len(completions)
    def epoch(trainer_state, completions): return [trainer_state.epoch] * len(completions)
    def logs(completions, log_extra, log_metric):
        import numpy as np
        log_extra("words", [len(c[0]["content"].split()) for c in completions])
        log_extra("said", [c[0]["content"] for c in completions])
        log_metric("rate", 0.25)
        log_metric("rate", np.float32(0.75))
        return [1.0] * len(completions)
    def logs_too_little(completions, log_extra):
        log_extra("words", [1])
        return [1.0] * len(completions)
    def numbers(completions):
        import numpy as np
        import torch
        if len(completions) == 4:
            return np.array([1, 0.5, 1.0, 0.25])
        return [torch.tensor(0.5), np.float32(1), np.bool_(True), False, np.int64(2), torch.ones(1)]
    def texts(completions): return ["0.5", b"1", 1j, [1.0], {}, "nan"]
    def table(completions): return {"a": 1.0}
    def endless(completions):
        while True: yield 1.0
    def missing(ground_truth): return [1.0] * len(ground_truth)
    def kinds(when, data, price, part, odd, tests, completions, **columns):
        import datetime
        from decimal import Decimal
        from fractions import Fraction
        row = [when[0], data[0], price[0], part[0], tests[0]]
        whole = [datetime.date(2020, 1, 2), b"\\xff", Decimal("1.50"), Fraction(1, 3)]
        right = row == [*whole, ["assert f(1) == 2"]]
        return [float(right and odd[0].startswith("<object") and columns["a b"] == [(1, 2)])]
    number = 3.0
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


def test_a_function_takes_what_its_signature_says(path):
    """With or without **columns; where nothing was sampled the bytes are the tokens."""
    text = scored(path, "ids", 1)[0]
    sums = sum(f"\\boxed{{{make_task('calc3').problem(0, 'train').answer}}}".encode())
    assert text.value == sums
    assert scored(path, "exact", 2)[0].value == 1.0


CALLABLE = {"slowly": 1.0, "half": 0.5, "judge": 0.25, "later": 0.25, "one": 1.0}


@pytest.mark.parametrize("name, value", CALLABLE.items())
def test_anything_callable_will_do(path, name, value):
    assert [score.value for score in scored(path, name, 3)] == [value] * 3


def test_what_was_sampled_is_handed_over(path):
    task = UserReward(make_task("calc3"), f"{path}:ids")
    problems = [task.problem(i, "train") for i in range(2)]
    sampled = Sampled([[1, 2], [3, 4, 5]], 30, 40)
    assert [s.value for s in score_all(task, problems, ["a", "b"], sampled)] == [3.0, 12.0]
    task = UserReward(make_task("calc3"), f"{path}:state")
    assert [s.value for s in score_all(task, problems, ["a", "b"], sampled)] == [0.75] * 2
    assert [s.value for s in score_all(task, problems, ["a", "b"])] == [0.0] * 2
    task = UserReward(make_task("calc3"), f"{path}:epoch")
    assert "has no 'epoch' here, only global_step, max_steps" in task.score(problems[0], "a").detail


def test_ids_and_step_come_from_the_loop(path):
    """Those of completions that ended; the end token is one of them, as in TRL."""
    from deepwright.evaluate.scoring import score_completions

    task = UserReward(make_task("calc3"), f"{path}:ids")
    problems = [task.problem(i, "train") for i in range(3)]
    ends = (StopReason.STOP, StopReason.LENGTH, StopReason.STOP)
    made = [Completion((7, n), (-1.0, -1.0), end) for n, end in enumerate(ends)]
    scores = score_completions(task, problems, made, ["a", "b", "c"], 3, 9)
    assert [score.value for score in scores] == [7.0, 0.0, 9.0]
    task = UserReward(make_task("calc3"), f"{path}:state")
    assert score_completions(task, problems[:1], made[:1], ["a"], 3, 9)[0].value == 3 / 9


def test_what_is_logged_is_kept_with_each_sample(path, tmp_path):
    right, other = scored(path, "logs")
    assert right.logged == {"words": 1, "said": right.logged["said"], "rate": 0.5}
    assert other.logged["said"].startswith("\\boxed") and right.value == 1.0
    (broken, _) = scored(path, "logs_too_little")
    assert "log_extra('words') has not a value for each of 2" in broken.detail


def test_logged_values_stand_in_the_samples(path, tmp_path):
    import json

    from deepwright.rl.grpo import write_samples
    from deepwright.rl.types import Group, Rollout

    (score,) = scored(path, "logs", 1)
    problem = make_task("calc3").problem(0, "train")
    rollout = Rollout(problem, (1,), Completion((7,), (-1.0,), StopReason.STOP), "a", score)
    write_samples(tmp_path / "samples.jsonl", "zero", 1, [Group((rollout,))], 1)
    assert json.loads((tmp_path / "samples.jsonl").read_text())["logged"]["rate"] == 0.5


def test_numbers_of_every_library_count(path):
    assert [s.value for s in scored(path, "numbers", 4)] == [1.0, 0.5, 1.0, 0.25]
    assert [s.value for s in scored(path, "numbers", 6)] == [0.5, 1.0, 1.0, 0.0, 2.0, 1.0]


def test_text_is_no_number(path):
    named = ("str '0.5'", "bytes", "complex", "list", "dict", "str 'nan'")
    for score, said in zip(scored(path, "texts", 6), named):
        assert score.verdict is Verdict.FAILED and f"gave {said}" in score.detail


def test_values_of_rows_arrive_as_they_are(path):
    """Dates, bytes, exact numbers, tuples; anything else as its text."""
    row = {"when": datetime.date(2020, 1, 2), "data": b"\xff", "price": Decimal("1.50")}
    row |= {"part": Fraction(1, 3), "odd": object(), "a b": (1, 2)}
    row |= {"tests": read_tests(["assert f(1) == 2"])}
    task = UserReward(make_task("calc3"), f"{path}:kinds")
    problem = Problem(0, "?", "1", "all", (), row | {"x": np.float32(1)})
    assert task.score(problem, "a").value == 1.0, task.score(problem, "a").detail


def test_modules_are_those_of_its_own_folder(tmp_path):
    """Also where they have the name of one of ours, or of another reward's."""
    for folder, value in (("one", 0.25), ("two", 0.75)):
        (tmp_path / folder).mkdir()
        for name in ("pool", "files", "scoring"):
            (tmp_path / folder / f"{name}.py").write_text(f"VALUE = {value}\n")
        (tmp_path / folder / "r.py").write_text(
            "import pool\nfrom files import VALUE\ndef f(completions):\n    import scoring, code\n"
            "    assert hasattr(code, 'interact') and pool.VALUE == VALUE\n"
            "    return [scoring.VALUE] * len(completions)\n"
        )
        assert scored(tmp_path / folder / "r.py", "f", 1)[0].value == value


@pytest.mark.parametrize(
    "name, said",
    [
        ("table", "returned a dict"), ("endless", "returned more than 2 rewards for 2"),
        ("missing", "missing 1 required positional argument: 'ground_truth'"),
        ("number", "number is a float, expected a function"),
        ("outside", "outside is a NoneType, expected a function"),
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
        ("{}:value", "no function 'value'"),
        ("{}:0", "FILE.py:FUNCTION"),
        ("gone.py:f", "a file that is there"),
        ("{0}:fair,{0}:sees", "one FILE.py:FUNCTION"),
    ],
)
def test_bad_names(path, reward, said):
    """Names in a function or a class are no names of the file."""
    with pytest.raises(ValueError, match=said):
        make_task("calc3", reward=reward.format(path))
