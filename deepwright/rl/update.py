"""One policy update: log-probabilities of completions, gradient over micro-batches, optimizer step, and what was measured on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from deepwright.model import Transformer
from deepwright.model.experts import Routing
from deepwright.numerics import selected_log_probs
from deepwright.rl.losses import Coefficients, Terms, Variant, clipped_share, k3, policy_loss, ratio
from deepwright.rl.types import Batch, Row, micro_batches, pad_rows
from deepwright.train.objective import add_loads

PAD = 0  # any id will do: padding stands right of the tokens and is masked by length


@dataclass(frozen=True)
class TokenRecord:
    """What was seen per completion token in one update, without gradients: the source of all its metrics."""

    old_log_probs_T: Tensor
    sampler_log_probs_T: Tensor
    entropy_T: Tensor
    advantages_T: Tensor
    kl_T: Tensor
    ratio_T: Tensor
    clipped_T: Tensor
    loss_T: Tensor  # its parts -w_t J_t; their sum is the loss


def policy_log_probs(model: Transformer, batch: Batch, temperature: float, routing: list[Routing] | None = None) -> tuple[Tensor, Tensor]:
    """(log_probs_T, entropy_T) of the completion tokens under softmax(logits / temperature); only their positions pass through the head.

    Token s is predicted from position s - 1, so hidden states are taken one place to the left of the completion mask.
    """
    hidden_BSD = model.hidden(batch.tokens_BS[:, :-1], valid_BS=batch.valid_BS[:, :-1], routing=routing)
    return selected_log_probs(hidden_BSD[batch.completion_BS[:, 1:]], model.head_weight, batch.targets_T, temperature)


@torch.no_grad()
def row_log_probs(model: Transformer, rows: Sequence[Row], temperature: float, token_budget: int) -> list[tuple[float, ...]]:
    """Log-probabilities of each row's completion tokens, in the micro-batches that an update of the same rows uses: the ratio then starts at exactly 1."""
    found: list[tuple[float, ...]] = [()] * len(rows)
    for places in micro_batches(rows, token_budget):
        batch = pad_rows([rows[place] for place in places], PAD, model.head_weight.device)
        log_probs_T, _ = policy_log_probs(model, batch, temperature)
        parts = log_probs_T.cpu().split([len(rows[place].completion_ids) for place in places])
        for place, part in zip(places, parts, strict=True):
            found[place] = tuple(part.tolist())
    return found


def with_old(model: Transformer, rows: Sequence[Row], temperature: float, token_budget: int) -> list[Row]:
    """Rows with pi_old = the trainer's own probabilities now. Never the sampler's: their gap is measured, not trained on."""
    found = row_log_probs(model, rows, temperature, token_budget)
    return [replace(row, old_log_probs=values) for row, values in zip(rows, found, strict=True)]


def with_reference(reference: Transformer, rows: Sequence[Row], temperature: float, token_budget: int) -> list[Row]:
    found = row_log_probs(reference, rows, temperature, token_budget)
    return [replace(row, reference_log_probs=values) for row, values in zip(rows, found, strict=True)]


def accumulate_gradient(
    model: Transformer,
    rows: Sequence[Row],
    variant: Variant,
    coefficients: Coefficients,
    temperature: float,
    token_budget: int,
    loads: dict[int, Tensor],
) -> TokenRecord:
    """Adds the gradient of the update's whole loss to `.grad`, one micro-batch at a time. The token weights already hold the normaliser.

    The tokens that each expert received are added to `loads`, by layer.
    """
    records = []
    for places in micro_batches(rows, token_budget):
        batch = pad_rows([rows[place] for place in places], PAD, model.head_weight.device)
        routing: list[Routing] = []
        log_probs_T, entropy_T = policy_log_probs(model, batch, temperature, routing)
        add_loads(loads, routing)
        terms = loss_terms(log_probs_T, batch)
        objective_T = variant.objective(terms, coefficients)
        policy_loss(objective_T, batch.weights_T).backward()
        records.append(_record(terms, coefficients, batch, objective_T, entropy_T))
    return TokenRecord(*(torch.cat([getattr(record, field.name) for record in records]) for field in fields(TokenRecord)))


def loss_terms(log_probs_T: Tensor, batch: Batch) -> Terms:
    """pi_old is the current policy itself, held fixed, where the update is on-policy: value 1, but the gradient of the ratio is that of the log-prob."""
    old_T = log_probs_T.detach() if batch.old_log_probs_T is None else batch.old_log_probs_T
    return Terms(log_probs_T, old_T, batch.reference_log_probs_T, batch.advantages_T, batch.rows_T)


@torch.no_grad()
def _record(terms: Terms, coefficients: Coefficients, batch: Batch, objective_T: Tensor, entropy_T: Tensor) -> TokenRecord:
    reference_T = terms.reference_log_probs_T
    log_probs_T = terms.log_probs_T.detach()
    parts = TokenRecord(
        old_log_probs_T=terms.old_log_probs_T,
        sampler_log_probs_T=batch.sampler_log_probs_T,
        entropy_T=entropy_T,
        advantages_T=batch.advantages_T,
        kl_T=torch.zeros_like(log_probs_T) if reference_T is None else k3(log_probs_T, reference_T),
        ratio_T=ratio(terms).detach(),
        clipped_T=clipped_share(terms, coefficients),
        loss_T=-(batch.weights_T * objective_T.detach()),
    )
    return TokenRecord(*(getattr(parts, field.name).cpu() for field in fields(TokenRecord)))


def update_metrics(records: Sequence[TokenRecord]) -> dict[str, float]:
    """Glossary metrics over the updates of one round: means over the tokens that were trained on (not those of dropped groups)."""

    def join(name: str) -> Tensor:
        return torch.cat([getattr(record, name) for record in records]).double()

    # The sampler saw the policy before the round's first update; later updates have moved away from it on purpose.
    gap_T = (join("old_log_probs_T") - join("sampler_log_probs_T")).abs()
    return {
        "loss": sum(float(record.loss_T.double().sum()) for record in records) / len(records),
        "entropy": float(join("entropy_T").mean()),
        "kl": float(join("kl_T").mean()),
        "ratio_mean": float(join("ratio_T").mean()),
        "ratio_max": float(join("ratio_T").max()),
        "clip_fraction": float(join("clipped_T").mean()),
        "log_prob_gap_mean": float(gap_T.mean()),
        "log_prob_gap_max": float(gap_T.max()),
        "advantage_std": float(join("advantages_T").std(correction=0)),
    }
