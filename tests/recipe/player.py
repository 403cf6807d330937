"""Untrained models of two layers: one that knows the words of Countdown, one that reads any text."""

import dataclasses
from pathlib import Path

import torch

from deepwright import weights
from deepwright.config import preset
from deepwright.model import Transformer
from deepwright.tasks import Countdown
from deepwright.text import Tokenizer, number_tokenizer, train_bpe

PROMPT = "nums 3 7 1 make 20 :"


def save_player(folder: Path, **fields: int) -> Path:
    """A model of Countdown's words, written into a folder; `fields` of its config as named."""
    return _save(number_tokenizer(Countdown().tokenizer_words(), 99), folder, fields)


def save_reader(folder: Path, **fields: int) -> Path:
    """The same of bytes."""
    return _save(train_bpe(["Find the answer. Put it in \\boxed{}."] * 3, 300), folder, fields)


def _save(tokenizer: Tokenizer, folder: Path, fields: dict[str, int]) -> Path:
    config = dataclasses.replace(
        preset("laptop"),
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_nextn_predict_layers=0,
        **fields,
    )
    weights.save(Transformer(config, torch.Generator().manual_seed(0)), tokenizer, folder)
    return folder
