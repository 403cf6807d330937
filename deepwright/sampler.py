"""Generation seen from outside: what is asked (Sampling), what comes back (Completion), who can do it (Sampler).

Token ids cross this seam, never text: re-encoding decoded text does not give the same ids. No torch here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from deepwright.refusals import LARGEST, expect, quoted

COLDEST = 2.0**-126  # of the numbers that float32 holds to its full precision


class NotFinite(ValueError):
    """The model's logits, those of `row` first, are no numbers; the message says why."""

    def __init__(self, message: str, row: int = 0) -> None:
        super().__init__(message)
        self.row = row


class StopReason(enum.Enum):
    STOP = "stop"  # one of the stop ids was produced; it is the last token of the completion
    LENGTH = "length"  # max_tokens or the context was reached
    ABORT = "abort"  # the caller cancelled the request


@dataclass(frozen=True)
class Sampling:
    """How to sample: as it stands, from the model's own distribution. temperature 0 means greedy;
    top_k 0 and top_p 1 mean no truncation."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: tuple[int, ...] = ()
    n: int = 1  # completions for each prompt
    seed: int = 0  # completion (prompt p, sample j, position t) draws from a stream that depends on these four numbers alone

    def __post_init__(self) -> None:
        expect(self.max_tokens >= 1, "max_tokens", self.max_tokens, "at least 1")
        expect(self.n >= 1, "n", self.n, "at least 1 completion for each prompt")
        warm = self.temperature == 0 or COLDEST <= self.temperature < float("inf")
        expected = "0 (greedy) or a positive number that float32 holds"
        expect(warm, "temperature", self.temperature, expected)
        expect(0 < self.top_p <= 1, "top_p", self.top_p, "a number in (0, 1]")
        whole = 0 <= self.top_k < LARGEST
        expect(whole, "top_k", self.top_k, "0 (no limit) or a positive number")
        wrong = [token for token in self.stop_ids if not 0 <= token < LARGEST]
        if wrong:
            raise ValueError(f"stop_ids has {quoted(wrong[0])}, expected token ids")


@dataclass(frozen=True)
class Completion:
    """One sampled continuation. `token_ids` includes the stop token when there is one.

    `log_probs[t]` is the log-probability (nats) of token t under softmax(logits / temperature), before any top-k/top-p
    truncation; at temperature 0 under softmax(logits). `text` is what the ids say, without border
    tokens, where whoever made it knows the tokenizer (`Engine.generate`); None elsewhere. The ids
    are the completion: two are equal by them.
    """

    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    stop: StopReason
    text: str | None = field(default=None, compare=False)


# What a sampler can tell of while it works, for a progress bar alone: how many completions ended
# since it told last, and how many are being sampled.
Watch = Callable[[int, int], None]


class Sampler(Protocol):
    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """Returns [P][n] completions for P prompts. NotFinite where a model gives no numbers."""
        ...


@runtime_checkable
class Watchable(Protocol):
    """A sampler that tells of its work."""

    watch: Watch
