"""What attention keeps of earlier tokens: for each token and layer one entry [normed latent C | rotated shared key R].

`Cache` is all that the network knows. The contiguous one here serves simple decoding and tests; the engine has a paged one.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from deepwright.config import ModelConfig
from deepwright.numerics import PagedKeys


class Cache(Protocol):
    def update(self, layer: int, positions_BS: Tensor, entries_BSE: Tensor) -> Tensor:
        """Stores the new tokens' entries and returns the entries [B, T, E] of key positions 0..T-1 of each row."""
        ...

    def store(self, layer: int, positions_BS: Tensor, entries_BSE: Tensor) -> Tensor | PagedKeys:
        """The same for who can read entries where they lie."""
        ...


class ContiguousCache:
    """One slab [layers, B, length, E]; rows of different lengths are told apart by their positions alone."""

    def __init__(
        self, config: ModelConfig, batch: int, length: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.entries = torch.zeros(
            config.num_hidden_layers, batch, length, config.cache_width, dtype=dtype
        )

    def update(self, layer: int, positions_BS: Tensor, entries_BSE: Tensor) -> Tensor:
        last = int(positions_BS.max())
        if last >= self.entries.shape[2]:
            raise ValueError(
                f"position {last} lies beyond the cache's length {self.entries.shape[2]}"
            )
        slab = self.entries[layer]
        slab[torch.arange(slab.shape[0])[:, None], positions_BS] = entries_BSE.to(slab.dtype)
        return slab[:, : last + 1]

    store = update
