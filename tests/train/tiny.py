"""A model, a token stream and a run small enough to be trained, killed and resumed many times in one test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deepwright.config import ModelConfig
from deepwright.metrics import JsonlTracker
from deepwright.model.transformer import Transformer
from deepwright.train.optimizer import OptimizerConfig
from deepwright.train.pretrain import PretrainConfig, Trainer, pretrain
from deepwright.train.schedule import Schedule

MODEL = ModelConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, moe_intermediate_size=8, num_hidden_layers=3, first_k_dense_replace=1,
    num_attention_heads=2, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=8, qk_nope_head_dim=8,
    qk_rope_head_dim=4, v_head_dim=8, q_lora_rank=12, routed_scaling_factor=2.5, num_nextn_predict_layers=1, initializer_range=0.1,
)  # fmt: skip
LENGTH = 12
SCHEDULE = Schedule(
    total_tokens=24 * 4 * LENGTH,
    learning_rate=1e-2,
    warmup_steps=3,
    batch_rows=4,
    batch_rows_start=2,
    batch_ramp=0.2,
    bias_speed=0.01,
)
CONFIG = PretrainConfig(
    length=LENGTH, schedule=SCHEDULE, checkpoint_every=5, load_every=4, average_decay=0.9
)
MUON = replace(CONFIG, optimizer=OptimizerConfig(name="muon"))
CLOCK = ("time", "tokens_per_second", "step_seconds")  # what may differ between two runs


def steps(schedule: Schedule, length: int) -> list[tuple[int, int]]:
    """(tokens read before it, rows) of every step with sequences of `length` tokens; the last step reaches `total_tokens`."""
    taken, tokens = [], 0
    while tokens < schedule.total_tokens:
        taken.append((tokens, schedule.rows_at(tokens)))
        tokens += taken[-1][1] * length
    return taken


def make_model(config: ModelConfig = MODEL, seed: int = 0) -> Transformer:
    return Transformer(config, torch.Generator().manual_seed(seed))


def random_tokens(
    rows: int, seed: int = 0, length: int = LENGTH, vocabulary: int = MODEL.vocab_size
) -> Tensor:
    return torch.randint(
        0, vocabulary, (rows, length + 1), generator=torch.Generator().manual_seed(seed)
    )


class CountingStream:
    """Row i is a function of i: arithmetic progressions, so that there is something to learn."""

    def __init__(self) -> None:
        self.row = 0

    def batch(self, rows: int) -> Tensor:
        start, self.row = self.row, self.row + rows
        return torch.stack([self._row(i) for i in range(start, start + rows)])

    def _row(self, i: int) -> Tensor:
        return (i * 7 + torch.arange(LENGTH + 1) * (1 + i % 5)) % MODEL.vocab_size

    def state(self) -> dict:
        return {"row": self.row}

    def restore(self, state: dict) -> None:
        self.row = state["row"]


def run(folder: Path, config: PretrainConfig = CONFIG, **options) -> Trainer:
    tracker = JsonlTracker(folder / "metrics.jsonl")
    validation = [CountingStream().batch(6)]
    return pretrain(
        config,
        make_model(),
        CountingStream(),
        None,
        folder / "base",
        tracker,
        validation=validation,
        **options,
    )
