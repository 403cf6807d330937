"""Wrong ways of finding a token in two steps, and of keeping weights while decoding, each rejected by the test it names."""

import pytest
import torch

from deepwright.inference import sampling
from deepwright.numerics import pointwise, precision
from tests.inference import test_sampling
from tests.numerics import test_precision


def place_that_forgets_what_came_before(weights_RV, u_R):
    """Looks inside the right stretch for the whole threshold, not for what is left of it."""
    width = sampling.STRETCH
    padded = torch.nn.functional.pad(weights_RV, (0, -weights_RV.shape[1] % width)).view(
        len(weights_RV), -1, width
    )
    ends = padded.sum(-1, dtype=torch.float64).cumsum(-1)
    stretch = torch.searchsorted(ends, u_R[:, None] * ends[:, -1:], right=True).clamp(
        max=padded.shape[1] - 1
    )
    inside = padded[torch.arange(len(padded)), stretch[:, 0]].double().cumsum(-1)
    place = torch.searchsorted(inside, u_R[:, None] * ends[:, -1:], right=True)
    return (stretch * width + place)[:, 0].clamp(max=weights_RV.shape[1] - 1)


def one_layout_for_all(x, weight):
    if precision._kept is None or torch.is_grad_enabled():
        return None
    packed = precision._kept.setdefault((0, "packed"), weight.bfloat16())
    return torch.nn.functional.linear(x, packed)


def test_a_wrong_place_is_rejected(monkeypatch):
    monkeypatch.setattr(test_sampling, "invert", place_that_forgets_what_came_before)
    with pytest.raises(AssertionError):
        test_sampling.check_two_steps_find_what_one_sum_finds()


def test_a_layout_of_another_weight_is_rejected(monkeypatch):
    monkeypatch.setattr(pointwise, "packed_linear", one_layout_for_all)
    with pytest.raises(AssertionError):
        test_precision.check_products_of_kept_weights()
