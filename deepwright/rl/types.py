"""The nouns of reinforcement learning, in the order in which they arise: Rollout, Group, Row, Batch.

Everything a loss needs (which tokens count, how much, with which advantage) is decided before the loss and stands in a Batch; the loss re-derives
nothing. Completion masks come from lengths alone, never from token values: the end token may equal the padding token and still be trained on.

Letters: B rows of a micro-batch, S positions, T completion tokens of a micro-batch (row after row, in order), G rollouts of one prompt.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deepwright.refusals import expect
from deepwright.sampler import Completion, StopReason
from deepwright.tasks import Problem, Score, Verdict


@dataclass(frozen=True)
class Rollout:
    """One sampled and scored completion of one problem."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    completion: Completion
    text: str  # the decoded completion without its stop token; for people and verifiers, never encoded again
    score: Score

    @property
    def truncated(self) -> bool:
        return self.completion.stop is not StopReason.STOP

    @property
    def scored(self) -> bool:
        """False where the verifier itself failed: such a rollout is neither right nor wrong and takes no part in the update."""
        return self.score.verdict is not Verdict.FAILED

    @property
    def correct(self) -> bool:
        return self.score.verdict is Verdict.CORRECT

    @property
    def length(self) -> int:
        return len(self.completion.token_ids)


@dataclass(frozen=True)
class Group:
    """The G rollouts of one prompt: what a group advantage is relative to."""

    rollouts: tuple[Rollout, ...]

    @property
    def scored(self) -> tuple[Rollout, ...]:
        return tuple(rollout for rollout in self.rollouts if rollout.scored)

    @property
    def rewards(self) -> list[float]:
        return [rollout.score.value for rollout in self.scored]

    @property
    def zero_variance(self) -> bool:
        """All scored rollouts earned the same (or there is at most one): every advantage is exactly 0."""
        return len(set(self.rewards)) <= 1


@dataclass(frozen=True)
class Row:
    """One sequence as it enters a policy update. `weight` is what one of its tokens counts in the loss, decided for the whole update."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    sampler_log_probs: tuple[float, ...]
    advantage: float
    weight: float = math.nan
    old_log_probs: tuple[float, ...] | None = (
        None  # None: the update is on-policy, pi_old is the policy itself
    )
    reference_log_probs: tuple[float, ...] | None = None  # None: no KL term
    experts_LSK: Tensor | None = (
        None  # chosen by pi_old in each MoE layer at each position but the last; None: every pass chooses anew
    )

    def __post_init__(self) -> None:
        assert self.prompt_ids and self.completion_ids, (
            "a row needs at least one prompt token and one completion token"
        )
        assert len(self.sampler_log_probs) == len(self.completion_ids)

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    def with_weight(self, weight: float) -> Row:
        return replace(self, weight=weight)


@dataclass(frozen=True)
class Batch:
    """A micro-batch, right-padded. Flat [T] tensors follow the completion tokens row after row, in order."""

    tokens_BS: Tensor  # int64
    valid_BS: Tensor  # bool: prompt and completion tokens, not padding
    completion_BS: Tensor  # bool: this token is part of a completion
    rows_T: Tensor  # int64: which row a completion token belongs to
    sampler_log_probs_T: Tensor
    advantages_T: Tensor
    weights_T: Tensor
    old_log_probs_T: Tensor | None
    reference_log_probs_T: Tensor | None
    experts_LTK: (
        Tensor | None
    )  # int64, -1 where not known, for `replayed`; here T are the B * (S - 1) positions that a forward pass sees
    # Only in rows that hold a whole group: 0 for the prompt, 1.. for its completions, -1 for padding; positions go on from the prompt in each.
    branch_BS: Tensor | None = None
    positions_BS: Tensor | None = None
    first_from_T: Tensor | None = (
        None  # int64: column of the prompt's last token for a completion's first token, else -1
    )

    @property
    def targets_T(self) -> Tensor:
        return self.tokens_BS[self.completion_BS]

    @property
    def sources(self) -> tuple[Tensor, Tensor]:
        """(row, column) of the state that predicts each completion token: the position before it, or the end of a shared prompt."""
        row_T, column_T = self.completion_BS.nonzero(as_tuple=True)
        return row_T, column_T - 1 if self.first_from_T is None else torch.where(
            self.first_from_T >= 0, self.first_from_T, column_T - 1
        )


def pad_rows(rows: Sequence[Row], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """Rows -> Batch. Padding stands right of each row, so causal attention never sees it; `pad_id` may be any id."""
    expect(len(rows) > 0, "the number of texts", 0, "at least 1")
    starts_B = torch.tensor([len(row.prompt_ids) for row in rows])
    ends_B = torch.tensor([row.length for row in rows])
    place_S = torch.arange(int(ends_B.max()))
    tokens_BS = torch.full((len(rows), len(place_S)), pad_id, dtype=torch.int64)
    for number, row in enumerate(rows):
        tokens_BS[number, : row.length] = torch.tensor(row.prompt_ids + row.completion_ids)
    valid_BS = place_S < ends_B[:, None]
    lengths_B, completion_BS = ends_B - starts_B, valid_BS & (place_S >= starts_B[:, None])
    return Batch(
        tokens_BS=tokens_BS.to(device),
        valid_BS=valid_BS.to(device),
        completion_BS=completion_BS.to(device),
        **_of_tokens(rows, lengths_B, device),
        experts_LTK=_padded([row.experts_LSK for row in rows], len(place_S) - 1, device),
    )


def pack_rows(rows: Sequence[Row], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """Rows -> Batch in which rows of the same prompt, which follow each other, share it: [prompt | completion | completion ...]. A completion's
    first token is predicted from the prompt's last state, the others from the one before them."""
    groups = [
        list(members) for _, members in itertools.groupby(rows, key=lambda row: row.prompt_ids)
    ]
    sizes = [
        len(group[0].prompt_ids) + sum(len(row.completion_ids) for row in group) for group in groups
    ]
    shape = (len(groups), max(sizes))
    tokens_BS, branch_BS, positions_BS = (
        torch.full(shape, fill, dtype=torch.int64) for fill in (pad_id, -1, 0)
    )
    firsts: list[int] = []
    for number, group in enumerate(groups):
        start = prompt = len(group[0].prompt_ids)
        parts = [(0, 0, group[0].prompt_ids)]
        for branch, row in enumerate(group, start=1):
            parts.append((start, branch, row.completion_ids))
            firsts += [prompt - 1] + [-1] * (len(row.completion_ids) - 1)
            start += len(row.completion_ids)
        for at, branch, ids in parts:
            span = (number, slice(at, at + len(ids)))
            tokens_BS[span], branch_BS[span] = torch.tensor(ids), branch
            positions_BS[span] = torch.arange(len(ids)) + (prompt if branch else 0)
    lengths_B = torch.tensor([len(row.completion_ids) for row in rows])
    return Batch(
        tokens_BS=tokens_BS.to(device),
        valid_BS=(branch_BS >= 0).to(device),
        completion_BS=(branch_BS > 0).to(device),
        **_of_tokens(rows, lengths_B, device),
        experts_LTK=None,
        branch_BS=branch_BS.to(device),
        positions_BS=positions_BS.to(device),
        first_from_T=torch.tensor(firsts).to(device),
    )


def _of_tokens(
    rows: Sequence[Row], lengths_B: Tensor, device: torch.device | str
) -> dict[str, Tensor | None]:
    """The flat tensors that follow the rows' completion tokens in order."""
    return dict(
        rows_T=torch.repeat_interleave(torch.arange(len(rows)), lengths_B).to(device),
        sampler_log_probs_T=_flat([row.sampler_log_probs for row in rows], device),
        advantages_T=torch.repeat_interleave(
            torch.tensor([row.advantage for row in rows], dtype=torch.float32), lengths_B
        ).to(device),
        weights_T=torch.repeat_interleave(
            torch.tensor([row.weight for row in rows], dtype=torch.float32), lengths_B
        ).to(device),
        old_log_probs_T=_flat([row.old_log_probs for row in rows], device),
        reference_log_probs_T=_flat([row.reference_log_probs for row in rows], device),
    )


def micro_batches(rows: Sequence[Row], token_budget: int, packed: bool = False) -> list[list[int]]:
    """Splits rows (given by their places) into micro-batches of at most `token_budget` tokens, padding counted.

    What enters as one sequence (a row, or all rows of one prompt where they are `packed`) is sorted by length first, so padding is small; a single
    one longer than the budget stands alone. A function of the lengths, and of which prompts are equal, only.
    """
    together: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        together.setdefault(row.prompt_ids if packed else place, []).append(place)
    sequences = list(together.values())
    lengths = [
        len(rows[places[0]].prompt_ids) + sum(len(rows[place].completion_ids) for place in places)
        for places in sequences
    ]
    parts: list[list[int]] = []  # of numbers of sequences
    for number in sorted(range(len(sequences)), key=lambda number: (lengths[number], number)):
        if parts and (len(parts[-1]) + 1) * lengths[number] <= token_budget:
            parts[-1].append(number)
        else:
            parts.append([number])
    return [[place for number in part for place in sequences[number]] for part in parts]


def _flat(parts: Sequence[tuple[float, ...] | None], device: torch.device | str) -> Tensor | None:
    if any(part is None for part in parts):
        assert all(part is None for part in parts), (
            "either every row of a micro-batch has these log-probabilities, or none"
        )
        return None
    return torch.tensor(
        [value for part in parts for value in part], dtype=torch.float32, device=device
    )


def _padded(
    parts: Sequence[Tensor | None], positions: int, device: torch.device | str
) -> Tensor | None:
    """-1 at the positions that no row has: their experts are chosen as ever, and computed with the others."""
    if any(part is None for part in parts):
        return None
    padded = [
        torch.nn.functional.pad(part.long(), (0, 0, 0, positions - part.shape[1]), value=-1)
        for part in parts
    ]
    return torch.stack(padded, dim=1).flatten(1, 2).to(device)
