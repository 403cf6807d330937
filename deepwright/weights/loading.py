"""A Hugging Face folder -> our Transformer. Strict: every tensor of the model must be there, nothing else may, shapes must fit.

Tensors are read one at a time into the model's own memory. A layer's experts may be stored one by one (DeepSeek, vLLM) or
stacked (transformers 5 in memory); FP8 weights are multiplied by their block scales. Copies of the embedding and the head
(MTP layers, tied heads) may be absent; where present they must equal the original.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepwright.config import ModelConfig
from deepwright.files import about, read_json
from deepwright.model.transformer import Transformer
from deepwright.refusals import quoted
from deepwright.text.tokenizer import Tokenizer
from deepwright.weights.layouts import describe, refuse_quantized
from deepwright.weights.names import is_copy, memory, official, stacked
from deepwright.weights.tensor_files import TensorFiles

SHOWN = 3  # names listed in an error before "and N more"
_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
_EXPERT = re.compile(r"model\.layers\.\d{1,9}\.mlp\.experts\.(\d{1,9})\.")
_STACKED = re.compile(r"model\.layers\.\d{1,9}\.mlp\.experts\.down_proj")


def load(folder: str | Path, dtype: torch.dtype | None = None) -> tuple[Transformer, Tokenizer]:
    """Model and tokenizer of a folder. Raises ValueError as `load_model`, or when the tokenizer has ids that the model has not."""
    config, tokenizer = read_config(folder), Tokenizer.load(folder)  # quick, so first
    with about(folder):
        check_vocabulary(config, tokenizer)
    return load_model(folder, dtype), tokenizer


def load_model(folder: str | Path, dtype: torch.dtype | None = None) -> Transformer:
    """The model in `folder`, in `dtype` or as stored (FP8 becomes the dtype of the embedding;
    router biases stay fp32).

    Without MTP modules, and with a warning, where their tensors are all absent (transformers writes
    none, whatever its config.json says). Raises ValueError naming tensors that are missing, left
    over or of another shape than config.json says; all of them are looked at before memory is asked
    for.
    """
    folder = Path(folder)
    config, files = read_config(folder), TensorFiles(folder)
    config = _without_absent_mtp(config, files)
    check_sizes(config, files)
    model = Transformer(config, dtype=dtype or _stored_dtype(files), device="meta")
    _check_tensors(_targets(model, files), files)
    model = allocate(model)
    _fill(_targets(model, files), model.config, files)
    return model


def load_into(model: Transformer, folder: str | Path) -> None:
    """Copies the weights of `folder` into `model` (in its dtype), without a second model in memory. Same errors as `load_model`."""
    config = read_config(folder)
    if config != model.config:
        name = next(
            name for name in vars(config) if getattr(config, name) != getattr(model.config, name)
        )
        raise ValueError(
            f"{folder} holds a model with {name} {quoted(getattr(config, name))}, expected "
            f"{quoted(getattr(model.config, name))}"
        )
    files = TensorFiles(Path(folder))
    targets = _targets(model, files)
    _check_tensors(targets, files)
    _fill(targets, config, files)


def read_config(folder: str | Path) -> ModelConfig:
    """The model that config.json describes. ValueError naming the file where it does not, or saying
    what the folder holds instead."""
    path = Path(folder) / "config.json"
    if not path.is_file() and (what := describe(path.parent)):
        raise ValueError(f"{folder} holds {what}")
    refuse_quantized(path.parent)
    values = read_json(path)
    try:
        return ModelConfig.from_hf(values)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix('config.json ')}") from error


def read_generation(folder: str | Path) -> dict[str, Any]:
    """generation_config.json (temperature, top_p, token ids ...), empty where there is none."""
    path = Path(folder) / "generation_config.json"
    return read_json(path) if path.is_file() else {}


def check_vocabulary(config: ModelConfig, tokenizer: Tokenizer) -> None:
    """ValueError unless the model has every id of the tokenizer, and both mean the same by begin
    and end."""
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model a vocabulary of "
            f"{config.vocab_size}: they do not belong together"
        )
    tokenizer.check_named("eos", config.eos_token_ids)
    begin = () if config.bos_token_id is None else (config.bos_token_id,)
    tokenizer.check_named("bos", begin)


def _without_absent_mtp(config: ModelConfig, files: TensorFiles) -> ModelConfig:
    modules = config.num_nextn_predict_layers
    if not modules or any(
        layer >= config.num_hidden_layers for layer in _numbers(_LAYER, files.names())
    ):
        return config
    warnings.warn(
        f"{files.folder} holds no tensor of the MTP modules in its config.json: the model is "
        "loaded without them",
        stacklevel=3,
    )
    return dataclasses.replace(config, num_nextn_predict_layers=0)


def _numbers(pattern: re.Pattern[str], names: Iterable[str]) -> set[int]:
    return {int(match[1]) for name in names if (match := pattern.match(name))}


def check_sizes(config: ModelConfig, files: TensorFiles) -> None:
    """ValueError where config.json counts more layers, experts or parameters than the files hold.

    Looked at first: only then may a count be looped over, and a size be multiplied."""
    names = files.names()
    layers = len(_numbers(_LAYER, names))
    experts = len(_numbers(_EXPERT, names)) or max(
        ((*files.shape(name), 0)[0] for name in names if _STACKED.fullmatch(name)), default=0
    )
    asked = config.num_hidden_layers + config.num_nextn_predict_layers
    refuse_absent(files.folder, "layers", asked, layers)
    if config.is_moe(asked - 1):
        refuse_absent(files.folder, "routed experts", config.n_routed_experts, experts)
    numbers = files.numbers()  # with some tensors missing it is their names that are worth saying
    if config.parameters + config.mtp_parameters > 2 * numbers:
        asked = config.parameters + config.mtp_parameters
        refuse_absent(files.folder, "parameters", asked, numbers)


def refuse_absent(where: Path, what: str, asked: int, found: int) -> None:
    if asked > found:
        raise ValueError(
            f"{where}: a model of {asked:,} {what} is described, but there are {found:,}"
        )


def _check_tensors(targets: Mapping[str, Tensor], files: TensorFiles) -> None:
    for name, target in targets.items():
        files.check_kind(name)
        found, expected = files.shape(name), tuple(target.shape)
        if found != expected:
            raise ValueError(
                f"{name} has shape {quoted(found)} in {files.folder}, expected {expected} from "
                "config.json"
            )


def _stored_dtype(files: TensorFiles) -> torch.dtype:
    """The embedding's, which FP8 checkpoints leave unquantised; fp32 where models are not computed
    in it."""
    name = "model.embed_tokens.weight"
    stored = files.dtype(name) if name in files.names() else torch.float32
    return stored if stored in (torch.float32, torch.bfloat16, torch.float16) else torch.float32


def allocate(model: Transformer) -> Transformer:
    """A model on the meta device in uninitialised memory: whoever asks for it writes every number
    of it, or raises."""
    try:
        return model.to_empty(device="cpu")
    except RuntimeError as error:
        raise ValueError(
            f"there is not enough memory for a model of {model.config.parameters:,} parameters"
        ) from error


@torch.no_grad()
def _fill(targets: Mapping[str, Tensor], config: ModelConfig, files: TensorFiles) -> None:
    copies = {name for name in targets if is_copy(config, name)}  # compared when the rest is there
    for name in targets:
        if name not in copies:
            targets[name].copy_(finite(files.tensor(name), name, files.folder))
    for name in copies:
        if not torch.equal(files.tensor(name).to(targets[name].dtype), targets[name]):
            raise ValueError(
                f"{name} in {files.folder} differs from the tensor that it is a copy of, which one model cannot hold"
            )


def finite(tensor: Tensor, name: str, where: Path) -> Tensor:
    """The tensor itself. Raises ValueError when a number in it is infinite or none at all: a sum in
    fp32 shows it in one pass, or is too large for fp32 itself."""
    if not torch.isfinite(tensor.sum(dtype=torch.float32)):
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            raise ValueError(f"{name} in {where} holds {count} numbers that are NaN or infinite")
    return tensor


def _targets(model: Transformer, files: TensorFiles) -> dict[str, Tensor]:
    """Stored name -> the part of the model's memory that it fills. Raises ValueError for missing and left-over tensors."""
    config, ours = model.config, memory(model)
    # transformers writes empty tensors for 0 shared experts
    found = {name for name in files.names() if 0 not in files.shape(name)}
    if config.is_dense:  # early Llamas stored a table that follows from config.json
        found = {name for name in found if not name.endswith("rotary_emb.inv_freq")}
    whole = {
        name: (tensor, parts) for name, tensor, parts in stacked(config, ours) if name in found
    }
    targets = dict(official(config, ours))
    for name, (tensor, parts) in whole.items():
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
    return ", ".join(name[:100] for name in names[:SHOWN]) + more
