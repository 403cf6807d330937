"""A model wherever it lies: a Hugging Face folder or a .gguf file, opened into memory by the same
calls.

A .gguf file is read as it is at every opening, and no converted folder is kept beside it: nothing
to go stale, no disk filled behind somebody's back. `convert` makes a folder for who opens it often.
"""

from __future__ import annotations

from pathlib import Path

import torch

from deepwright.config import ModelConfig
from deepwright.files import about
from deepwright.model.transformer import Transformer
from deepwright.text.tokenizer import Tokenizer
from deepwright.weights import loading
from deepwright.weights.gguf_files import read_gguf, read_gguf_config, read_gguf_tokenizer
from deepwright.weights.layouts import is_gguf


def load(place: str | Path, dtype: torch.dtype | None = None) -> tuple[Transformer, Tokenizer]:
    """Model and tokenizer. `dtype`: as stored; of a .gguf file fp32 unless it is BF16.

    Raises ValueError as `load_model`, or where the tokenizer is missing, not read, or has ids that
    the model has not."""
    if not is_gguf(place):
        return loading.load(place, dtype)
    tokenizer = load_tokenizer(place)  # quick, so first
    with about(place):
        loading.check_vocabulary(read_config(place), tokenizer)
    return load_model(place, dtype), tokenizer


def load_model(place: str | Path, dtype: torch.dtype | None = None) -> Transformer:
    """The model alone. Raises ValueError as `loading.load_model` and `gguf_files.read_gguf`."""
    if is_gguf(place):
        return read_gguf(place, dtype, with_tokenizer=False)[0]
    return loading.load_model(place, dtype)


def load_tokenizer(place: str | Path) -> Tokenizer:
    """The tokenizer alone. ValueError where there is none, or none that is read."""
    if not is_gguf(place):
        return Tokenizer.load(place)
    tokenizer = read_gguf_tokenizer(place)
    if tokenizer is None:
        raise ValueError(f"{place} has no tokenizer, expected a file with one")
    return tokenizer


def read_config(place: str | Path) -> ModelConfig:
    """What the model is, without its weights. Raises ValueError as `load_model`."""
    return read_gguf_config(place) if is_gguf(place) else loading.read_config(place)
