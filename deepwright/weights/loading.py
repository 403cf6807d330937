"""A Hugging Face folder -> our Transformer. Strict: every tensor of the model must be there, nothing else may, shapes must fit.

Tensors are read one at a time into the model's own memory. A layer's experts may be stored one by one (DeepSeek, vLLM) or
stacked (transformers 5 in memory); FP8 weights are multiplied by their block scales. Copies of the embedding and the head
(MTP layers, tied heads) may be absent; where present they must equal the original.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepwright.config import ModelConfig
from deepwright.files import read_json
from deepwright.model.transformer import Transformer
from deepwright.text.tokenizer import Tokenizer
from deepwright.weights.names import is_copy, memory, official, stacked
from deepwright.weights.tensor_files import TensorFiles

SHOWN = 3  # names listed in an error before "and N more"


def load(folder: str | Path, dtype: torch.dtype | None = None) -> tuple[Transformer, Tokenizer]:
    """Model and tokenizer of a folder. Raises ValueError as `load_model`, or when the tokenizer has ids that the model has not."""
    model = load_model(folder, dtype)
    tokenizer = Tokenizer.load(folder)
    check_vocabulary(model.config, tokenizer)
    return model, tokenizer


def load_model(folder: str | Path, dtype: torch.dtype | None = None) -> Transformer:
    """The model in `folder`, in `dtype` or as stored (FP8 becomes the dtype of the embedding; router biases stay fp32).

    Without MTP modules, and with a warning, where their tensors are all absent (transformers writes none, whatever its config.json says).
    Raises ValueError naming tensors that are missing, left over or of another shape than config.json says.
    """
    folder = Path(folder)
    config, files = read_config(folder), TensorFiles(folder)
    mtp = tuple(
        f"model.layers.{config.num_hidden_layers + depth}."
        for depth in range(config.num_nextn_predict_layers)
    )
    if mtp and not any(name.startswith(mtp) for name in files.names()):
        warnings.warn(
            f"{folder} holds no tensor of the MTP modules in its config.json: the model is loaded without them",
            stacklevel=2,
        )
        config = dataclasses.replace(config, num_nextn_predict_layers=0)
    model = allocate(config, dtype or _stored_dtype(files))
    _fill(model, files)
    return model


def load_into(model: Transformer, folder: str | Path) -> None:
    """Copies the weights of `folder` into `model` (in its dtype), without a second model in memory. Same errors as `load_model`."""
    config = read_config(folder)
    if config != model.config:
        name = next(
            name for name in vars(config) if getattr(config, name) != getattr(model.config, name)
        )
        raise ValueError(
            f"{folder} holds a model with {name} {getattr(config, name)!r}, expected {getattr(model.config, name)!r}"
        )
    _fill(model, TensorFiles(Path(folder)))


def read_config(folder: str | Path) -> ModelConfig:
    return ModelConfig.from_hf(read_json(Path(folder) / "config.json"))


def read_generation(folder: str | Path) -> dict[str, Any]:
    """generation_config.json (temperature, top_p, token ids ...), empty where there is none."""
    path = Path(folder) / "generation_config.json"
    return read_json(path) if path.is_file() else {}


def check_vocabulary(config: ModelConfig, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model a vocabulary of {config.vocab_size}: they do not belong together"
        )
    if tokenizer.eos_id not in config.eos_token_ids:
        raise ValueError(
            f"eos_token_id is {config.eos_token_id} in the model's config, expected the tokenizer's {tokenizer.eos_id}"
        )
    if (
        not config.is_dense and config.bos_token_id != tokenizer.bos_id
    ):  # released Qwen folders contradict themselves here
        raise ValueError(
            f"bos_token_id is {config.bos_token_id} in the model's config, expected the tokenizer's {tokenizer.bos_id}"
        )


def _stored_dtype(files: TensorFiles) -> torch.dtype:
    """The embedding's: FP8 checkpoints leave it unquantised."""
    name = "model.embed_tokens.weight"
    return files.dtype(name) if name in files.names() else torch.float32


def allocate(config: ModelConfig, dtype: torch.dtype) -> Transformer:
    """Uninitialised memory: `_fill` writes every number of it, or raises."""
    return Transformer(config, dtype=dtype, device="meta").to_empty(device="cpu")


@torch.no_grad()
def _fill(model: Transformer, files: TensorFiles) -> None:
    targets = _targets(model, files)
    for name, target in targets.items():
        if files.shape(name) != tuple(target.shape):
            raise ValueError(
                f"{name} has shape {files.shape(name)} in {files.folder}, expected {tuple(target.shape)} from config.json"
            )
    copies = {
        name for name in targets if is_copy(model.config, name)
    }  # compared last, when the originals are there
    for name in targets:
        if name not in copies:
            targets[name].copy_(finite(files.tensor(name), name, files.folder))
    for name in copies:
        if not torch.equal(files.tensor(name).to(targets[name].dtype), targets[name]):
            raise ValueError(
                f"{name} in {files.folder} differs from the tensor that it is a copy of, which one model cannot hold"
            )


def finite(tensor: Tensor, name: str, where: Path) -> Tensor:
    """The tensor itself. Raises ValueError when a number in it is infinite or none at all: a sum in fp32 shows it in one pass."""
    if not torch.isfinite(tensor.sum(dtype=torch.float32)):
        raise ValueError(
            f"{name} in {where} holds {int((~torch.isfinite(tensor)).sum())} numbers that are NaN or infinite"
        )
    return tensor


def _targets(model: Transformer, files: TensorFiles) -> dict[str, Tensor]:
    """Stored name -> the part of the model's memory that it fills. Raises ValueError for missing and left-over tensors."""
    config, ours = model.config, memory(model)
    targets = dict(official(config, ours))
    found = {
        name for name in files.names() if 0 not in files.shape(name)
    }  # transformers writes empty tensors for 0 shared experts
    if config.is_dense:  # early Llamas stored a table that follows from config.json
        found = {name for name in found if not name.endswith("rotary_emb.inv_freq")}
    for name, tensor, parts in stacked(config, ours):
        if name in found:
            for part in parts:
                del targets[part]
            targets[name] = tensor
    if config.tie_word_embeddings:
        targets["lm_head.weight"] = ours["embed.weight"]
    if missing := sorted(name for name in targets.keys() - found if not is_copy(config, name)):
        raise ValueError(f"{files.folder} lacks {listed(missing)}")
    if left_over := sorted(found - targets.keys()):
        raise ValueError(
            f"{files.folder} holds {listed(left_over)}, which a model of its config.json does not have"
        )
    return {name: targets[name] for name in files.names() if name in found}  # in file order


def listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
