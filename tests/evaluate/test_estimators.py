"""pass@1, pass@k, cons@k against brute force and hand numbers."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.evaluate.estimators import cons_at_k, over_problems, pass_at_1, pass_at_k


@given(
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4),
    st.integers(1, 6),
)
def test_pass_at_k_counts_every_subset_once(correct_Pn, k):
    brute = [
        sum(any(subset) for subset in combinations(right_n, k)) / math.comb(6, k)
        for right_n in correct_Pn
    ]
    assert pass_at_k(correct_Pn, k).value == pytest.approx(sum(brute) / len(brute), abs=1e-12)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_pass_at_one_is_pass_at_k_of_one(correct_Pn):
    once, of_one = pass_at_1(correct_Pn), pass_at_k(correct_Pn, 1)
    assert once.value == pytest.approx(of_one.value, abs=1e-12)


def test_a_k_above_the_samples_is_refused():
    for estimate in (
        lambda: pass_at_k([[True] * 4, [True] * 3], 4),
        lambda: cons_at_k([["a"] * 3], [[True] * 3], 4),
    ):
        with pytest.raises(ValueError, match="expected 1 <= k <= samples"):
            estimate()
    with pytest.raises(ValueError, match="expected 1 <= k <= samples"):
        pass_at_k([[True]], 0)


def test_standard_error_treats_a_problem_as_one_cluster():
    """Two problems, one always right and one never: n samples of each tell no more than one of each would."""
    few, many = pass_at_1([[True], [False]]), pass_at_1([[True] * 100, [False] * 100])
    # sd sqrt(1/2) over sqrt(2)
    assert few.standard_error == pytest.approx(many.standard_error) == pytest.approx(0.5)
    as_trials = math.sqrt(0.25 / 200)
    assert many.standard_error > 10 * as_trials
    assert math.isnan(over_problems([1.0]).standard_error)
    with pytest.raises(ValueError, match="0 problems"):
        over_problems([])


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        ("aab", (1, 1, 0), 1.0),
        ("abb", (1, 0, 0), 0.0),  # the majority can be wrong
        ("ab", (1, 0), 0.5),  # a tie is shared
        ("abc", (1, 0, 0), 1 / 3),
        ((None, None, "a"), (0, 0, 1), 1.0),  # malformed answers abstain, however many they are
        ((None, None), (0, 0), 0.0),  # all abstain
        (
            "aaa",
            (1, 0, 1),
            2 / 3,
        ),  # the same value, not always accepted (other numbers used): right as far as its samples are
    ],
)
def test_votes_by_hand(answers, right, expected):
    assert cons_at_k(
        [list(answers)], [[bool(flag) for flag in right]], len(answers)
    ).value == pytest.approx(expected)


def test_votes_use_fixed_disjoint_subsets():
    # 8 samples, k 3: two votes, the last two samples are left
    answers = [list("aab" + "bba" + "aa")]
    right = [[answer == "a" for answer in answers[0]]]
    assert cons_at_k(answers, right, 3).value == 0.5


def test_values_are_compared_not_spellings():
    answers = [[Fraction(4, 2), Fraction(2), Fraction(3), None]]
    assert cons_at_k(answers, [[True, True, False, False]], 4).value == 1


def intervals_hold():
    """By hand, z^2 = 3.841459. 0 of 100: z^2 / (100 + z^2). 10 of 10: 10 / (10 + z^2). 8 of 10:
    (0.8 + z^2 / 20 -+ sqrt(0.016 z^2 + z^4 / 400)) / (1 + z^2 / 10) = 0.71674 -+ 0.22658."""
    low, high = pass_at_1([[n < 8] for n in range(10)]).interval
    assert (low, high) == (pytest.approx(0.49016, abs=1e-5), pytest.approx(0.94332, abs=1e-5))
    assert pass_at_1([[False]] * 100).interval == (0.0, pytest.approx(0.036994, abs=1e-6))
    assert pass_at_1([[True]] * 10).interval == (pytest.approx(0.722467, abs=1e-6), 1.0)
    # Samples of a problem that are all alike say no more than one: still 100 trials, still 4.
    assert pass_at_1([[False] * 16] * 100).interval[1] == pytest.approx(0.036994, abs=1e-6)
    halves = pass_at_1([[True] * 4] * 2 + [[False] * 4] * 2)
    assert halves.interval == (pytest.approx(0.15004, abs=1e-5), pytest.approx(0.84996, abs=1e-5))
    # All problems equally hard: each of the 16 samples is a trial of its own.
    alike = pass_at_1([[True, True, False, False]] * 4)
    assert alike.interval == (pytest.approx(0.27999, abs=1e-5), pytest.approx(0.72001, abs=1e-5))
    # Between the two: shares 1, 3/4, 1/4, 0 have se^2 = (5/24) / 4, so 0.25 / (5/96) = 4.8 trials.
    mixed = pass_at_1([[True] * 4, [True] * 3 + [False], [True] + [False] * 3, [False] * 4])
    z2 = 1.959964**2 / 4.8
    half = math.sqrt(0.25 * z2 + z2 * z2 / 4) / (1 + z2)
    assert mixed.interval == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_intervals_by_hand():
    intervals_hold()
    assert pass_at_1([[True]]).interval == (pytest.approx(1 / (1 + 1.959964**2)), 1.0)
    assert pass_at_k([[False] * 4] * 9, 4).interval[1] == pytest.approx(3.841459 / (9 + 3.841459))
    assert cons_at_k([["a"] * 4] * 9, [[True] * 4] * 9, 4).interval[0] == pytest.approx(
        9 / 12.841459
    )


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6))
def test_an_interval_holds_its_value_and_is_no_narrower_than_that_of_all_samples(correct_Pn):
    found = pass_at_1(correct_Pn)
    low, high = found.interval
    assert 0 <= low <= found.value <= high <= 1 and high - low > 0.2
    everything = pass_at_1([[right] for right_n in correct_Pn for right in right_n])
    assert high - low >= everything.interval[1] - everything.interval[0] - 1e-12


def test_intervals_cover_what_they_should():
    """Problems of every difficulty, 4 samples each: of 600 intervals 95% should hold the mean, with
    a standard deviation of 0.9 points; samples taken for independent would do so in 81%."""
    draw = random.Random(1)
    inside = 0
    for _ in range(600):
        rates = [draw.betavariate(0.5, 0.5) for _ in range(60)]
        found = pass_at_1([[draw.random() < rate for _ in range(4)] for rate in rates])
        inside += found.interval[0] <= 0.5 <= found.interval[1]
    assert 0.95 - 3 * 0.009 <= inside / 600 <= 0.95 + 3 * 0.009
