"""Models in and out, Hugging Face folders and .gguf files: strict about leftovers, atomic, bit-exact."""

from deepwright.weights.loading import load_into, read_generation
from deepwright.weights.opening import load, load_model, load_tokenizer, read_config
from deepwright.weights.saving import save, save_model

__all__ = [
    "load",
    "load_into",
    "load_model",
    "load_tokenizer",
    "read_config",
    "read_generation",
    "save",
    "save_model",
]
