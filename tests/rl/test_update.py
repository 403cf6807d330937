"""One policy update on a tiny model: padding, micro-batches, temperature, positions, and that the sampler's and the trainer's probabilities agree."""

from __future__ import annotations

import math

import pytest
import torch

from deepwright.rl.losses import VARIANTS, Coefficients, sequence_mean, token_mean
from deepwright.rl.rollout import mini_batches
from deepwright.rl.types import Row, micro_batches, pad_rows
from deepwright.rl.update import (
    accumulate_gradient,
    policy_log_probs,
    row_log_probs,
    update_metrics,
    with_old,
    with_reference,
)
from deepwright.sampler import Sampling
from tests.rl.fakes import TOKENIZER, FakeSampler, make_model, row

ON_POLICY = Coefficients(math.inf, 0.0)
EOS = TOKENIZER.eos_id


def ragged_rows(weights_of=token_mean) -> list[Row]:
    rows = [
        row([0, 3], [4, EOS], 1.5),
        row([0, 3, 7], [5, 6, 7, 8, 9, EOS], -0.5),
        row([0], [8], -1.0),
        row([0, 3, 9, 9, 4], [6, 6, EOS], 0.75),
    ]
    weights = weights_of([len(r.completion_ids) for r in rows])
    return [r.with_weight(weight) for r, weight in zip(rows, weights, strict=True)]


def gradient_of(
    rows,
    budget: int,
    *,
    variant: str = "grpo",
    coefficients: Coefficients = ON_POLICY,
    temperature: float = 1.0,
    model=None,
):
    model = model or make_model()
    record = accumulate_gradient(
        model, rows, VARIANTS[variant], coefficients, temperature, budget, {}
    )
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return gradients, record


def test_masks_come_from_lengths_even_where_the_end_token_is_the_padding():
    batch = pad_rows(ragged_rows(), EOS)
    assert batch.completion_BS.sum(1).tolist() == [2, 6, 1, 3]
    assert batch.valid_BS.sum(1).tolist() == [4, 9, 2, 8]
    assert batch.targets_T.tolist() == [4, EOS, 5, 6, 7, 8, 9, EOS, 8, 6, 6, EOS]
    assert batch.rows_T.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 3, 3, 3]
    assert batch.advantages_T.tolist() == [1.5] * 2 + [-0.5] * 6 + [-1.0] + [0.75] * 3


def test_micro_batches_are_sorted_by_length_and_within_the_budget():
    rows = ragged_rows()
    assert micro_batches(rows, 16) == [[2, 0], [3], [1]]  # lengths 4, 9, 2, 8
    assert micro_batches(rows, 17) == [[2, 0], [3], [1]]
    assert micro_batches(rows, 18) == [[2, 0], [3, 1]]
    assert micro_batches(rows, 1) == [[2], [0], [3], [1]]  # a row above the budget stands alone
    assert micro_batches([], 8) == []


@pytest.mark.invariant
@pytest.mark.parametrize("weights_of", [sequence_mean, token_mean])
@pytest.mark.parametrize("budget", [18, 9, 1])  # 2 and 4 micro-batches, and one of a row each
def test_any_micro_batch_split_gives_the_same_gradient(weights_of, budget):
    rows = ragged_rows(weights_of)
    whole, _ = gradient_of(rows, 10_000)
    split, _ = gradient_of(rows, budget)
    # Sums of the same 12 token gradients in another order, through some 60 accumulated products: 60 * 6e-8 of the largest, with room of 5.
    assert (whole - split).abs().max() <= 2e-5 * whole.abs().max()


@pytest.mark.invariant
def test_padding_changes_neither_log_probs_nor_gradient():
    model, short = make_model(), ragged_rows()[0]
    alone, _ = policy_log_probs(model, pad_rows([short], 0), 1.0)
    for pad_id in (0, EOS, 7):
        padded, _ = policy_log_probs(model, pad_rows([short, *ragged_rows()[1:]], pad_id), 1.0)
        # fp32 matrix products of other sizes may sum in another order: a few units of 6e-8 at log-probabilities of about 2.7
        assert (padded[:2] - alone).abs().max() <= 2e-6
    first, _ = gradient_of(ragged_rows(), 10_000)
    wider = [r for r in ragged_rows()] + [row([0] * 20, [5], 0.0, weight=0.0)]
    second, _ = gradient_of(wider, 10_000)
    assert (first - second).abs().max() <= 2e-5 * first.abs().max()


def test_only_the_changed_tokens_own_log_prob_moves_before_it_is_read():
    """Off by one between mask and log-probabilities: changing the last token must change the last log-probability and no other."""
    model = make_model()
    one, _ = policy_log_probs(model, pad_rows([row([0, 3], [4, 5, 6, 7], 1.0)], 0), 1.0)
    other, _ = policy_log_probs(model, pad_rows([row([0, 3], [4, 5, 6, 8], 1.0)], 0), 1.0)
    assert torch.equal(one[:3], other[:3])
    assert one[3] != other[3]
    middle, _ = policy_log_probs(model, pad_rows([row([0, 3], [4, 9, 6, 7], 1.0)], 0), 1.0)
    assert torch.equal(one[:1], middle[:1])
    assert (one[1:] != middle[1:]).all()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_are_those_of_scaled_logits_and_of_the_sampler(temperature):
    model = make_model()
    [[completion]] = FakeSampler(model).sample(
        [[0, 3, 7]], Sampling(6, temperature, stop_ids=(EOS,), seed=3)
    )
    one = Row((0, 3, 7), completion.token_ids, completion.log_probs, 1.0, 1.0)
    found, entropy = policy_log_probs(model, pad_rows([one], 0), temperature)
    tokens = torch.tensor([one.prompt_ids + one.completion_ids])
    logits = model(tokens)[0, 2:-1] / temperature
    expected = logits.log_softmax(-1).gather(1, tokens[0, 3:, None])[:, 0]
    # 40 fp32 operations deep at magnitude 3: 40 * 3 * 6e-8
    assert (found - expected).abs().max() <= 7e-6
    assert (found - torch.tensor(completion.log_probs)).abs().max() <= 7e-6
    assert (entropy - torch.distributions.Categorical(logits=logits).entropy()).abs().max() <= 7e-6
    scaled_after = (
        (model(tokens)[0, 2:-1].log_softmax(-1).gather(1, tokens[0, 3:, None])[:, 0]) / temperature
    )
    # log-probs divided by T are something else
    assert temperature == 1.0 or (found - scaled_after).abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_gradient_is_that_of_plain_autograd(temperature):
    model, rows = make_model(), ragged_rows()
    found, record = gradient_of(rows, 18, temperature=temperature)
    loss = 0.0
    for one in rows:
        tokens = torch.tensor([one.prompt_ids + one.completion_ids])
        start = len(one.prompt_ids)
        log_probs = (
            (model(tokens)[0, start - 1 : -1] / temperature)
            .log_softmax(-1)
            .gather(1, tokens[0, start:, None])
        )
        loss = loss - one.weight * one.advantage * log_probs.sum()
    loss.backward()
    plain = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert (found - plain).abs().max() <= 2e-5 * plain.abs().max()
    assert record.entropy_T.shape == (12,)


def test_pi_old_is_the_trainers_own_and_starts_at_ratio_one():
    """Recomputed in the update's own micro-batches, so the ratio of the first update is exactly 1, whatever the sampler said."""
    model = make_model()
    rows = with_old(model, ragged_rows(), 1.0, 18)
    _, record = gradient_of(rows, 18, coefficients=Coefficients(0.2, 0.0), model=model)
    assert record.ratio_T.tolist() == [1.0] * 12
    assert record.old_log_probs_T.tolist() != record.sampler_log_probs_T.tolist()


def test_metrics_of_an_update():
    model = make_model()
    rows = with_reference(make_model(seed=1), with_old(model, ragged_rows(), 1.0, 18), 1.0, 18)
    _, record = gradient_of(rows, 18, coefficients=Coefficients(0.2, 0.1), model=model)
    values = update_metrics([record, record])
    sampler_gap = torch.tensor([abs(value + 1.0) for r in rows for value in r.old_log_probs])
    assert values["log_prob_gap_mean"] == pytest.approx(float(sampler_gap.mean()), rel=1e-6)
    assert values["log_prob_gap_max"] == pytest.approx(float(sampler_gap.max()), rel=1e-6)
    assert values["kl"] > 0 and values["clip_fraction"] == 0 and values["ratio_max"] == 1
    objective = record.advantages_T - 0.1 * record.kl_T
    # token_mean, ratio 1
    assert values["loss"] == pytest.approx(-float(objective.mean()), rel=1e-5)


def test_kl_term_alone_pulls_the_policy_to_the_reference():
    model, reference = make_model(), make_model(seed=1)
    rows = with_reference(
        reference, [row([0, 3, 2, 3, 2, 3, 2, 3, 2], [4, 5, EOS], 0.0, weight=1 / 3)], 1.0, 64
    )  # more than the few rows that decode
    gradient, _ = gradient_of(rows, 64, coefficients=Coefficients(math.inf, 1.0), model=model)
    assert gradient.abs().max() > 0
    same, _ = gradient_of(
        with_reference(model, rows, 1.0, 64),
        64,
        coefficients=Coefficients(math.inf, 1.0),
        model=model,
    )
    assert same.abs().max() == 0  # k3's derivative is exactly 1 - ref/pi


def test_mini_batches_share_all_rows_and_normalise_each_update_by_itself():
    rows = [row([0], [4] * (1 + i % 3), 1.0, weight=math.nan) for i in range(10)]
    parts = mini_batches(rows, 4, VARIANTS["grpo_token_mean"], 5, 0)
    assert sorted(len(part) for part in parts) == [2, 2, 3, 3]
    for part in parts:
        assert sum(r.weight * len(r.completion_ids) for r in part) == pytest.approx(1)
    assert parts == mini_batches(rows, 4, VARIANTS["grpo_token_mean"], 5, 0)
    assert parts != mini_batches(rows, 4, VARIANTS["grpo_token_mean"], 5, 1)
    assert mini_batches([], 1, VARIANTS["grpo"], 0, 0) == []


def test_row_log_probs_come_back_in_the_order_of_the_rows():
    model, rows = make_model(), ragged_rows()
    together = row_log_probs(model, rows, 1.0, 18)
    for one, values in zip(rows, together, strict=True):
        assert len(values) == len(one.completion_ids)
        assert values == pytest.approx(row_log_probs(model, [one], 1.0, 18)[0], abs=2e-6)
