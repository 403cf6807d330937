"""Every variant's loss and gradient: numbers computed by hand on two ragged groups, and TRL's published formulas written out once more.

TRL takes std with ddof 1 and adds 1e-4, so its advantages are not ours; from the same advantages its losses must be.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deepwright.rl.advantages import centred, leave_one_out, standardised_over_tokens
from deepwright.rl.losses import (
    VARIANTS,
    Coefficients,
    Terms,
    clipped_share,
    importance,
    policy_loss,
)
from deepwright.rl.rollout import mini_batches, training_rows
from deepwright.rl.types import Row, pad_rows
from deepwright.rl.update import loss_terms
from deepwright.verify.checks_rl import group_of

# Group one: rewards 1 and 0 on completions of 1 and 2 tokens; group two: rewards 3, 0, 0 on 1, 1 and 3 tokens. L = 4.
GROUPS = [group_of(1.0, 0.0, lengths=(1, 2)), group_of(3.0, 0.0, 0.0, lengths=(1, 1, 3))]
LONGEST = 4
# of the 8 tokens, in order; powers of 2 where they multiply
RATIOS = torch.tensor([1.5, 0.5, 0.5, 1.25, 2.0, 0.5, 1.0, 4.0], dtype=torch.float64)
CLIP = Coefficients(0.25, 0.0, 0.375)  # interval [0.75, 1.375]
R2 = math.sqrt(2)


def rows_of(name: str) -> list[Row]:
    [rows] = mini_batches(
        training_rows(GROUPS, VARIANTS[name], drop_zero_variance=True),
        1,
        VARIANTS[name],
        0,
        0,
        LONGEST,
    )
    return rows


def loss_and_gradient(name: str, coefficients: Coefficients = CLIP) -> tuple[float, Tensor]:
    batch = pad_rows(rows_of(name), 0)
    log_probs = RATIOS.log().requires_grad_()
    terms = replace(
        loss_terms(log_probs, batch), old_log_probs_T=torch.zeros(8, dtype=torch.float64)
    )
    loss = policy_loss(VARIANTS[name].objective(terms, coefficients), batch.weights_T.double())
    loss.backward()
    return float(loss.detach()), log_probs.grad


# Standardised advantages: group one (r - 1/2) / (1/2) = +1, -1; group two (r - 1) / sqrt(2) = +sqrt(2), -1/sqrt(2) twice.
# min(rho A, clip(rho) A), token by token: 1.375 | -0.75 -0.75 | 1.25 sqrt2 | -2/sqrt2 | -0.75/sqrt2 -1/sqrt2 -4/sqrt2.
# Clipped tokens, without gradient: 0 (1.5 above), 1 and 2 (0.5 below, A < 0), 5 (0.5 below, A < 0). d(rho A)/d log pi = rho A.
TOKENS = [1.375, -0.75, -0.75, 1.25 * R2, -2 / R2, -0.75 / R2, -1 / R2, -4 / R2]
SLOPES = [0, 0, 0, 1.25 * R2, -2 / R2, 0, -1 / R2, -4 / R2]
BY_HAND = {
    # 1/5 of the sum of the completions' means; a token weighs 1/(5 |o|)
    "grpo": (
        -(1.375 - 0.75 + 1.25 * R2 - 2 / R2 - 5.75 / R2 / 3) / 5,
        [-s / (5 * n) for s, n in zip(SLOPES, (1, 2, 2, 1, 1, 3, 3, 3), strict=True)],
    ),
    # 1/8 of the sum over tokens
    "grpo_token_mean": (-sum(TOKENS) / 8, [-s / 8 for s in SLOPES]),
    "dapo": (-sum(TOKENS) / 8, [-s / 8 for s in SLOPES]),
    # A = r - m: +-1/2; 2, -1, -1. Sum over tokens / (5 * 4).
    "dr_grpo": (
        -(1.375 / 2 - 0.75 + 1.25 * 2 - 2.0 - 0.75 - 1.0 - 4.0) / 20,
        [-s / 20 for s in (0, 0, 0, 2.5, -2.0, 0, -1.0, -4.0)],
    ),
    # geometric means: 1.5 (clipped), 0.5 (clipped), 1.25, 2, (0.5 * 1 * 4)^(1/3) = 2^(1/3) = 1.26; the slope of each of |o| tokens is s A / |o|
    "gspo": (
        -(1.375 - 0.75 + 1.25 * R2 - 2 / R2 - 2 ** (1 / 3) / R2) / 5,
        [-s / 5 for s in (0, 0, 0, 1.25 * R2, -2 / R2, *[-(2 ** (1 / 3)) / R2 / 3] * 3)],
    ),
    # A = r minus the mean of the others: 1, -1; 3, -3/2, -3/2. Products: 1.5 (clipped), 0.25 (clipped), 1.25, 2, 2; the slope of a token is s A.
    "rloo": (
        -(1.375 - 0.75 + 3.75 - 3.0 - 3.0) / 5,
        [-s / 5 for s in (0, 0, 0, 3.75, -3.0, -3.0, -3.0, -3.0)],
    ),
}
# reinforce_baseline: r - m is 1/2 | -1/2 -1/2 | 2 | -1 | -1 -1 -1 over the 8 tokens: mean -5/16, mean square 35/32 less (5/16)^2 = 255/256.
M, S = -5 / 16, math.sqrt(8.75 / 8 - 25 / 256)
A1, A2, A3, A4 = ((a - M) / S for a in (0.5, -0.5, 2.0, -1.0))
BY_HAND["reinforce_baseline"] = (
    -(1.375 * A1 + 2 * 0.75 * A2 + 1.25 * A3 + 2.0 * A4 + (0.75 + 1.0 + 4.0) * A4) / 8,
    [-s / 8 for s in (0, 0, 0, 1.25 * A3, 2.0 * A4, 0, A4, 4.0 * A4)],
)


@pytest.mark.parametrize("name", VARIANTS)
def test_hand_computed_loss_and_gradient(name):
    expected_loss, expected_gradient = BY_HAND[name]
    loss, gradient = loss_and_gradient(name)
    # 1e-6 is added to a std of 1/2 and more: 2e-6 of an advantage, so 4e-6 of a mean of objectives of up to 2 that may cancel
    assert loss == pytest.approx(expected_loss, abs=4e-6)
    assert gradient.tolist() == pytest.approx(expected_gradient, rel=1e-5, abs=1e-9)


def trl_loss(
    loss_type: str,
    level: str,
    new: Tensor,
    old: Tensor,
    ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    sampled: Tensor,
) -> Tensor:
    """TRL's GRPOTrainer._compute_loss on padded [B, T] tensors in float64: `loss_type` and `importance_sampling_level` as there, epsilon 0.2,
    epsilon_high 0.28, beta 0.04, vllm_importance_sampling_correction with cap 1.1, max_completion_length 9. `rloo` is RLOOTrainer's, without KL."""
    log_ratio = new - old
    if loss_type == "rloo":
        coef = (log_ratio * mask).sum(-1).exp()
        return -torch.min(coef * advantages, coef.clamp(0.8, 1.28) * advantages).mean()
    if level == "sequence":
        log_ratio = ((log_ratio * mask).sum(-1) / mask.sum(-1))[:, None]
    coef = log_ratio.exp()
    per_token = -torch.min(coef * advantages[:, None], coef.clamp(0.8, 1.28) * advantages[:, None])
    per_token = per_token * (old - sampled).exp().clamp(max=1.1)
    per_token = per_token + 0.04 * ((ref - new).exp() - (ref - new) - 1)
    if loss_type == "grpo":
        return ((per_token * mask).sum(-1) / mask.sum(-1)).mean()
    if loss_type == "dr_grpo":
        return (per_token * mask).sum() / (len(mask) * 9)
    # "bnpo" on one batch, "dapo" over all of them: one and the same here
    return (per_token * mask).sum() / mask.sum()


@pytest.mark.parametrize(
    ("name", "loss_type", "level"),
    [
        ("grpo", "grpo", "token"),
        ("grpo_token_mean", "bnpo", "token"),
        ("dapo", "dapo", "token"),
        ("dr_grpo", "dr_grpo", "token"),
        ("gspo", "grpo", "sequence"),
        ("rloo", "rloo", "sequence"),
        (
            "reinforce_baseline",
            "dapo",
            "token",
        ),  # with the same advantages: TRL has no such baseline
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_loss_and_gradient_are_trls_where_the_definitions_coincide(name, loss_type, level, side):
    generator = torch.Generator().manual_seed(3)
    lengths, advantages = (2, 5, 1, 7), torch.tensor([0.8, -0.3, 1.2, -1.7], dtype=torch.float64)
    new, old, ref, sampled = (
        (torch.randn(15, generator=generator) * 0.3 - 2.0).double().split(lengths) for _ in range(4)
    )
    rows = [
        Row(
            (1,),
            (2,) * n,
            tuple(s.tolist()),
            float(a),
            math.nan,
            tuple(o.tolist()),
            tuple(r.tolist()),
        )
        for n, a, o, r, s in zip(lengths, advantages, old, ref, sampled, strict=True)
    ]
    [rows] = mini_batches(rows, 1, VARIANTS[name], 0, 0, 9)
    batch, leaf = pad_rows(rows, 0), torch.cat(new).float().requires_grad_()
    coefficients = (
        Coefficients(0.2, 0.0, 0.28) if name == "rloo" else Coefficients(0.2, 0.04, 0.28, 1.1)
    )
    ours = policy_loss(
        VARIANTS[name].objective(loss_terms(leaf, batch), coefficients), batch.weights_T
    )
    ours.backward()

    def padded(parts, fill):
        return torch.stack(
            [
                torch.nn.functional.pad(
                    p, (7 - len(p), 0) if side == "left" else (0, 7 - len(p)), value=fill
                )
                for p in parts
            ]
        )

    leaves = [p.clone().requires_grad_() for p in new]
    mask = padded([torch.ones(n, dtype=torch.float64) for n in lengths], 0.0)
    theirs = trl_loss(
        loss_type,
        level,
        padded(leaves, -1.0),
        padded(old, -2.0),
        padded(ref, -0.5),
        advantages,
        mask,
        padded(sampled, -3.0),
    )
    theirs.backward()
    # fp32 with about ten operations on numbers of order 1 against float64
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5, abs=1e-6)
    assert torch.allclose(
        leaf.grad.double(), torch.cat([p.grad for p in leaves]), rtol=1e-5, atol=1e-6
    )


def test_advantages_by_hand():
    assert centred([1.0, 0.0, 0.5]) == [0.5, -0.5, 0.0]
    assert leave_one_out([3.0, 0.0, 0.0]) == pytest.approx([3.0, -1.5, -1.5])
    assert standardised_over_tokens([1.0, -1.0], [3, 1]) == pytest.approx(
        [0.5 / math.sqrt(0.75), -1.5 / math.sqrt(0.75)], rel=1e-5
    )
    for rule in (centred, leave_one_out):
        assert rule([0.1] * 12) == [0.0] * 12 and rule([0.7]) == [0.0] and rule([]) == []
    assert standardised_over_tokens([0.0, 0.0], [5, 1]) == [0.0, 0.0]


def test_importance_weights_are_truncated_above_and_carry_no_gradient():
    old = torch.tensor([0.5, 0.5, 0.5]).log().requires_grad_()
    sampled = torch.tensor([0.25, 0.5, 0.1]).log()
    weights = importance(
        Terms(old, old.detach(), None, torch.ones(3), torch.zeros(3, dtype=torch.int64), sampled),
        3.0,
    )
    assert weights.tolist() == pytest.approx([2.0, 1.0, 3.0]) and not weights.requires_grad


def test_what_counts_as_clipped_follows_the_variants_ratio():
    rows = torch.tensor([0, 0])
    terms = Terms(torch.tensor([0.5, -0.5]), torch.zeros(2), None, torch.ones(2), rows)
    assert clipped_share(terms, CLIP).tolist() == [True, False]
    assert not clipped_share(terms, CLIP, VARIANTS["gspo"].ratio).any()  # the two cancel
    assert clipped_share(
        Terms(torch.tensor([0.2, 0.2]), torch.zeros(2), None, torch.ones(2), rows),
        CLIP,
        VARIANTS["rloo"].ratio,
    ).all()


def test_gspo_survives_sequences_whose_product_overflows():
    log_ratio = torch.full((2000,), 0.1, requires_grad=True)
    terms = Terms(
        log_ratio, torch.zeros(2000), None, torch.ones(2000), torch.zeros(2000, dtype=torch.int64)
    )
    value = VARIANTS["gspo"].objective(terms, Coefficients(10.0, 0.0)).mean()
    value.backward()
    assert (
        float(value.detach()) == pytest.approx(math.exp(0.1), rel=1e-4)
        and torch.isfinite(log_ratio.grad).all()
    )
