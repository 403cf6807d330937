"""Stages `long_context_1`, `_2`, ...: after pre-training the context is stretched by YaRN in phases of rising lengths (V3 section 4.3).

V3 went from 4,096 to 32,768 and 131,072 positions in 1,000 steps each, with the same stretching
(factor 40) in both, at the last learning rate of pre-training, and with as many tokens in a step of
either. What is read is what pre-training reads, in longer rows, so documents have to be that long.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from deepwright.config import ModelConfig, RopeScaling
from deepwright.model import Transformer
from deepwright.recipe import base
from deepwright.recipe.journal import Journal
from deepwright.recipe.settings import LONG_CONTEXT, PretrainSettings
from deepwright.refusals import expect
from deepwright.train.pretrain import PretrainConfig


def stretched(config: ModelConfig, factor: float, positions: int) -> ModelConfig:
    """The config with so many positions and YaRN by `factor` over those that it was trained at.
    ValueError for a model whose positions are stretched already."""
    before = config.rope_scaling
    expect(before is None, "rope_scaling", before, "none: the model is stretched already")
    deepseek = config.model_type.startswith("deepseek")
    # DeepSeek's models take the magnitude into the softmax, the others into cos and sin.
    magnitudes = {"mscale_all_dim": 1.0} if deepseek else {}
    scaling = RopeScaling(factor, config.max_position_embeddings, **magnitudes)
    return dataclasses.replace(config, rope_scaling=scaling, max_position_embeddings=positions)


def phase(settings: PretrainSettings, length: int) -> PretrainConfig:
    """How a phase is trained: at a constant rate, with as many tokens in a step as every other."""
    asked, schedule = settings.long_context, settings.pretrain.schedule
    rows = max(1, asked.batch_tokens // length)
    constant = dataclasses.replace(
        schedule, total_tokens=asked.steps * rows * length, learning_rate=asked.learning_rate,
        warmup_steps=asked.warmup_steps, constant_until=1.0, cosine_until=1.0, tail_until=1.0,
        cosine_ratio=1.0, tail_ratio=1.0, batch_rows=rows, batch_rows_start=0,
        mtp_weight=schedule.mtp_weight_late, bias_speed=0.0,
    )  # fmt: skip
    return dataclasses.replace(
        settings.pretrain, length=length, schedule=constant, micro_rows=asked.micro_rows
    )


def run(
    settings: PretrainSettings, folder: Path, journal: Journal, model: Transformer
) -> Transformer:
    """Stretches `model`, phase after phase, each judged on held-out rows of its own length; returns
    the model at the end."""
    asked, first = settings.long_context, model.config
    longest = max(asked.lengths, default=first.max_position_embeddings)
    factor = asked.factor or longest / first.max_position_embeddings
    for stage, length in zip(LONG_CONTEXT, asked.lengths):
        longer = Transformer(stretched(first, factor, length))
        longer.load_state_dict(model.state_dict())
        now = dataclasses.replace(settings, pretrain=phase(settings, length), start="")
        source = dataclasses.replace(base.source_of(now, folder), model=longer)
        model, _ = base.train(now, source, folder, journal, stage)
    return model
