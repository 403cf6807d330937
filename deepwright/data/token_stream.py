"""Rows of a folder of tokens, in an order that is a function of (seed, position) alone.

The split is one long row of documents; an epoch cuts it into rows of `length` inputs and the token
after them, from a place that moves with the epoch, and reads them in an order that a keyed
permutation gives without being stored. So a position is one whole number, a resumed run reads on
exactly, and every process of a larger run can tell which rows are its own without asking. Documents
meet in a row without a mask between them (V3 section 4.1).

Fill-in-the-middle is done to the part of a document that lies in a row, after cutting: the borders
of rows then never tear a document that was rearranged (V3 does it to documents before packing).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deepwright.data.tokens import Tokens
from deepwright.refusals import expect, expect_fields
from deepwright.seeds import stream
from deepwright.text.tokenizer import Tokenizer

_SHIFT, _KEYS, _FIM = 66, 67, 68  # purposes of random streams
_ROUNDS = 4


class TokenStream:
    def __init__(
        self,
        tokens: Tokens,
        tokenizer: Tokenizer,
        length: int,
        *,
        seed: int = 0,
        fim_rate: float = 0.0,
    ) -> None:
        """`length`: inputs in a row. ValueError where the split is shorter than one row."""
        expect(length >= 1, "length", length, "at least 1")
        least = f"at least {length + 1:,} for rows of {length:,} and the token after them"
        where = f"the number of tokens of the split {tokens.split} of {tokens.folder}"
        expect(len(tokens) > length, where, len(tokens), least)
        expect(0 <= fim_rate <= 1, "fim_rate", fim_rate, "a share from 0 to 1")
        if fim_rate and tokenizer.fim_ids is None:
            raise ValueError(
                f"fim_rate is {fim_rate}, but this tokenizer has no fill-in-the-middle tokens"
            )
        self.tokens, self.tokenizer, self.length = tokens, tokenizer, length
        self.seed, self.fim_rate = seed, fim_rate
        self.rows = max(1, (len(tokens) - length) // length)  # in an epoch
        self.position = 0  # rows read

    def batch(self, rows: int) -> torch.Tensor:
        """The next rows, int64 [rows, length + 1]."""
        expect(rows >= 1, "rows", rows, "at least 1")
        found = [self.row(self.position + n) for n in range(rows)]
        self.position += rows
        return torch.from_numpy(np.stack(found))

    def row(self, position: int) -> np.ndarray:
        """Row number `position` of the endless stream, int64 [length + 1]."""
        epoch, place = divmod(position, self.rows)
        room = len(self.tokens) - self.rows * self.length  # first places of the first row
        shift = int(stream(self.seed, _SHIFT, epoch).random() * room)
        place = permuted(place, self.rows, self.seed, epoch)
        row = self.tokens.read(shift + place * self.length, self.length + 1)
        return self._rearranged(row, position) if self.fim_rate else row

    def _rearranged(self, row: np.ndarray, position: int) -> np.ndarray:
        """The row with some of its parts of documents as prefix, suffix, middle. What then is too
        long for the row is cut."""
        rng = stream(self.seed, _FIM, position)
        begin, hole, end = self.tokenizer.fim_ids or (0, 0, 0)
        borders = {self.tokenizer.bos_id, self.tokenizer.eos_id}
        cuts = [place for place, token in enumerate(row.tolist()) if token in borders]
        pieces: list[np.ndarray] = []
        start = 0
        for cut in [*cuts, len(row)]:
            part = row[start:cut]
            if len(part) > 2 and rng.random() < self.fim_rate:
                first, second = sorted(int(rng.random() * (len(part) + 1)) for _ in range(2))
                prefix, middle, suffix = part[:first], part[first:second], part[second:]
                pieces += [[begin], prefix, [hole], suffix, [end], middle]
            else:
                pieces.append(part)
            pieces.append(row[cut : cut + 1])
            start = cut + 1
        return np.concatenate(pieces)[: len(row)].astype(np.int64)

    def state(self) -> dict[str, Any]:
        """Where it stands, for JSON; with what the position depends on."""
        return {**self._settings(), "position": self.position}

    def restore(self, state: dict[str, Any]) -> None:
        """Reads on exactly where `state` was taken. ValueError where that was another stream."""
        expect_fields(state, "the saved stream", {"position": int})
        for name, value in self._settings().items():
            expect(state.get(name) == value, f"{name} of the saved stream", state.get(name),
                   f"{value!r}, as it is now")  # fmt: skip
        self.position = state["position"]

    def _settings(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "seed": self.seed,
            "fim_rate": self.fim_rate,
            "tokens": len(self.tokens),
            "tokenizer": self.tokens.manifest["tokenizer"],
        }


def permuted(place: int, size: int, seed: int, epoch: int) -> int:
    """Where `place` of range(size) goes in this epoch: a permutation that needs no table.

    A Feistel network over the next power of four, walked until it falls inside."""
    half = max(1, (size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    rng = stream(seed, _KEYS, epoch)
    keys = [int(rng.random() * (1 << 52)) for _ in range(_ROUNDS)]
    while True:
        left, right = place >> half, place & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        place = left << half | right
        if place < size:
            return place


def _mixed(x: int) -> int:
    """A whole number whose every bit depends on every bit of x (the finaliser of splitmix64)."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return x ^ x >> 31


def sequential(tokens: Tokens, length: int, rows: int) -> torch.Tensor:
    """The first whole rows of a split in their order, int64 [at most rows, length + 1]: what a
    model is validated on. A split shorter than a row gives one shorter row."""
    length = min(length, len(tokens) - 1)
    expect(length >= 1, f"the number of tokens of the split {tokens.split}", len(tokens), "2")
    starts = range(0, min(rows * length, len(tokens) - length), length)
    found = [tokens.read(start, length + 1) for start in starts]
    return torch.from_numpy(np.stack(found))
