"""pass@1, pass@k, cons@k against brute force and hand numbers."""

from __future__ import annotations

import math
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
    assert (
        few.standard_error == pytest.approx(many.standard_error) == pytest.approx(0.5)
    )  # sd sqrt(1/2) over sqrt(2)
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
    answers = [
        list("aab" + "bba" + "aa")
    ]  # 8 samples, k 3: two votes, the last two samples are left
    right = [[answer == "a" for answer in answers[0]]]
    assert cons_at_k(answers, right, 3).value == 0.5


def test_values_are_compared_not_spellings():
    answers = [[Fraction(4, 2), Fraction(2), Fraction(3), None]]
    assert cons_at_k(answers, [[True, True, False, False]], 4).value == 1
