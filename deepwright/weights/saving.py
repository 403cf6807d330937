"""Our Transformer -> a Hugging Face folder that transformers, vLLM, SGLang and llama.cpp open: official names, one tensor per expert.

The folder appears whole or not at all: it is written beside its place and renamed into it. Numbers are stored as they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from deepwright.files import DRAFT
from deepwright.model.transformer import Transformer
from deepwright.refusals import expect
from deepwright.text.tokenizer import Tokenizer
from deepwright.weights.loading import check_vocabulary
from deepwright.weights.names import is_copy, memory, official
from deepwright.weights.tensor_files import write_tensors

SHARD_BYTES = 5 << 30
MODEL_FILES = (".json", ".safetensors", ".jinja")


def save(model: Transformer, tokenizer: Tokenizer, folder: str | Path, *, generation: Mapping[str, Any] | None = None,
         max_shard_bytes: int = SHARD_BYTES) -> None:  # fmt: skip
    """Model and tokenizer. `generation` adds defaults (temperature, top_p, ...) to generation_config.json. Replaces an existing folder."""
    check_vocabulary(model.config, tokenizer)

    def write(draft: Path) -> None:
        _write_model(model, draft, generation, max_shard_bytes)
        tokenizer.save(draft)

    _appear(Path(folder), write)


def save_model(model: Transformer, folder: str | Path, *, generation: Mapping[str, Any] | None = None,
               max_shard_bytes: int = SHARD_BYTES) -> None:  # fmt: skip
    """The model alone. Files hold whole tensors, so one larger than `max_shard_bytes` makes its file as large."""
    _appear(Path(folder), lambda draft: _write_model(model, draft, generation, max_shard_bytes))


def official_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """(official name, view of the model's memory) of all tensors; for MTP layers also real copies of embedding and head."""
    for name, tensor in official(model.config, memory(model)):
        yield name, tensor.detach().clone() if is_copy(model.config, name) else tensor.detach()


def _write_model(
    model: Transformer, folder: Path, generation: Mapping[str, Any] | None, max_shard_bytes: int
) -> None:
    expect(max_shard_bytes >= 1, "max_shard_bytes", max_shard_bytes, "a positive number of bytes")
    config = model.config
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    _write_json(folder / "config.json", config.to_hf() | {"torch_dtype": dtype})
    _write_json(folder / "generation_config.json", ends | dict(generation or {}))
    write_tensors(official_tensors(model), folder, max_shard_bytes)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _appear(folder: Path, write: Callable[[Path], None]) -> None:
    """Runs `write` on a draft beside `folder`, then renames it into place. A kill leaves the old folder, or (between two renames) the
    old one as `<name>.replaced`, which the next save puts back; never a mixture."""
    draft = folder.with_name(folder.name + DRAFT)
    replaced = folder.with_name(folder.name + ".replaced")
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    _refuse_foreign(folder)
    for rest in (draft, replaced):
        shutil.rmtree(rest, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        write(draft)
        if folder.exists():
            folder.rename(replaced)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    """Replacing a folder deletes what is in it, so everything in it must be a model's."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, expected a folder or a free name")
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.is_dir() or path.suffix not in MODEL_FILES:
            raise ValueError(
                f"{folder} holds {path.name}, which is no part of a model: expected a free name, or a folder saved earlier"
            )
