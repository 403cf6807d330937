"""GRPO's formulas against hand numbers, and the bugs that such losses are known for (each test names its own)."""

from __future__ import annotations

import math

import pytest
import torch

from deepwright.rl.advantages import group_standardised
from deepwright.rl.losses import (
    VARIANTS,
    Coefficients,
    Terms,
    clipped,
    clipped_share,
    find_variant,
    k3,
    policy_loss,
)

from deepwright.rl.losses import sequence_mean, token_mean  # isort: skip

# Two completions of 1 and 3 tokens, ragged on purpose. Ratios pi/pi_old chosen, the log-probabilities follow.
OLD = torch.tensor([0.5, 0.25, 0.5, 0.8]).log()
RATIO = torch.tensor([1.5, 0.5, 1.0, 1.1])
REFERENCE = torch.tensor([0.6, 0.1, 0.5, 0.9]).log()
ADVANTAGES = torch.tensor([1.0, -1.0, -1.0, -1.0])
ROWS = torch.tensor([0, 1, 1, 1])


def terms(reference: torch.Tensor | None = None) -> Terms:
    return Terms((OLD + RATIO.log()).requires_grad_(), OLD, reference, ADVANTAGES, ROWS)


def test_hand_computed_objective_with_clipping_and_kl():
    # eps 0.2: token 0 A=+1 ratio 1.5 -> min(1.5, 1.2); token 1 A=-1 ratio 0.5 -> min(-0.5, -0.8); tokens 2, 3 inside the interval
    expected = [1.2, -0.8, -1.0, -1.1]
    # k3 with u = ref/pi: 0.6/0.75, 0.1/0.125, 0.5/0.5, 0.9/0.88
    kl = [u - math.log(u) - 1 for u in (0.8, 0.8, 1.0, 0.9 / 0.88)]
    assert torch.allclose(clipped(terms(), Coefficients(0.2, 0.0)), torch.tensor(expected))
    with_kl = torch.tensor([j - 0.5 * d for j, d in zip(expected, kl, strict=True)])
    # absolute 1e-6: fp32 exponentials and logarithms of numbers of order 1 (unit roundoff 6e-8, about ten operations)
    assert torch.allclose(
        clipped(terms(REFERENCE), Coefficients(0.2, 0.5)), with_kl, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("weights", "expected_loss", "expected_gradient"),
    [
        # -(1/2)[1.2 + (-0.8 - 1.0 - 1.1)/3]; gradient of rho w.r.t. log pi is rho, 0 where the clipped branch is the minimum
        (sequence_mean([1, 3]), -(1.2 - 2.9 / 3) / 2, [0.0, 0.0, 1.0 / 6, 1.1 / 6]),
        # -(1/4)[1.2 - 0.8 - 1.0 - 1.1]
        (token_mean([1, 3]), -(1.2 - 2.9) / 4, [0.0, 0.0, 1.0 / 4, 1.1 / 4]),
    ],
)
def test_hand_computed_loss_and_gradient_for_both_normalisers(
    weights, expected_loss, expected_gradient
):
    given = terms()
    loss = policy_loss(clipped(given, Coefficients(0.2, 0.0)), torch.tensor(weights)[ROWS])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected_loss, abs=1e-6)
    assert given.log_probs_T.grad.tolist() == pytest.approx(expected_gradient, abs=1e-6)


def test_clipped_share_is_where_the_ratio_gives_no_gradient():
    assert clipped_share(terms(), Coefficients(0.2, 0.0)).tolist() == [True, True, False, False]
    # R1's epsilon: only ratios above 11 are cut
    assert not clipped_share(terms(), Coefficients(10.0, 0.0)).any()
    assert not clipped_share(terms(), Coefficients(math.inf, 0.0)).any()


def test_normalisers_sum_to_one_and_differ_in_what_a_token_of_a_long_answer_weighs():
    for weights_of in (sequence_mean, token_mean):
        assert sum(
            weight * length for weight, length in zip(weights_of([1, 3, 8]), [1, 3, 8], strict=True)
        ) == pytest.approx(1)
    assert sequence_mean([1, 3]) == [1 / 2, 1 / 6]
    assert token_mean([1, 3]) == [1 / 4, 1 / 4]


def test_first_on_policy_loss_is_zero_but_its_gradient_is_not():
    log_probs = OLD.clone().requires_grad_()
    advantages = torch.tensor([3.0, -1.0, -1.0, -1.0])
    objective = clipped(
        Terms(log_probs, log_probs.detach(), None, advantages, ROWS), Coefficients(math.inf, 0.0)
    )
    loss = policy_loss(objective, torch.full((4,), 0.25))
    loss.backward()
    assert float(loss.detach()) == 0
    assert log_probs.grad.tolist() == [-0.75, 0.25, 0.25, 0.25]  # -w A: exact in binary


def test_weights_of_zero_give_a_finite_zero():
    given = terms(REFERENCE)
    loss = policy_loss(clipped(given, Coefficients(0.2, 0.5)), torch.zeros(4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert given.log_probs_T.grad.abs().max() == 0


def test_k3_is_never_negative_and_zero_only_at_equality():
    log_probs = torch.linspace(-8, 0, 81)
    values = k3(log_probs[:, None], log_probs[None, :])
    assert (values >= 0).all()
    assert torch.equal(values == 0, torch.eye(81, dtype=torch.bool))


def kl(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first.exp() * (first - second)).sum()


def expected_k3_gradient(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """sum_x pi(x) * d k3(x) / d logits, with the sampling distribution held fixed: what minibatches see on average."""
    policy = logits.log_softmax(-1)
    return torch.autograd.grad((policy.detach().exp() * k3(policy, reference)).sum(), logits)[0]


def test_k3_value_is_unbiased_and_its_gradient_is_that_of_the_reversed_kl():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, dtype=torch.float64, generator=generator).requires_grad_()
    reference = torch.randn(7, dtype=torch.float64, generator=generator).log_softmax(-1)
    policy = logits.log_softmax(-1)
    assert float((policy.exp() * k3(policy, reference)).sum().detach()) == pytest.approx(
        float(kl(policy, reference).detach()), rel=1e-12
    )
    exact = torch.autograd.grad(kl(reference, policy), logits)[0]
    assert torch.allclose(expected_k3_gradient(logits, reference), exact, rtol=0, atol=1e-14)


def test_k3_gradient_agrees_with_the_exact_kl_to_first_order():
    """pi = ref moved by h: both gradients are O(h), their difference O(h^2), so halving h must quarter it (k1 in the loss would give 0 for ever)."""
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(7, dtype=torch.float64, generator=generator).log_softmax(-1)
    direction = torch.randn(7, dtype=torch.float64, generator=generator)
    relative = []
    for h in (0.02, 0.01):
        logits = (reference + h * direction).requires_grad_()
        exact = torch.autograd.grad(kl(logits.log_softmax(-1), reference), logits)[0]
        relative.append(
            float((expected_k3_gradient(logits, reference) - exact).norm() / exact.norm())
        )
    assert relative[1] < 0.02  # O(h)
    # difference O(h^2) over a gradient O(h)
    assert relative[0] / relative[1] == pytest.approx(2, rel=0.05)


def test_advantages_are_relative_to_their_own_group():
    """Two prompts with different means: normalised over the batch, the easy prompt's worst answer would look good."""
    hard, easy = group_standardised([0.0, 0.0, 0.0, 1.0]), group_standardised([1.0, 1.0, 1.0, 0.0])
    std = math.sqrt(3) / 4  # population standard deviation of one 1 in four
    # 1e-6 is added to the std
    assert hard == pytest.approx([-0.25 / std, -0.25 / std, -0.25 / std, 0.75 / std], rel=1e-5)
    assert easy == pytest.approx([0.25 / std, 0.25 / std, 0.25 / std, -0.75 / std], rel=1e-5)
    for advantages in (hard, easy):
        assert sum(advantages) == pytest.approx(0, abs=1e-12)
        assert math.fsum(a * a for a in advantages) / 4 == pytest.approx(1, rel=1e-5)


def test_equal_rewards_and_single_members_give_exactly_zero():
    assert group_standardised([0.1] * 12) == [0.0] * 12
    assert group_standardised([1.1, 1.1]) == [0.0, 0.0]
    assert group_standardised([0.7]) == [0.0]
    assert group_standardised([]) == []


def test_an_unknown_variant_is_refused_with_the_nearest_name():
    assert find_variant("grpo") is VARIANTS["grpo"]
    with pytest.raises(
        ValueError, match=r"'grpo_token_men' is unknown.*did you mean grpo_token_mean"
    ):
        find_variant("grpo_token_men")
