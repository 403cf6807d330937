"""One batch, one gradient: the training loss over micro-batches of any size, expert loads, the bias update, and validation.

    loss = cross-entropy + lambda / depths * sum of MTP losses + alpha * balance losses          (V3 eq. 25 and 17-20)

Splitting a batch leaves loss and gradient the same up to rounding: token losses are divided by the number of tokens of the whole batch,
the sequence-wise balance loss is a mean over the sequences of the whole batch, and loads are summed before they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deepwright.model.experts import Routing, auxiliary_loss, sequence_balance_loss, update_bias
from deepwright.numerics import cross_entropy
from deepwright.refusals import expect


@dataclass(frozen=True)
class Batch:
    """Rows of tokens and their targets. `tokens` is [B, S+1]; position i < S is an input and position i+1 its target.

    `weights_BS` says how much each target counts (loss masks; all ones if None). `valid_BS` marks real tokens (all if None); the
    others are padding, right of them, and count for nothing.
    """

    tokens: Tensor
    weights_BS: Tensor | None = None
    valid_BS: Tensor | None = None

    @property
    def rows(self) -> int:
        return self.tokens.shape[0]

    @property
    def inputs_BS(self) -> Tensor:
        return self.tokens[:, :-1]

    @property
    def lengths_B(self) -> Tensor:
        if self.valid_BS is None:
            return torch.full((self.rows,), self.inputs_BS.shape[1])
        return (
            self.valid_BS * torch.arange(1, self.valid_BS.shape[1] + 1, device=self.valid_BS.device)
        ).amax(1)

    @property
    def positions(self) -> int:
        """Real inputs: what the batch adds to the tokens read."""
        return int(self.lengths_B.sum())

    def target_weights(self) -> Tensor:
        return (
            torch.ones_like(self.inputs_BS, dtype=torch.float32)
            if self.weights_BS is None
            else self.weights_BS
        )

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            *(
                None if x is None else x.to(device)
                for x in (self.tokens, self.weights_BS, self.valid_BS)
            )
        )

    def split(self, rows: int | None) -> Iterator[Batch]:
        """Micro-batches of as many positions as `rows` full rows have; the last may be smaller. Each is only as wide as its longest row, so
        of short rows more fit into one, and little is padding where rows are sorted by length."""
        expect(self.rows > 0, "a batch's rows", self.rows, "at least 1")
        lengths, budget = self.lengths_B.tolist(), (rows or self.rows) * self.inputs_BS.shape[1]
        start, width = 0, lengths[0]
        for end in range(1, self.rows + 1):
            if end == self.rows or (end + 1 - start) * max(width, lengths[end]) > budget:
                yield self._cut(slice(start, end), width)
                start, width = end, 0
            width = max(width, lengths[end]) if end < self.rows else 0

    def _cut(self, rows: slice, width: int) -> Batch:
        weights, valid = (
            None if x is None else x[rows, :width] for x in (self.weights_BS, self.valid_BS)
        )
        return Batch(self.tokens[rows, : width + 1], weights, valid)


@dataclass(frozen=True)
class Terms:
    """Factors of the terms beside the cross-entropy; a term with factor 0 is not computed."""

    mtp: float = 0.0  # lambda
    sequence: float = 0.0  # alpha of the sequence-wise balance loss
    auxiliary: float = (
        0.0  # factor of the batch-wise auxiliary loss, the baseline that the bias method replaces
    )


@dataclass
class Sums:
    """What one batch added up to. Losses are unscaled; loads count token-expert pairs by layer (MTP blocks after the main ones)."""

    loss: float = 0.0
    mtp_loss: float = 0.0
    balance_loss: float = 0.0
    total_loss: float = 0.0
    loads: dict[int, Tensor] = field(default_factory=dict)


def accumulate_gradients(
    model: nn.Module,
    batch: Batch,
    terms: Terms,
    *,
    micro_rows: int | None = None,
    recompute: bool = False,
) -> Sums:
    """Adds the gradient of the batch's loss to `.grad`. The auxiliary loss reads the whole batch's loads, so it refuses a split."""
    if terms.auxiliary and micro_rows is not None and micro_rows < batch.rows:
        raise ValueError(
            f"micro_rows is {micro_rows} of {batch.rows} rows: the auxiliary loss needs the whole batch at once"
        )
    sums = Sums()
    tokens = float(batch.target_weights().sum())
    expect(tokens > 0, "the targets' weight", tokens, "a batch with something to learn")
    for piece in batch.split(micro_rows):
        loss = _piece_loss(model, piece, terms, tokens, piece.rows / batch.rows, recompute, sums)
        loss.backward()
        sums.total_loss += loss.item()
    return sums


def _piece_loss(
    model: nn.Module,
    piece: Batch,
    terms: Terms,
    tokens: float,
    share: float,
    recompute: bool,
    sums: Sums,
) -> Tensor:
    """The micro-batch's part of the loss. `tokens`: the whole batch's target count; `share`: this piece's share of its sequences."""
    routing: list[Routing] = []
    h_BSD = model.hidden(
        piece.inputs_BS, valid_BS=piece.valid_BS, routing=routing, recompute=recompute
    )
    total = main = _token_loss(model, h_BSD, piece, 0, tokens)
    sums.loss += main.item()
    if terms.mtp and len(model.mtp):
        hidden = model.mtp_hidden(
            h_BSD, piece.inputs_BS, valid_BS=piece.valid_BS, routing=routing, recompute=recompute
        )
        # Eq. 24 divides each depth by all T tokens, although its last k positions have no target.
        depths = [_token_loss(model, h, piece, k, tokens) for k, h in enumerate(hidden, 1)]
        mtp = sum(depths, start=main.new_zeros(())) / len(model.mtp)
        sums.mtp_loss += mtp.item()
        total = total + terms.mtp * mtp
    if (terms.sequence or terms.auxiliary) and routing:
        rule = sequence_balance_loss if terms.sequence else auxiliary_loss
        balance = share * sum(rule(record) for record in routing)
        sums.balance_loss += balance.item()
        total = total + (terms.sequence or terms.auxiliary) * balance
    add_loads(sums.loads, routing)
    return total


def _token_loss(model: nn.Module, h_BTD: Tensor, piece: Batch, depth: int, tokens: float) -> Tensor:
    """Position i of depth k predicts token i + k + 1; depth 0 is the main model."""
    targets, weights = piece.tokens[:, depth + 1 :], piece.target_weights()[:, depth:] / tokens
    return cross_entropy(
        h_BTD.flatten(0, 1), model.head_weight, targets.flatten(), weights.flatten()
    )


def add_loads(loads: dict[int, Tensor], routing: Iterable[Routing]) -> None:
    for record in routing:
        loads[record.layer] = (
            loads[record.layer] + record.load_E if record.layer in loads else record.load_E
        )


def update_biases(
    model: nn.Module, loads: Mapping[int, Tensor], speed: float, *, include_mtp: bool = True
) -> None:
    """Moves every router bias once, by the loads of the whole batch. To be called once after each optimizer step."""
    for layer, router in routers(model).items():
        if layer in loads and (include_mtp or layer < model.config.num_hidden_layers):
            router.bias.copy_(update_bias(router.bias, loads[layer], speed))


def routers(model: nn.Module) -> dict[int, nn.Module]:
    """Every router with a bias, by layer; MTP blocks are counted on after the main layers."""
    blocks = [*model.layers, *(module.block for module in model.mtp)]
    found = {layer: getattr(block.ffn, "router", None) for layer, block in enumerate(blocks)}
    return {
        layer: router
        for layer, router in found.items()
        if getattr(router, "bias", None) is not None
    }


def max_violation(loads: Iterable[Tensor]) -> float:
    """MaxVio: (largest load - mean load) / mean load, averaged over layers (arXiv 2408.15664 eq. 4); 0 for a model without experts."""
    layers = [float(load_E.max() / load_E.double().mean()) - 1 for load_E in loads]
    return sum(layers) / len(layers) if layers else 0.0


class Validation(NamedTuple):
    loss: float  # nats/token, the main model's
    max_vio_global: float  # loads summed over all the batches


@torch.no_grad()
def validate(model: nn.Module, batches: Iterable[Tensor | Batch]) -> Validation:
    """Mean loss of the targets and balance over `batches` (tensors: [B, S+1] tokens). Changes nothing: no bias, gradient, random state."""
    loads: dict[int, Tensor] = {}
    loss = targets = 0.0
    for batch in batches:
        batch = batch if isinstance(batch, Batch) else Batch(batch)
        routing: list[Routing] = []
        h_BSD = model.hidden(batch.inputs_BS, valid_BS=batch.valid_BS, routing=routing)
        loss += float(_token_loss(model, h_BSD, batch, 0, 1.0))
        targets += float(batch.target_weights().sum())
        add_loads(loads, routing)
    if not targets:
        raise ValueError(
            "no validation batches were given, expected at least one [B, S+1] tensor of tokens"
        )
    return Validation(loss / targets, max_violation(loads.values()))
