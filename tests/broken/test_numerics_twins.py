"""Wrong variants of what keeps numbers finite, each rejected by a named test."""

import pytest
import torch

from deepwright.inference import sampling
from deepwright.rl import advantages
from tests.broken.patched import must_reject
from tests.inference import test_sampling
from tests.rl import test_extremes as extremes


def squares_that_overflow(original):
    """In float64, without a unit of its own: of a reward of 1e155 the square is infinite."""

    def standardised(rewards):
        if len(set(rewards)) <= 1:
            return [0.0] * len(rewards)
        r = torch.tensor(rewards, dtype=torch.float64)
        return ((r - r.mean()) / (r.std(correction=0) + advantages.EPSILON)).tolist()

    return standardised


def test_advantages_whose_squares_overflow(tmp_path):
    check = extremes.check_standardised_against_fractions
    must_reject(check, advantages, "group_standardised", squares_that_overflow, tmp_path)


def unit_forgotten(original):
    return lambda values: (original(values)[0], 1.0)


def test_means_left_in_units(tmp_path):
    check = extremes.check_mean_and_deviation_against_fractions
    must_reject(check, advantages, "in_range", unit_forgotten, tmp_path)


def numbers_taken_on_trust(original):
    return lambda numbers_R: None


def the_first_row_speaks_for_all(original):
    return lambda numbers_R: original(numbers_R[:1])


@pytest.mark.parametrize("wrong", [numbers_taken_on_trust, the_first_row_speaks_for_all])
def test_a_sampler_that_lets_not_a_number_through(wrong, tmp_path):
    check = test_sampling.check_logits_that_are_no_numbers_are_refused
    must_reject(check, sampling, "_require_finite", wrong, tmp_path)
