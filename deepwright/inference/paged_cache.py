"""The latent cache in blocks: a pool shared by all sequences, reference counts for shared prompts, and the view one forward sees.

A sequence's block table lists the blocks that hold its positions in order. Blocks of a common prompt stand in many tables; the
last, partly filled one is copied when a group forks, because each member writes its own next token there. Block 0 belongs to
nobody: padded positions are written to it and padded table entries read it. Storage starts as zeros, so what a mask hides is finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepwright.numerics import PagedKeys


class BlockPool:
    """Per layer a tensor [blocks * block, width] and the free blocks. With `tokens` None it grows as needed, else it is fixed."""

    def __init__(
        self,
        layers: int,
        width: int,
        block: int,
        tokens: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self.block, self.width, self.dtype, self.device = block, width, dtype, device
        self.growable = tokens is None
        self.limit = 0 if tokens is None else tokens // block  # usable blocks when fixed
        self.layers = [torch.empty(0, width, dtype=dtype, device=device) for _ in range(layers)]
        self.references = torch.zeros(0, dtype=torch.int64)
        self.free: list[int] = []

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block)

    @property
    def total(self) -> int:
        """Blocks that sequences can use (block 0 is scratch)."""
        return max(len(self.references) - 1, 0)

    def room(self, blocks: int) -> bool:
        """Whether `blocks` blocks are free, after growing where the pool may grow (fixed pools are allocated at first use)."""
        missing = blocks - len(self.free)
        if missing > 0 and (self.growable or self.total < self.limit):
            self._grow(
                max(self.total + missing, 2 * self.total, 64) if self.growable else self.limit
            )
        return len(self.free) >= blocks

    def _grow(self, total: int) -> None:
        old = len(self.references)
        # one layer at a time keeps the peak near the new size
        for i, storage in enumerate(self.layers):
            self.layers[i] = torch.zeros(
                (total + 1) * self.block, self.width, dtype=self.dtype, device=self.device
            )
            self.layers[i][: len(storage)] = storage
        self.references = torch.cat(
            [self.references, torch.zeros(total + 1 - old, dtype=torch.int64)]
        )
        self.free = list(range(total, max(old, 1) - 1, -1)) + self.free

    def take(self, blocks: int) -> list[int]:
        """Removes `blocks` free blocks, each with one reference."""
        assert blocks <= len(self.free), f"{blocks} blocks wanted, {len(self.free)} free"
        if blocks == 0:
            return []
        taken = self.free[: -blocks - 1 : -1]
        del self.free[-blocks:]
        self.references[taken] = 1
        return taken

    def share(self, blocks: list[int], times: int) -> None:
        if blocks and times:
            self.references[blocks] += times

    def release(self, blocks_N: Tensor) -> None:
        """Takes one reference from each entry (entries may repeat) and frees what nobody holds any more."""
        self.references.index_add_(0, blocks_N, torch.full_like(blocks_N, -1))
        held = torch.unique(blocks_N)
        assert bool((self.references[held] >= 0).all()), (
            "a block was released more often than it was taken"
        )
        self.free.extend(held[self.references[held] == 0].tolist())

    def copy(self, sources: list[int], targets: list[int]) -> None:
        """Copies whole blocks in every layer: the copy on write of a fork."""
        if not sources:
            return
        source_N, target_N = (
            torch.tensor(blocks, device=self.device) for blocks in (sources, targets)
        )
        for storage in self.layers:
            rows = storage.view(-1, self.block * self.width)
            rows.index_copy_(0, target_N, rows.index_select(0, source_N))

    def drop(self) -> None:
        """Checks that no block leaked, then gives the memory back (a trainer needs it) and with it every stale entry."""
        assert len(self.free) == self.total and not self.references.any(), (
            f"cache leak: {len(self.free)} of {self.total} blocks are free"
        )
        self.layers = [storage.new_empty(0, self.width) for storage in self.layers]
        self.references, self.free = self.references[:0], []


@dataclass(frozen=True)
class PagedView:
    """What one forward sees of the pool: where each new entry goes, and which blocks hold each row's keys (model's Cache protocol)."""

    pool: BlockPool
    slots_N: Tensor  # [B*S] places of the new entries, scratch for padding
    table_BM: Tensor  # [B, blocks of the longest row], padded with the scratch block
    fresh: bool = (
        False  # every row starts at position 0: the new entries are all the keys there are
    )

    def update(self, layer: int, positions_BS: Tensor, entries_BSE: Tensor) -> Tensor:
        keys = self.store(layer, positions_BS, entries_BSE)
        return entries_BSE if self.fresh else keys.gathered()

    def store(self, layer: int, positions_BS: Tensor, entries_BSE: Tensor) -> PagedKeys:
        storage = self.pool.layers[layer]
        storage.index_copy_(0, self.slots_N, entries_BSE.reshape(-1, storage.shape[1]))
        return PagedKeys(storage, self.table_BM, self.pool.block)
