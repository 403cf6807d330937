"""What a GRPO run is: GRPOConfig. Its defaults are the laptop recipe; R1_ZERO holds the published settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from deepwright.rl.losses import Coefficients, Variant, find_variant
from deepwright.train.optimizer import OptimizerConfig


@dataclass(frozen=True)
class GRPOConfig:
    """Settings of reinforcement learning by rule rewards. A step is one policy update; each round of rollouts feeds `mini_batches` of them.

    The defaults depart from R1-Zero (R1_ZERO below) for a model a million times smaller, with minutes instead of days:

    | setting              | R1-Zero         | here            | reason                                                                          |
    |----------------------|-----------------|-----------------|---------------------------------------------------------------------------------|
    | prompts x samples    | 512 x 16        | 32 x 12         | a step must take seconds; 384 completions still give most groups variance       |
    | updates per round    | 16              | 1               | on-policy: no stale ratios, no clipping, no second forward for pi_old           |
    | learning rate        | 3e-6 constant   | 4e-4, decayed   | smaller models bear and need larger steps; decay settles the last part          |
    | KL coefficient       | 0.001           | 0               | no human style to stay near, and no second model to run                         |
    | loss                 | 1/|o_i| (grpo)  | 1/tokens (DAPO) | per-sequence means weaken long answers' tokens, and longer search is the point  |
    | zero-variance groups | not stated      | dropped         | without KL their gradient is exactly 0: they only cost time and dilute the mean |
    | max length           | 32,768          | 224             | problems are solved in tens of tokens                                           |
    """

    steps: int = 150  # policy updates
    prompts: int = 32  # problems in a round
    samples: int = 12  # G: completions of each
    mini_batches: int = 1  # policy updates that a round is split into
    max_tokens: int = 224  # longest completion; one that is cut is wrong and earns nothing
    temperature: float = 1.0  # in the sampler and in the trainer's log-probabilities alike
    variant: str = "grpo_token_mean"  # name in deepwright.rl.losses.VARIANTS
    clip: float | None = None  # epsilon of the ratio; needed with several mini-batches, without effect and refused with one
    # Groups whose rewards are all equal; kept ones still feel the KL term and count in the mean.
    zero_variance: Literal["drop", "keep"] = "drop"
    beta: float = 0.0  # weight of the KL term
    reference_refresh: int | None = None  # steps after which the reference becomes the policy; only with beta > 0, None: never
    learning_rate: float = 4e-4
    warmup_steps: int = 3
    constant_until: float = 0.4  # fraction of the steps; then linear decay
    final_ratio: float = 0.25  # of the learning rate, at the last step
    # No decay: it would pull towards zero, not towards the base model.
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(weight_decay=0.0))
    # 0 keeps the router biases of pre-training, which ended at speed 0 as well: a narrow task loads experts unevenly for good reason, and
    # moving a bias changes which experts answer without any gradient having asked for it.
    bias_speed: float = 0.0
    micro_batch_tokens: int = 2048  # padded tokens in one forward pass; the result is the same. Small ones stay in a CPU's cache
    seed: int = 0
    evaluate_every: int = 0  # steps; 0: only after the last one
    checkpoint_every: int = 25  # steps
    keep: int = 2  # checkpoints
    shown_samples: int = 3  # completions that each round writes to samples.jsonl

    def __post_init__(self) -> None:
        find_variant(self.variant)
        for name in ("steps", "prompts", "mini_batches", "max_tokens", "micro_batch_tokens", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("seed", "learning_rate", "beta", "bias_speed", "warmup_steps", "evaluate_every", "shown_samples", "final_ratio"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or a positive number")
        if self.samples < 2:
            raise ValueError(f"samples is {self.samples}, expected at least 2: the only member of a group has nothing to be better than")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}, expected a positive number: greedy sampling has no gradient")
        if self.zero_variance not in ("drop", "keep"):
            raise ValueError(f"zero_variance is {self.zero_variance!r}, expected 'drop' or 'keep'")
        self._check_schedule()
        self._check_updates()

    def _check_schedule(self) -> None:
        if not 0 <= self.constant_until <= 1:
            raise ValueError(f"constant_until is {self.constant_until}, expected a fraction of the steps between 0 and 1")
        if self.constant_until == 1 and self.final_ratio != 1:
            raise ValueError(f"final_ratio is {self.final_ratio}, but nothing decays with constant_until 1; set it to 1")

    def _check_updates(self) -> None:
        if (self.clip is None) != (self.mini_batches == 1):
            raise ValueError(
                f"clip is {self.clip} with mini_batches {self.mini_batches}: one update has ratio 1, so it is set for several only"
            )
        for name in ("steps", "checkpoint_every", "evaluate_every"):
            if getattr(self, name) % self.mini_batches:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected a multiple of mini_batches ({self.mini_batches}): a round is never cut"
                )
        if self.mini_batches > self.prompts * self.samples:
            raise ValueError(f"mini_batches is {self.mini_batches}, expected at most prompts * samples ({self.prompts * self.samples})")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is {self.clip}, expected a positive number")
        if self.reference_refresh is not None:
            if self.beta == 0:
                raise ValueError(f"reference_refresh is {self.reference_refresh}, but with beta 0 there is no reference")
            if self.reference_refresh < 1 or self.reference_refresh % self.mini_batches:
                raise ValueError(
                    f"reference_refresh is {self.reference_refresh}, expected a multiple of mini_batches ({self.mini_batches})"
                )

    @property
    def chosen(self) -> Variant:
        return find_variant(self.variant)

    @property
    def coefficients(self) -> Coefficients:
        return Coefficients(math.inf if self.clip is None else self.clip, self.beta)

    def learning_rate_at(self, step: int) -> float:
        """Step size of update number `step`, from 1: linear warm-up, constant, then linear to `final_ratio` at the last step."""
        warmup = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        start = round(self.constant_until * self.steps)
        decayed = max(0.0, (step - start) / (self.steps - start)) if start < self.steps else 0.0
        return self.learning_rate * warmup * (1 - (1 - self.final_ratio) * decayed)


# As published (DeepSeek-R1, Nature version, section 2.1 and App. B.4.1). epsilon is stated for R1's first RL stage only. Adam's betas and weight
# decay for RL, and what becomes of groups without variance, are not stated: V3's betas, no decay and "keep" are assumptions. max_tokens was doubled
# after step 8.2K.
R1_ZERO = GRPOConfig(
    steps=10_400,
    prompts=512,
    samples=16,
    mini_batches=16,
    max_tokens=32_768,
    temperature=1.0,
    variant="grpo",
    clip=10.0,
    zero_variance="keep",
    beta=0.001,
    reference_refresh=400,
    learning_rate=3e-6,
    warmup_steps=0,
    constant_until=1.0,
    final_ratio=1.0,
    micro_batch_tokens=65_536,
    checkpoint_every=400,
)
