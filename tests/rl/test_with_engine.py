"""The loop with the real engine and the real task: sampler and trainer are one model in two forms, and their gap is rounding alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepwright.config import ModelConfig
from deepwright.files import read_records
from deepwright.inference.engine import Engine
from deepwright.metrics import JsonlTracker
from deepwright.model import Transformer
from deepwright.rl import GRPOConfig, Learner, train_grpo
from deepwright.tasks import Countdown
from deepwright.text import number_tokenizer

TASK = Countdown(largest=5, limit=20, held_out=10)
TOKENIZER = number_tokenizer(TASK.tokenizer_words(), TASK.largest_number)
MODEL = ModelConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=3, first_k_dense_replace=1,
    num_attention_heads=2, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=16, qk_nope_head_dim=16,
    qk_rope_head_dim=8, v_head_dim=16, initializer_range=0.05,
)  # fmt: skip
CONFIG = GRPOConfig(
    steps=50,
    prompts=2,
    samples=3,
    max_tokens=12,
    learning_rate=0.0,
    zero_variance="keep",
    checkpoint_every=50,
)
# Absorbed decoding against an expanded forward of the same fp32 weights: the two sum the same products in another order. Per layer about 200 roundings
# of 6e-8 on activations of order 1, three layers, random signs (factor sqrt): 3 * sqrt(200) * 6e-8 = 2.5e-6 on a logit; room of 2.
GAP = 5e-6


class Short(Countdown):
    """Countdown's prompts with a reward that a random model can earn: the fewer words, the better."""

    def score(self, problem, completion):
        return replace(super().score(problem, completion), value=-float(len(completion.split())))


def train(
    folder: Path, config: GRPOConfig, *, task: Countdown = TASK, stale: bool = False
) -> tuple[Learner, list[dict]]:
    model = Transformer(MODEL, torch.Generator().manual_seed(0))
    engine = Engine(copy.deepcopy(model) if stale else model, TOKENIZER)
    learner = train_grpo(
        config,
        model,
        TOKENIZER,
        task,
        engine,
        folder / "zero",
        JsonlTracker(folder / "metrics.jsonl"),
    )
    return learner, read_records(folder / "metrics.jsonl")


@pytest.mark.invariant
def test_learning_rate_zero_keeps_trainer_and_engine_together_for_fifty_steps(tmp_path):
    before = Transformer(MODEL, torch.Generator().manual_seed(0)).state_dict()
    learner, records = train(tmp_path, CONFIG)
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items()
    )
    assert len(records) == 50
    for record in records:
        assert record["ratio_mean"] == record["ratio_max"] == 1.0
        assert record["log_prob_gap_max"] <= GAP


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_gap_stays_rounding_while_the_weights_move(tmp_path, temperature):
    config = replace(
        CONFIG,
        steps=6,
        learning_rate=3e-3,
        warmup_steps=0,
        temperature=temperature,
        prompts=8,
        max_tokens=24,
        checkpoint_every=6,
    )
    task = Short(largest=5, limit=20, held_out=10)
    _, records = train(tmp_path / "live", config, task=task)
    assert max(record["grad_norm"] for record in records) > 0
    # Logits are divided by T, and so is their rounding.
    assert max(record["log_prob_gap_max"] for record in records) <= GAP / temperature
    # an engine that never sees the updates
    _, records = train(tmp_path / "stale", config, task=task, stale=True)
    assert records[-1]["log_prob_gap_max"] > 100 * GAP
