"""Wrong variants of AdamW with moments in bfloat16, each rejected by tests/train/test_optimizer.py."""

import pytest
import torch

from deepwright.train import optimizer
from tests.train import test_optimizer as checks


def rounded_before_use(original):
    def step(p, grad, first, second, *, step, rate, betas, eps, decay):
        before = p.detach().clone()
        original(p, grad, first, second, step=step, rate=rate, betas=betas, eps=eps, decay=decay)
        root = (second.float() / (1 - betas[1] ** step)).sqrt() + eps
        p.copy_(before * (1 - rate * decay) - rate * first.float() / (1 - betas[0] ** step) / root)

    return step


def cut_off_instead_of_rounded(original):
    def step(p, grad, first, second, **settings):
        held = first.float().lerp(grad, 1 - settings["betas"][0])
        original(p, grad, first, second, **settings)
        first.copy_((held.view(torch.int32) & ~0xFFFF).view(torch.float32))

    return step


def decay_without_the_rate(original):
    return lambda *tensors, rate, decay, **rest: original(
        *tensors, rate=rate, decay=decay / 10, **rest
    )


@pytest.mark.parametrize(
    "wrong",
    [rounded_before_use, cut_off_instead_of_rounded, decay_without_the_rate],
    ids=lambda f: f.__name__,
)
def test_twin_is_rejected(wrong, monkeypatch):
    monkeypatch.setattr(optimizer, "adamw_half_", wrong(optimizer.adamw_half_))
    with pytest.raises(AssertionError):
        checks.check_moments_in_bfloat16()
