"""Rewards of any finite size: advantages against exact fractions, and whole rounds of every variant
that end finite or in one sentence.

Tolerance of an advantage: mean and difference are rounded at 2^-53 of the largest reward R, the
deviation s too, so it is off by a few times 2^-53 R / (s + 1e-6); a denormal one by 5e-324.
"""

import json
import math
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import cycle

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepwright.metrics import JsonlTracker
from deepwright.rl import advantages, train_grpo
from deepwright.rl.losses import VARIANTS
from deepwright.tasks import (
    FAMILIES,
    OPTION_TYPES,
    TASKS,
    Score,
    Verdict,
    make_task,
    safe_score,
)
from tests.rl.fakes import ONE_UPDATE, TOKENIZER, FakeSampler, SayYes, make_model

REWARDS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=7)
HUGE = 1.7976931348623157e308
ULPS = 16 * 2.0**-53


def root(square: Fraction) -> Fraction:
    """To 200 binary digits."""
    shift = max(0, 200 - (square.numerator.bit_length() - square.denominator.bit_length()) // 2)
    whole = math.isqrt(square.numerator * 4**shift // square.denominator)
    return Fraction(whole, 2**shift)


def exact(values: list[float]) -> tuple[list[Fraction], Fraction, Fraction]:
    numbers = [Fraction(value) for value in values]
    m = sum(numbers) / len(numbers)
    return numbers, m, root(sum((x - m) ** 2 for x in numbers) / len(numbers))


@settings(max_examples=200, deadline=None, report_multiple_bugs=False)
@given(REWARDS)
@example([1e155, 0.0, 0.0, 1.0])
@example([-1e300, 0.0, 1.0])
@example([HUGE, HUGE, 0.0])
@example([HUGE, -HUGE, 0.5])
@example([1.0, 0.0, 0.1, 1.1])
@example([5e-324, 0.0])
def check_standardised_against_fractions(rewards):
    found = advantages.group_standardised(rewards)
    if len(set(rewards)) == 1:
        assert found == [0.0] * len(rewards)
        return
    numbers, m, s = exact(rewards)
    bottom = s + Fraction(advantages.EPSILON)
    bound = ULPS * float(max(map(abs, numbers)) / bottom) + 5e-324 / advantages.EPSILON
    for ours, number in zip(found, numbers, strict=True):
        assert abs(ours - float((number - m) / bottom)) <= bound


@settings(max_examples=200, deadline=None, report_multiple_bugs=False)
@given(REWARDS)
@example([HUGE, HUGE, 0.0])
@example([HUGE, -HUGE])
def check_mean_and_deviation_against_fractions(values):
    numbers, m, s = exact(values)
    bound = ULPS * float(max(map(abs, numbers))) + 5e-324
    assert abs(advantages.mean(values) - float(m)) <= bound
    assert abs(advantages.deviation(values) - float(s)) <= bound


def test_group_statistics_are_exact_for_any_finite_reward():
    check_standardised_against_fractions()
    check_mean_and_deviation_against_fractions()


def test_ordinary_rewards_keep_every_bit():
    """Nothing is scaled up to 2^500: what `statistics` gives is what is used."""
    rewards = [0.1, 1.1, 0.0, 1e100, -3.7]
    assert advantages.in_range(rewards) == (rewards, 1.0)
    assert advantages.in_range(rewards)[0] is rewards


@dataclass(frozen=True)
class Pays:
    """SayYes's problems; completions earn the given rewards in turn. None: the verifier fails."""

    rewards: tuple[float | None, ...]
    name = "pays"
    problem, size = SayYes.problem, SayYes.size

    def score_many(self, problems, completions):
        turn = cycle(self.rewards)
        return [
            Score(0.0, Verdict.FAILED, "broken")
            if (value := next(turn)) is None
            else Score(value, Verdict.WRONG, "", {"accuracy": value})
            for _ in completions
        ]


def round_of(rewards, variant, folder):
    model = make_model()
    config = replace(ONE_UPDATE, steps=2, variant=variant, checkpoint_every=2, truncated="mask")
    if variant in ("gspo", "rloo", "grpo"):
        config = replace(config, mini_batches=2, clip=0.2, beta=0.1)
    tracker = JsonlTracker(folder / "metrics.jsonl")
    sampler = FakeSampler(model)
    train_grpo(config, model, TOKENIZER, Pays(rewards), sampler, folder / "zero", tracker)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return model, [json.loads(line) for line in lines]


EXTREME = {
    "1e155": (1e155, 0.0, 1.0, 0.0, 0.5, 1.0),
    "-1e300": (-1e300, 0.0, 1.0),
    "1e308 twice": (1e308, 1e308, 0.0, 1e308),
    "from end to end": (HUGE, -HUGE, 0.0, 1.0),
    "denormal": (5e-324, 0.0, 0.0),
    "equal and huge": (1e308,),
    "one scored": (1e300, None, None, None, None, None),
    "1e14": (1e14, 0.0, -1e14),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", EXTREME)
def test_a_round_of_extreme_rewards_is_finite_or_refused(name, variant, tmp_path):
    """All metrics numbers, all weights finite; or one sentence where nothing divides by a spread."""
    try:
        model, records = round_of(EXTREME[name], variant, tmp_path)
    except ValueError as error:
        divides = VARIANTS[variant].advantage is advantages.group_standardised
        assert not divides and name not in ("denormal", "equal and huge", "one scored", "1e14")
        assert str(error).startswith("an advantage is ") and "make the rewards smaller" in str(
            error
        )
        return
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert len(records) >= 1 and not any("not_finite" in record for record in records)
    assert all(value is not None for record in records for value in record.values())
    assert records[-1]["skipped_steps"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_a_failure_of_the_check(value):
    class Broken(SayYes):
        def score(self, problem, completion):
            return Score(value, Verdict.CORRECT, "", {"accuracy": value})

    score = safe_score(Broken(), SayYes().problem(0, "train"), "yes")
    assert score.verdict is Verdict.FAILED and "expected a finite number" in score.detail


PAID = [("countdown", "language_reward")] + [
    (task, "format_reward")
    for task in ("countdown", "requests", "calc3", "reasoning_gym:chain_sum")
]
NO_PAY = [-1.0, -1, math.nan, math.inf, -math.inf, "0.1", True, [0.1], None]


@pytest.mark.parametrize(("task", "option"), PAID)
@pytest.mark.parametrize("value", NO_PAY)
def test_what_a_task_pays_for_the_form_is_0_or_more(task, option, value):
    """Less would pay for breaking it."""
    with pytest.raises(ValueError, match=f"{option}.* expected"):
        make_task(task, **{option: value})


def test_every_option_of_every_task_has_a_type_that_is_checked():
    for kind in (*TASKS.values(), *FAMILIES.values()):
        options = {f.name: str(f.type) for f in fields(kind)}
        asked = options.keys() - {"set", "path", "config"}
        assert {options[name] for name in asked} <= OPTION_TYPES.keys()


@pytest.mark.parametrize(
    ("task", "option", "value"),
    [
        ("countdown", "count", 2.5),
        ("countdown", "languages", [["en"]]),
        ("countdown", "languages", "en"),
        ("calc3", "layout", ["tags"]),
        ("calc3", "train", math.inf),
        ("calc3", "train", True),
        ("requests", "languages", 3),
        ("file:rows.jsonl", "unconfined", 1),
        ("file:rows.jsonl", "seconds", "5"),
    ],
)
def test_options_of_the_wrong_type_are_one_sentence(task, option, value):
    with pytest.raises(ValueError, match=f"option '{option}' of task '{task}' is .*, expected "):
        make_task(task, **{option: value})
