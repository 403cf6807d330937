"""Everything that changes while a model is pre-trained, as pure functions of tokens and steps (V3 section 4.2).

The defaults are V3's own recipe at V3's sizes; the same shape with smaller `total_tokens`, `warmup_steps` and `batch_rows` trains a
laptop model. Bounds are fractions of the token budget, rounded to whole tokens, so that a stage begins at exactly one token count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from deepwright.refusals import expect, expect_each

V3_TOKENS = 14_800_000_000_000


@dataclass(frozen=True)
class Schedule:
    """Learning rate, batch size, MTP weight and bias speed over one pre-training.

    Learning rate: linear warm-up over `warmup_steps`, constant, cosine down to `cosine_ratio` of the peak, then two constant tails.
    Batch: linearly from `batch_rows_start` (0: no ramp) to `batch_rows` sequences, in multiples of `batch_multiple`, while the first
    `batch_ramp` of the tokens are read. The paper does not say whether its ramp is linear or stepped.
    """

    total_tokens: int = V3_TOKENS
    learning_rate: float = 2.2e-4  # peak
    warmup_steps: int = 2000
    constant_until: float = 10 / 14.8  # these three: fraction of total_tokens
    cosine_until: float = 14.3 / 14.8
    tail_until: float = 14.633 / 14.8
    cosine_ratio: float = 0.1  # of the peak, at the end of the cosine and through the first tail
    tail_ratio: float = 7.3e-6 / 2.2e-4  # of the peak, through the second tail
    batch_rows: int = 15360
    batch_rows_start: int = 3072
    batch_ramp: float = 469 / 14800  # fraction of total_tokens
    batch_multiple: int = 1
    mtp_weight: float = 0.3  # until the cosine begins
    mtp_weight_late: float = 0.1
    bias_speed: float = 0.001  # until the cosine ends, then 0
    bias_decay: bool = False  # instead: from constant_until linearly to 0 at the end, for the noisy loads of small batches

    def __post_init__(self) -> None:
        expect_each(
            self,
            ("total_tokens", "batch_rows", "batch_multiple"),
            lambda value: value >= 1,
            "at least 1",
        )
        sizes = (
            "learning_rate",
            "warmup_steps",
            "cosine_ratio",
            "tail_ratio",
            "mtp_weight",
            "mtp_weight_late",
            "bias_speed",
        )
        expect_each(self, sizes, lambda value: 0 <= value < math.inf, "0 or a positive number")
        bounds = (self.constant_until, self.cosine_until, self.tail_until)
        expect(0 <= bounds[0] <= bounds[1] <= bounds[2] <= 1, "(constant_until, cosine_until, tail_until)", bounds,
               "rising fractions between 0 and 1")  # fmt: skip
        start, rows = self.batch_rows_start, self.batch_rows
        expect(0 <= start <= rows, "batch_rows_start", start, f"0 (no ramp) to batch_rows ({rows})")
        expect(
            0 <= self.batch_ramp <= 1,
            "batch_ramp",
            self.batch_ramp,
            "a fraction of total_tokens between 0 and 1",
        )

    def _bound(self, fraction: float) -> int:
        return round(fraction * self.total_tokens)

    def learning_rate_at(self, step: int, tokens: int) -> float:
        """Step size of update number `step` (the first is 1, so only a step that never happens has 0) after `tokens` tokens were read."""
        warmup = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        return self.learning_rate * warmup * self._shape(tokens)

    def _shape(self, tokens: int) -> float:
        start, end = self._bound(self.constant_until), self._bound(self.cosine_until)
        if tokens <= start:
            return 1.0
        if tokens < end:
            # 1 at the start, 0 at the end
            swing = 0.5 * (1 + math.cos(math.pi * (tokens - start) / (end - start)))
            return self.cosine_ratio + (1 - self.cosine_ratio) * swing
        return self.cosine_ratio if tokens < self._bound(self.tail_until) else self.tail_ratio

    def rows_at(self, tokens: int) -> int:
        """Sequences in the next batch, after `tokens` tokens were read."""
        ramp = self._bound(self.batch_ramp)
        if not self.batch_rows_start or tokens >= ramp:
            return self.batch_rows
        linear = self.batch_rows_start + (self.batch_rows - self.batch_rows_start) * tokens / ramp
        return max(self.batch_rows_start, int(linear // self.batch_multiple) * self.batch_multiple)

    def mtp_weight_at(self, tokens: int) -> float:
        """lambda of V3 eq. 25."""
        return (
            self.mtp_weight if tokens < self._bound(self.constant_until) else self.mtp_weight_late
        )

    def bias_speed_at(self, tokens: int) -> float:
        """gamma: how far a router bias moves after this step."""
        if self.bias_decay:
            start = self._bound(self.constant_until)
            return self.bias_speed * min(
                1.0, max(0, self.total_tokens - tokens) / max(1, self.total_tokens - start)
            )
        return self.bias_speed if tokens < self._bound(self.cosine_until) else 0.0
