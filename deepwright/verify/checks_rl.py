"""Checks of reinforcement learning: advantages, every variant's loss and gradient, log-probabilities of sampler and trainer.

The bound is that of the network's checks: every figure here is a sum of a few of its outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.rl import losses, rollout, types, update
from deepwright.rl.types import Group, Rollout, Row
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.tasks import Problem, Score, Verdict
from deepwright.verify.cases import CASES, random_model, relative_error
from deepwright.verify.check import Result, check, largest
from deepwright.verify.checks_model import BOUND
from deepwright.verify.checks_training import gradients

REWARDS = ((1.0, 0.0, 0.1), (1.1, 0.1, 0.1, 0.6))  # two groups with other means and sizes
LENGTHS = ((2, 7, 3), (1, 4, 4, 6))
LOW, HIGH, BETA, LONGEST = 0.2, 0.28, 0.04, 9


def group_of(*rewards: float, lengths: Sequence[int] = ()) -> Group:
    made = [
        Completion((1,) * n, (-1.0,) * n, StopReason.STOP) for n in lengths or [2] * len(rewards)
    ]
    scores = [Score(reward, Verdict.CORRECT, "", {}) for reward in rewards]
    return Group(
        tuple(
            Rollout(Problem(0, "", "", ""), (3,), one, "", score)
            for one, score in zip(made, scores, strict=True)
        )
    )


def published_loss(
    name: str, new: Sequence[Tensor], old: Sequence[Tensor], reference: Sequence[Tensor]
) -> Tensor:
    """-J as each paper writes it, completion by completion in float64, for REWARDS and LENGTHS. Shares nothing with deepwright.rl."""
    advantages: list[Tensor] = []
    for rewards in REWARDS:
        r = torch.tensor(rewards, dtype=torch.float64)
        centred = r - r.mean()
        others = {
            "rloo": r - (r.sum() - r) / (len(r) - 1),
            "dr_grpo": centred,
            "reinforce_baseline": centred,
        }
        advantages += others.get(name, centred / (r.std(correction=0) + 1e-6))
    if name == "reinforce_baseline":
        everywhere = torch.cat([a.expand(len(o)) for a, o in zip(advantages, new, strict=True)])
        advantages = [
            (a - everywhere.mean()) / (everywhere.std(correction=0) + 1e-6) for a in advantages
        ]
    parts = []
    for a, pi, pi_old, pi_ref in zip(advantages, new, old, reference, strict=True):
        log_ratio = pi - pi_old
        log_ratio = {"gspo": log_ratio.mean(), "rloo": log_ratio.sum()}.get(name, log_ratio).expand(
            len(pi)
        )
        rho = log_ratio.exp()
        kl = (pi_ref - pi).exp() - (pi_ref - pi) - 1
        parts.append(torch.minimum(rho * a, rho.clamp(1 - LOW, 1 + HIGH) * a) - BETA * kl)
    if name == "dr_grpo":
        return -torch.cat(parts).sum() / (len(parts) * LONGEST)
    if name in ("grpo", "gspo", "rloo"):
        return -torch.stack([part.mean() for part in parts]).mean()
    return -torch.cat(parts).mean()


@check(
    "Loss and gradient of every variant, clipped and with KL, on two ragged groups with the papers' formulas written out in float64.",
    "which variant learns best; what other libraries make of the same names.",
)
def variants_equal_published_losses() -> Result:
    errors, generator = {}, torch.Generator().manual_seed(0)
    lengths = [n for group in LENGTHS for n in group]
    old, new, reference = (
        (torch.randn(sum(lengths), generator=generator) * 0.3 - 2.0).double().split(lengths)
        for _ in range(3)
    )
    for name, variant in losses.VARIANTS.items():
        groups = [
            group_of(*rewards, lengths=sizes)
            for rewards, sizes in zip(REWARDS, LENGTHS, strict=True)
        ]
        rows = rollout.training_rows(groups, variant, drop_zero_variance=True)
        known = [
            {"old_log_probs": tuple(o.tolist()), "reference_log_probs": tuple(p.tolist())}
            for o, p in zip(old, reference, strict=True)
        ]
        rows = [dataclasses.replace(row, **more) for row, more in zip(rows, known, strict=True)]
        [rows] = rollout.mini_batches(rows, 1, variant, 0, 0, LONGEST)
        batch, leaf = types.pad_rows(rows, 0), torch.cat(new).float().requires_grad_()
        terms = update.loss_terms(leaf, batch)
        ours = losses.policy_loss(
            variant.objective(terms, losses.Coefficients(LOW, BETA, HIGH)), batch.weights_T
        )
        leaves = [part.clone().requires_grad_() for part in new]
        theirs = published_loss(name, leaves, old, reference)
        ours.backward()
        theirs.backward()
        errors[f"{name}, loss"] = relative_error(ours.detach(), theirs.detach())
        errors[f"{name}, gradient"] = relative_error(
            leaf.grad, torch.cat([part.grad for part in leaves])
        )
    return largest(errors, BOUND)


def ragged_update(model: Transformer, temperature: float) -> list[Row]:
    """Sampled rows of different lengths with made-up advantages, weighted as one update of the token-mean variant."""
    sampled = Engine(model).sample(
        [[1, 2, 3], [4, 5]],
        Sampling(
            max_tokens=12, temperature=temperature, n=3, stop_ids=(7, 8, 9, 10, 11, 12), seed=3
        ),
    )
    rows = [
        Row(prompt, c.token_ids, c.log_probs, 0.5 - j)
        for prompt, group in zip(((1, 2, 3), (4, 5)), sampled, strict=True)
        for j, c in enumerate(group)
    ]
    variant = losses.find_variant("grpo_token_mean")
    return [
        row.with_weight(w)
        for row, w in zip(
            rows, variant.token_weights([len(row.completion_ids) for row in rows]), strict=True
        )
    ]


def policy_gradient(
    rows: list[Row],
    temperature: float,
    token_budget: int,
    name: str = "grpo_token_mean",
    clip: float = math.inf,
) -> dict[str, Tensor]:
    model = random_model(CASES["v3 yarn"])
    update.accumulate_gradient(
        model,
        rows,
        losses.find_variant(name),
        losses.Coefficients(clip, 0.0),
        temperature,
        token_budget,
        {},
    )
    return gradients(model)


@check(
    "The policy gradient at T = 0.6 with plain autograd through log softmax(logits / T), one row at a time.",
    "off-policy updates.",
)
def policy_gradient_equals_autograd() -> Result:
    model = random_model(CASES["v3 yarn"])
    rows = ragged_update(model, 0.6)
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.completion_ids])
        log_probs = (model(ids)[0] / 0.6).log_softmax(-1)
        for place in range(len(row.prompt_ids), row.length):
            (
                -row.advantage
                * log_probs[place - 1, ids[0, place]]
                / sum(len(r.completion_ids) for r in rows)
            ).backward(retain_graph=True)
    expected, found = gradients(model), policy_gradient(rows, 0.6, 10_000)
    return largest({name: relative_error(found[name], expected[name]) for name in expected}, BOUND)


@check(
    "The policy gradient of every variant, on rows of different lengths that the policy has moved away from: whole with cut into micro-batches.",
    "several ranks.",
)
def policy_gradient_ignores_micro_batches() -> Result:
    rows, errors = ragged_update(random_model(CASES["v3 yarn"]), 1.0), {}
    rows = [
        dataclasses.replace(
            r, old_log_probs=tuple(value - 0.1 * t for t, value in enumerate(r.sampler_log_probs))
        )
        for r in rows
    ]
    for name, variant in losses.VARIANTS.items():
        weights = variant.token_weights([len(r.completion_ids) for r in rows], 12)
        weighted = [r.with_weight(weight) for r, weight in zip(rows, weights, strict=True)]
        whole = policy_gradient(weighted, 1.0, 10_000, name, 0.4)
        for budget in (1, 20):
            cut = policy_gradient(weighted, 1.0, budget, name, 0.4)
            errors |= {
                f"{name}, {budget}, {key}": relative_error(cut[key], whole[key]) for key in whole
            }
    return largest(errors, BOUND)


@check(
    "Log-probabilities of a completion alone with the same one beside longer rows, padded with other ids, its own end token among them.",
    "left padding: rows are never padded there.",
)
def padding_leaves_log_probs() -> Result:
    model, errors = random_model(CASES["v3 yarn"]), {}
    rows = ragged_update(model, 1.0)
    alone = torch.tensor(
        [value for row in rows for value in update.row_log_probs(model, [row], 1.0, 1)[0]]
    )
    for pad in (0, 7, rows[0].completion_ids[-1]):
        together, _ = update.policy_log_probs(model, types.pad_rows(rows, pad), 1.0)
        errors[f"padding {pad}"] = relative_error(together.detach(), alone)
    return largest(errors, BOUND)


@check(
    "Log-probabilities of sampled tokens, from the engine, with the trainer's, at T = 1 and 0.6, prompts in groups.",
    "other engines.",
)
def sampled_log_probs_equal_trainers() -> Result:
    model, errors = random_model(CASES["v3 yarn"]), {}
    for temperature in (1.0, 0.6):
        rows = ragged_update(model, temperature)
        ours = update.row_log_probs(model, rows, temperature, 64)
        theirs = torch.tensor([value for row in rows for value in row.sampler_log_probs])
        errors[f"T = {temperature}"] = relative_error(
            torch.tensor([value for values in ours for value in values]), theirs
        )
    return largest(errors, BOUND)
