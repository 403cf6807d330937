"""Documents to rows of tokens: [BOS document EOS] end to end, no attention mask between documents (V3 section 4.1).

A row holds `length` inputs, the token after them (so that inputs and shifted targets share one row) and `extra` more for
multi-token prediction; the next row starts `length` tokens later, so each token is an input exactly once. A position in the
stream is two whole numbers, and everything before it follows from the seeds, hence `state` and `restore` are exact.
With `carry` false every row begins with a document instead, and what does not fit behind the last one is dropped: right for a
corpus that never ends and whose documents mean nothing without their first line (V3 packs against truncation, too).
Fill-in-the-middle works on documents before packing, in the form prefix-suffix-middle.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np
import torch

from deepwright.refusals import expect_fields
from deepwright.seeds import stream
from deepwright.text.tokenizer import Tokenizer

_FIM = 64  # purpose of the random stream


class Documents(Protocol):
    def document(self, i: int) -> str:
        """Document i >= 0, a function of the corpus's seed and i alone; never ends."""
        ...


class PackedStream:
    def __init__(
        self,
        documents: Documents,
        tokenizer: Tokenizer,
        length: int,
        fim_rate: float = 0.0,
        seed: int = 0,
        extra: int = 0,
        carry: bool = True,
    ) -> None:
        if length < 1 or extra < 0:
            raise ValueError(f"length {length}, extra {extra}: expected at least 1 and 0")
        if not 0 <= fim_rate <= 1:
            raise ValueError(f"fim_rate is {fim_rate}, expected a share in [0, 1]")
        if fim_rate and tokenizer.fim_ids is None:
            raise ValueError(
                f"fim_rate is {fim_rate}, but this tokenizer has no fill-in-the-middle tokens: expected 0"
            )
        self.documents, self.tokenizer = documents, tokenizer
        self.length, self.fim_rate, self.seed, self.extra, self.carry = (
            length,
            fim_rate,
            seed,
            extra,
            carry,
        )
        self._seek(0, 0)

    def batch(self, rows: int) -> torch.Tensor:
        """The next rows, int64 [rows, length + 1 + extra]."""
        if rows < 1:
            raise ValueError(f"rows is {rows}, expected at least 1")
        if not self.carry:
            return torch.from_numpy(np.stack([self._whole_row() for _ in range(rows)]))
        wanted = rows * self.length + 1 + self.extra
        while self._held - self._offset < wanted:
            piece = np.asarray(
                self.document_tokens(self._document + len(self._pieces)), dtype=np.int64
            )
            self._pieces.append(piece)
            self._held += len(piece)
        tokens = torch.from_numpy(
            np.concatenate(self._pieces)[self._offset : self._offset + wanted]
        )
        self._advance(rows * self.length)
        return tokens.unfold(0, self.length + 1 + self.extra, self.length).contiguous()

    def _whole_row(self) -> np.ndarray:
        wanted, row = self.length + 1 + self.extra, []
        while len(row) < wanted:
            row += self.document_tokens(self._document)
            self._document += 1
        return np.asarray(row[:wanted], dtype=np.int64)

    def state(self) -> dict:
        """Where the next row starts, for JSON; with the settings that the position depends on."""
        return {**self._settings(), "document": self._document, "offset": self._offset}

    def restore(self, state: dict) -> None:
        """Continues exactly where `state` was taken. Raises ValueError if it belongs to a stream with other settings."""
        expect_fields(state, "the saved stream", {"document": int, "offset": int})
        for key, value in self._settings().items():
            if state[key] != value:
                raise ValueError(
                    f"the saved stream has {key} {state[key]}, this one has {value}: expected the same"
                )
        self._seek(state["document"], state["offset"])

    def document_tokens(self, i: int) -> list[int]:
        """[BOS, ..., EOS] of document i (no BOS where the vocabulary has none). Special tokens spelled out in a document are plain text, not borders."""
        text = self.documents.document(i)
        rng = stream(self.seed, _FIM, i) if self.fim_rate else None
        if rng is None or rng.random() >= self.fim_rate:
            body = self._encode(text)
        else:
            first, second = sorted(int(rng.random() * (len(text) + 1)) for _ in range(2))
            begin, hole, end = self.tokenizer.fim_ids
            prefix, middle, suffix = (
                self._encode(part) for part in (text[:first], text[first:second], text[second:])
            )
            body = [begin, *prefix, hole, *suffix, end, *middle]
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return [*start, *body, self.tokenizer.eos_id]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, specials=False)

    def _settings(self) -> dict:
        return {
            "length": self.length,
            "fim_rate": self.fim_rate,
            "seed": self.seed,
            "carry": self.carry,
        }

    def _seek(self, document: int, offset: int) -> None:
        self._document, self._offset = (
            document,
            offset,
        )  # the first piece held, and the place in it where the next row starts
        self._pieces: deque[np.ndarray] = deque()
        self._held = 0

    def _advance(self, tokens: int) -> None:
        self._offset += tokens
        while self._pieces and self._offset >= len(self._pieces[0]):
            dropped = len(self._pieces.popleft())
            self._offset, self._held, self._document = (
                self._offset - dropped,
                self._held - dropped,
                self._document + 1,
            )
