"""A 30-line sampler, a task of one word, and runs small enough to be killed and resumed many times.

Run as a script it trains in the folder given, in its own process: `python -m tests.rl.fakes FOLDER SECONDS_BEFORE_SIGKILL [kl]`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deepwright.config import ModelConfig
from deepwright.metrics import JsonlTracker
from deepwright.model import Transformer
from deepwright.rl import GRPOConfig, Learner, train_grpo
from deepwright.rl.types import Row
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.tasks import Problem, Score, Verdict
from deepwright.text import number_tokenizer

TOKENIZER = number_tokenizer(["say", "yes", "no"], 3)
MODEL = ModelConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, intermediate_size=24, moe_intermediate_size=8, num_hidden_layers=2, first_k_dense_replace=1,
    num_attention_heads=2, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=8, qk_nope_head_dim=8,
    qk_rope_head_dim=4, v_head_dim=8, initializer_range=0.1,
)  # fmt: skip
# What may differ between two runs.
CLOCK = (
    "time",
    "rollout_seconds",
    "reward_seconds",
    "update_seconds",
    "step_seconds",
    "rollout_tokens_per_second",
)
ONE_UPDATE = GRPOConfig(
    steps=12,
    prompts=4,
    samples=6,
    max_tokens=4,
    learning_rate=0.02,
    checkpoint_every=3,
    micro_batch_tokens=64,
)
WITH_KL = replace(
    ONE_UPDATE, variant="grpo", mini_batches=2, clip=0.2, beta=0.1, reference_refresh=6, checkpoint_every=4, zero_variance="keep",
    bias_speed=0.01,
)  # fmt: skip


def make_model(seed: int = 0, config: ModelConfig = MODEL) -> Transformer:
    return Transformer(config, torch.Generator().manual_seed(seed))


class FakeSampler:
    """Samples from a model by whole forward passes over right-padded rows; each completion has its own random stream."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        places = [(p, j) for p in range(len(prompts)) for j in range(sampling.n)]
        streams = [torch.Generator().manual_seed(hash((sampling.seed, *place))) for place in places]
        draws = [torch.rand(sampling.max_tokens, generator=stream) for stream in streams]
        ids, log_probs, going = (
            [list(prompts[p]) for p, _ in places],
            [[] for _ in places],
            list(range(len(places))),
        )
        for t in range(sampling.max_tokens):
            longest = max(len(ids[row]) for row in going)
            logits = (
                self.model(
                    torch.tensor([ids[row] + [0] * (longest - len(ids[row])) for row in going])
                )
                / sampling.temperature
            )
            for number, row in enumerate(going):
                options = logits[number, len(ids[row]) - 1].log_softmax(-1)
                chosen = int(
                    (options.exp().cumsum(0) < draws[row][t]).sum().clamp(max=len(options) - 1)
                )
                ids[row].append(chosen)
                log_probs[row].append(float(options[chosen]))
            going = [row for row in going if ids[row][-1] not in sampling.stop_ids]
            if not going:
                break
        made = [
            self._completion(ids[row][len(prompts[p]) :], log_probs[row], sampling)
            for row, (p, _) in enumerate(places)
        ]
        return [made[start : start + sampling.n] for start in range(0, len(made), sampling.n)]

    @staticmethod
    def _completion(ids: list[int], log_probs: list[float], sampling: Sampling) -> Completion:
        return Completion(
            tuple(ids),
            tuple(log_probs),
            StopReason.STOP if ids[-1] in sampling.stop_ids else StopReason.LENGTH,
        )


@dataclass(frozen=True)
class SayYes:
    """Right: the completion is exactly "yes". Half a point of format for any one word. `broken` completions make the verifier raise."""

    broken: str = ""
    name = "say-yes"

    def problem(self, i: int, split: str) -> Problem:
        return Problem(i, f"say {i % 4}", "yes", "even" if i % 2 == 0 else "odd")

    def size(self, split: str) -> int:
        return 10

    def score(self, problem: Problem, completion: str) -> Score:
        if self.broken and self.broken in completion:
            raise RuntimeError("out of order")
        right, one_word = completion == "yes", len(completion.split()) == 1
        verdict = Verdict.CORRECT if right else Verdict.WRONG if one_word else Verdict.MALFORMED
        parts = {"accuracy": float(right), "format": 0.5 * one_word}
        return Score(sum(parts.values()), verdict, "", parts)


def row(
    prompt: Sequence[int],
    completion: Sequence[int],
    advantage: float,
    weight: float = 1.0,
    **log_probs,
) -> Row:
    return Row(
        tuple(prompt), tuple(completion), (-1.0,) * len(completion), advantage, weight, **log_probs
    )


def run(folder: Path, config: GRPOConfig = ONE_UPDATE, **options) -> Learner:
    model = make_model()
    tracker = JsonlTracker(folder / "metrics.jsonl")
    return train_grpo(
        config, model, TOKENIZER, SayYes(), FakeSampler(model), folder / "zero", tracker, **options
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    killer = threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    killer.daemon = True
    killer.start()  # after the imports: all kills fall into the run itself
    run(Path(sys.argv[1]), WITH_KL if sys.argv[3:] == ["kl"] else ONE_UPDATE)
