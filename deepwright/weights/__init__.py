"""Hugging Face folders in and out: strict about leftovers, atomic, bit-exact."""

from deepwright.weights.loading import load, load_into, load_model, read_config, read_generation
from deepwright.weights.saving import save, save_model

__all__ = [
    "load",
    "load_into",
    "load_model",
    "read_config",
    "read_generation",
    "save",
    "save_model",
]
