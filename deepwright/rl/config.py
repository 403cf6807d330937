"""What a GRPO run is: GRPOConfig. Its defaults are the laptop recipe; PRESETS hold published settings by name (R1_ZERO first)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from deepwright.numerics import check_format
from deepwright.refusals import expect, expect_each
from deepwright.rl.alarms import AlarmConfig
from deepwright.rl.losses import Coefficients, Variant, find_variant
from deepwright.train.optimizer import OptimizerConfig

COUNTED = (
    "steps",
    "prompts",
    "mini_batches",
    "max_tokens",
    "micro_batch_tokens",
    "checkpoint_every",
    "keep",
)
MOST_DRAWN = 1_000_000
POSITIVE = ("temperature", "entropy_target", "hottest", "clip", "clip_high", "importance_cap")
NOT_NEGATIVE = (
    "seed",
    "learning_rate",
    "beta",
    "bias_speed",
    "warmup_steps",
    "evaluate_every",
    "shown_samples",
    "final_ratio",
    "resample",
)


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
    compute: str = "float32"  # number format of the blocks in rollouts, updates and evaluations: float32, bfloat16, or auto; weights stay fp32
    # nats/token: after a round the temperature moves by 5%, up where entropy, averaged over three rounds, is below this, down where it is above twice
    # this, but not below `temperature`. A policy that has learned the form soon gives one answer every time, and then there is nothing to compare.
    entropy_target: float | None = None
    hottest: float = 2.0  # no higher; only with entropy_target
    variant: str = "grpo_token_mean"  # name in deepwright.rl.losses.VARIANTS
    clip: float | None = (
        None  # epsilon of the ratio; needed with several mini-batches, without effect and refused with one
    )
    clip_high: float | None = (
        None  # epsilon above 1, where it is not the same (DAPO section 3.1); only with clip
    )
    # C: the policy term of a token is weighed by min(pi_old / pi_sampler, C), for a sampler that is not quite the trainer. None: no weight.
    importance_cap: float | None = None
    # Updates of a round send each token to the experts that pi_old chose. Only with several mini-batches.
    replay_routing: bool = False
    # Completions that were cut: wrong with reward 0, or left out of the sum, its normaliser and the mean of their group (TRL keeps their reward there).
    truncated: Literal["wrong", "mask"] = "wrong"
    # Groups whose rewards are all equal; kept ones still feel the KL term and count in the mean.
    zero_variance: Literal["drop", "keep"] = "drop"
    # Up to so many further batches of prompts are asked in a round, until `prompts` groups have variance (DAPO section 3.2); only with "drop".
    resample: int = 0
    beta: float = 0.0  # weight of the KL term
    reference_refresh: int | None = (
        None  # steps after which the reference becomes the policy; only with beta > 0, None: never
    )
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
    # Rows of one prompt are trained as one sequence, the prompt once and its completions hidden from each other: faster where prompts are long.
    pack_groups: bool = False
    seed: int = 0
    evaluate_every: int = 0  # steps; 0: only after the last one
    checkpoint_every: int = 25  # steps
    keep: int = 2  # checkpoints
    shown_samples: int = 3  # completions that each round writes to samples.jsonl
    alarms: AlarmConfig = AlarmConfig()

    def __post_init__(self) -> None:
        find_variant(self.variant)
        if self.pack_groups and self.replay_routing:
            raise ValueError(
                "replay_routing is true with pack_groups: a packed prompt has one choice of experts, not one for each completion"
            )
        check_format(self.compute, "rl.compute")
        expect_each(self, COUNTED, lambda n: n >= 1, "at least 1")
        expect_each(self, NOT_NEGATIVE, lambda n: 0 <= n < math.inf, "0 or a positive number")
        expect_each(self, POSITIVE, lambda n: 0 < n < math.inf, "a positive number")
        if self.samples < 2:
            raise ValueError(
                f"samples is {self.samples}, expected at least 2: the only member of a group has nothing to be better than"
            )
        drawn = self.prompts * self.samples
        expect(
            drawn <= MOST_DRAWN, "prompts * samples", drawn, f"at most {MOST_DRAWN:,} in a round"
        )
        if self.entropy_target is not None and self.hottest < self.temperature:
            raise ValueError(
                f"hottest is {self.hottest}, expected at least the temperature, {self.temperature}"
            )
        for name, one, two in (("zero_variance", "drop", "keep"), ("truncated", "wrong", "mask")):
            expect(
                getattr(self, name) in (one, two), name, getattr(self, name), f"{one!r} or {two!r}"
            )
        if self.resample and self.zero_variance != "drop":
            raise ValueError(
                f"resample is {self.resample}, but with zero_variance 'keep' every group is trained on"
            )
        self._check_schedule()
        self._check_updates()

    def _check_schedule(self) -> None:
        if not 0 <= self.constant_until <= 1:
            raise ValueError(
                f"constant_until is {self.constant_until}, expected a fraction of the steps between 0 and 1"
            )
        if self.constant_until == 1 and self.final_ratio != 1:
            raise ValueError(
                f"final_ratio is {self.final_ratio}, but nothing decays with constant_until 1; set it to 1"
            )

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
            raise ValueError(
                f"mini_batches is {self.mini_batches}, expected at most prompts * samples ({self.prompts * self.samples})"
            )
        if self.clip is None and self.clip_high is not None:
            raise ValueError(f"clip_high is {self.clip_high}, but without clip nothing is clipped")
        if self.replay_routing and self.mini_batches == 1:
            raise ValueError(
                "replay_routing is on, but with mini_batches 1 no update follows the first"
            )
        if self.reference_refresh is not None:
            if self.beta == 0:
                raise ValueError(
                    f"reference_refresh is {self.reference_refresh}, but with beta 0 there is no reference"
                )
            if self.reference_refresh < 1 or self.reference_refresh % self.mini_batches:
                raise ValueError(
                    f"reference_refresh is {self.reference_refresh}, expected a multiple of mini_batches ({self.mini_batches})"
                )
        window, kept = (
            self.alarms.window * self.mini_batches,
            (self.keep - 1) * self.checkpoint_every,
        )
        if self.alarms.policy == "roll_back" and kept < window:
            raise ValueError(
                f"roll_back needs a checkpoint older than its window of {window} steps, but the oldest kept may be {kept} old"
            )

    @property
    def rounds(self) -> int:
        return self.steps // self.mini_batches

    @property
    def chosen(self) -> Variant:
        return find_variant(self.variant)

    @property
    def coefficients(self) -> Coefficients:
        return Coefficients(
            math.inf if self.clip is None else self.clip,
            self.beta,
            self.clip_high,
            self.importance_cap,
        )

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
# DeepSeekMath section 4.2 (7B): one update for each exploration. Steps (one pass over 144K questions) and schedule are assumptions.
DEEPSEEK_MATH = replace(
    R1_ZERO, steps=9_000, prompts=16, samples=64, mini_batches=1, clip=None, max_tokens=1024, beta=0.04, reference_refresh=None,
    learning_rate=1e-6, checkpoint_every=500,
)  # fmt: skip
# DAPO section 4.1, without its overlong reward shaping, which would be a task's matter. Steps and the limit of further batches are assumptions.
DAPO = replace(
    R1_ZERO, variant="dapo", steps=4_992, clip=0.2, clip_high=0.28, beta=0.0, reference_refresh=None, zero_variance="drop", resample=9,
    max_tokens=20_480, learning_rate=1e-6, warmup_steps=320, checkpoint_every=320,
)  # fmt: skip
PRESETS = {"r1_zero": R1_ZERO, "deepseek_math": DEEPSEEK_MATH, "dapo": DAPO}
