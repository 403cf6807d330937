"""One policy update: log-probabilities of completions, gradient over micro-batches, optimizer step, and what was measured on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from deepwright.model import Transformer
from deepwright.model.experts import Router, Routing
from deepwright.numerics import selected_log_probs
from deepwright.rl.losses import Coefficients, Terms, Variant, clipped_share, k3, policy_loss
from deepwright.rl.types import Batch, Row, micro_batches, pack_rows, pad_rows
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


def policy_log_probs(
    model: Transformer, batch: Batch, temperature: float, routing: list[Routing] | None = None
) -> tuple[Tensor, Tensor]:
    """(log_probs_T, entropy_T) of the completion tokens under softmax(logits / temperature); only their positions pass through the head.

    Token s is predicted from position s - 1 (a completion's first one from the prompt's end). A row's last token predicts
    nothing and is not counted in the routing records, whether or not the row is the longest.
    """
    with replayed(model, batch.experts_LTK):
        places = [
            None if places_BS is None else places_BS[:, :-1]
            for places_BS in (batch.positions_BS, batch.branch_BS)
        ]
        hidden_BSD = model.hidden(
            batch.tokens_BS[:, :-1],
            places[0],
            valid_BS=batch.valid_BS[:, 1:],
            routing=routing,
            branch_BS=places[1],
        )
    return selected_log_probs(
        hidden_BSD[batch.sources],
        model.head_weight,
        batch.targets_T,
        temperature,
        model.compute_dtype,
    )


@contextlib.contextmanager
def replayed(model: Transformer, experts_LTK: Tensor | None) -> Iterator[None]:
    """Inside, MoE layer number l sends position t to experts_LTK[l, t], in that order (-1: as it would choose), with today's weights and gradients.

    A bias chooses and never weighs (V3 section 2.1.2), so a bias for each token does it: steps of 2 outdo affinities, which lie in [0, 1].
    Routing replay between pi_old and the updates that follow (GSPO section 5.3, there to keep token ratios of an MoE from jumping).
    """
    routers = [module for module in model.layers.modules() if isinstance(module, Router)]
    chosen = [] if experts_LTK is None else list(zip(routers, experts_LTK, strict=True))
    before = [router.bias for router, _ in chosen]
    for router, ids_TK in chosen:
        steps_K = 2.0 * torch.arange(ids_TK.shape[1], 0, -1, device=ids_TK.device)
        bias_TE = torch.zeros(len(ids_TK), len(router.weight), device=ids_TK.device)
        bias_TE.scatter_(1, ids_TK.clamp(min=0), steps_K.expand(ids_TK.shape))
        router.bias = torch.where(
            ids_TK[:, :1] >= 0, bias_TE, 0.0 if router.bias is None else router.bias
        )
    try:
        yield
    finally:
        for (router, _), bias in zip(chosen, before, strict=True):
            router.bias = bias


@torch.no_grad()
def row_log_probs(
    model: Transformer,
    rows: Sequence[Row],
    temperature: float,
    token_budget: int,
    packed: bool = False,
) -> list[tuple[float, ...]]:
    """Log-probabilities of each row's completion tokens, in the micro-batches that an update of the same rows uses: the ratio then starts at exactly 1."""
    return [
        values for values, _ in _evaluated(model, rows, temperature, token_budget, False, packed)
    ]


def with_old(
    model: Transformer,
    rows: Sequence[Row],
    temperature: float,
    token_budget: int,
    keep_experts: bool = False,
    packed: bool = False,
) -> list[Row]:
    """Rows with pi_old = the trainer's own probabilities now, and the experts it chose where asked. Never the sampler's: their gap is measured."""
    found = _evaluated(model, rows, temperature, token_budget, keep_experts, packed)
    return [
        replace(row, old_log_probs=values, experts_LSK=experts)
        for row, (values, experts) in zip(rows, found, strict=True)
    ]


@torch.no_grad()
def _evaluated(
    model: Transformer,
    rows: Sequence[Row],
    temperature: float,
    token_budget: int,
    keep_experts: bool,
    packed: bool,
) -> list[tuple[tuple[float, ...], Tensor | None]]:
    """(log-probabilities, experts_LSK) of each row, in the order of the rows; no experts where none are asked for or none are routed."""
    found: list[tuple[tuple[float, ...], Tensor | None]] = [((), None)] * len(rows)
    for places in micro_batches(rows, token_budget, packed):
        batch = (pack_rows if packed else pad_rows)(
            [rows[place] for place in places], PAD, model.head_weight.device
        )
        routing: list[Routing] | None = [] if keep_experts else None
        log_probs_T, _ = policy_log_probs(model, batch, temperature, routing)
        parts = log_probs_T.cpu().split([len(rows[place].completion_ids) for place in places])
        chosen = (
            torch.stack([r.ids_TK for r in routing]).unflatten(1, (len(places), -1)).short().cpu()
            if routing
            else None
        )
        for number, (place, part) in enumerate(zip(places, parts, strict=True)):
            experts = (
                None if chosen is None else chosen[:, number, : rows[place].length - 1].clone()
            )
            found[place] = (tuple(part.tolist()), experts)
    return found


def with_reference(
    reference: Transformer,
    rows: Sequence[Row],
    temperature: float,
    token_budget: int,
    packed: bool = False,
) -> list[Row]:
    found = row_log_probs(reference, rows, temperature, token_budget, packed)
    return [
        replace(row, reference_log_probs=values) for row, values in zip(rows, found, strict=True)
    ]


def accumulate_gradient(
    model: Transformer,
    rows: Sequence[Row],
    variant: Variant,
    coefficients: Coefficients,
    temperature: float,
    token_budget: int,
    loads: dict[int, Tensor],
    packed: bool = False,
) -> TokenRecord:
    """Adds the gradient of the update's whole loss to `.grad`, one micro-batch at a time. The token weights already hold the normaliser.

    The tokens that each expert received are added to `loads`, by layer.
    """
    records = []
    for places in micro_batches(rows, token_budget, packed):
        batch = (pack_rows if packed else pad_rows)(
            [rows[place] for place in places], PAD, model.head_weight.device
        )
        routing: list[Routing] = []
        log_probs_T, entropy_T = policy_log_probs(model, batch, temperature, routing)
        add_loads(loads, routing)
        terms = loss_terms(log_probs_T, batch)
        objective_T = variant.objective(terms, coefficients)
        policy_loss(objective_T, batch.weights_T).backward()
        records.append(_record(terms, variant, coefficients, batch, objective_T, entropy_T))
    return TokenRecord(
        *(
            torch.cat([getattr(record, field.name) for record in records])
            for field in fields(TokenRecord)
        )
    )


def loss_terms(log_probs_T: Tensor, batch: Batch) -> Terms:
    """pi_old is the current policy itself, held fixed, where the update is on-policy: value 1, but the gradient of the ratio is that of the log-prob."""
    old_T = log_probs_T.detach() if batch.old_log_probs_T is None else batch.old_log_probs_T
    return Terms(
        log_probs_T,
        old_T,
        batch.reference_log_probs_T,
        batch.advantages_T,
        batch.rows_T,
        batch.sampler_log_probs_T,
    )


@torch.no_grad()
def _record(
    terms: Terms,
    variant: Variant,
    coefficients: Coefficients,
    batch: Batch,
    objective_T: Tensor,
    entropy_T: Tensor,
) -> TokenRecord:
    reference_T = terms.reference_log_probs_T
    log_probs_T = terms.log_probs_T.detach()
    parts = TokenRecord(
        old_log_probs_T=terms.old_log_probs_T,
        sampler_log_probs_T=batch.sampler_log_probs_T,
        entropy_T=entropy_T,
        advantages_T=batch.advantages_T,
        kl_T=torch.zeros_like(log_probs_T) if reference_T is None else k3(log_probs_T, reference_T),
        ratio_T=variant.ratio(terms),
        clipped_T=clipped_share(terms, coefficients, variant.ratio),
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
