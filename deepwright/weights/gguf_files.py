"""GGUF in and out, whole or not at all, through the package `gguf` (an extra): one tensor in memory beside the model.

Quantised tensors come in as the fp32 numbers that they stand for (Q4_0, Q4_1, Q8_0, K-quants, whatever `gguf` can undo).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from deepwright.config import ModelConfig
from deepwright.files import DRAFT, about
from deepwright.model.transformer import Transformer
from deepwright.refusals import quoted, require
from deepwright.text.tokenizer import Tokenizer
from deepwright.weights.gguf_header import GGUFFile, open_gguf
from deepwright.weights.gguf_names import (
    EMBEDDING,
    ENDS,
    ROPE_FREQS,
    architecture,
    metadata,
    parts,
    read_config,
    rope_divisors,
)
from deepwright.weights.gguf_tokenizer import read_tokenizer, tokenizer_fields
from deepwright.weights.loading import allocate, finite, listed

TYPES = {"f32": "F32", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
# llama.cpp's numbers for "mostly this type"
_FILE_TYPES = {"F32": 0, "Q4_0": 2, "Q8_0": 7, "BF16": 32}


def _package() -> ModuleType:
    require("gguf", "reading and writing GGUF files", "gguf")
    import gguf

    return gguf


# ---- in


def read_gguf(
    path: str | Path, dtype: torch.dtype | None = None, *, with_tokenizer: bool = True
) -> tuple[Transformer, Tokenizer | None]:
    """Model and, if the file has one that we read, tokenizer. `dtype`: fp32 unless the file is
    BF16.

    Raises ValueError for a damaged file, an unknown architecture, key or tensor type, a missing or
    left-over tensor, NaN weights; and, unless the weights are asked for alone, for a vocabulary
    that is not read."""
    gguf, path = _package(), Path(path)
    file = open_gguf(path, gguf)
    with about(path):
        tokenizer = read_tokenizer(file.fields) if with_tokenizer else None  # quick, so first
        return _read_model(file, gguf, path, dtype), tokenizer


def read_gguf_config(path: str | Path) -> ModelConfig:
    """What the model of a file is. ValueError as `read_gguf`, as far as its header tells."""
    gguf, path = _package(), Path(path)
    with about(path):
        return _config(open_gguf(path, gguf), gguf, path)


def read_gguf_tokenizer(path: str | Path) -> Tokenizer | None:
    """The tokenizer of a file; None where it has none. ValueError for one that is not read."""
    path = Path(path)
    with about(path):
        return read_tokenizer(open_gguf(path, _package()).fields)


def _config(file: GGUFFile, gguf: ModuleType, path: Path) -> ModelConfig:
    parts_in_all = file.fields.get("split.count", 1)
    if parts_in_all != 1:
        raise ValueError(
            f"{path} is one of {quoted(parts_in_all)} parts: join them with "
            "`llama-gguf-split --merge` first"
        )
    if EMBEDDING not in file.tensors:
        raise ValueError(f"{path} lacks {EMBEDDING}")

    divisors = _numbers(file, gguf, path, ROPE_FREQS) if ROPE_FREQS in file.tensors else None
    return read_config(file.fields, file.shapes, divisors)


def _numbers(file: GGUFFile, gguf: ModuleType, path: Path, name: str) -> torch.Tensor:
    values = torch.from_numpy(_dequantized(gguf, file, name))
    return finite(values.view(file.tensors[name].shape), name, path)


def _read_model(
    file: GGUFFile, gguf: ModuleType, path: Path, dtype: torch.dtype | None
) -> Transformer:
    """Names and shapes are compared before memory is asked for."""
    config = _config(file, gguf, path)
    stored = torch.bfloat16 if file.tensors[EMBEDDING].kind.name == "BF16" else torch.float32
    whole_kv_b = "blk.0.attn_kv_b.weight" in file.tensors
    model = Transformer(config, dtype=dtype or stored, device="meta")
    _check_parts(path, file, {name: shape for name, _, shape in parts(model, whole_kv_b)})
    with torch.no_grad():
        model = allocate(model)
        for name, view, _ in parts(model, whole_kv_b):
            view.copy_(_numbers(file, gguf, path, name).view(view.shape))
    return model


def _check_parts(path: Path, file: GGUFFile, expected: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(set(expected) - set(file.tensors)):
        raise ValueError(f"{path} lacks {listed(missing)}")
    if left_over := sorted(set(file.tensors) - set(expected) - {ROPE_FREQS}):
        raise ValueError(
            f"{path} holds {listed(left_over)}, which a model of its metadata does not have"
        )
    for name, shape in expected.items():
        found = file.tensors[name].shape
        if found != shape:
            raise ValueError(
                f"{name} has shape {found} in {path}, expected {shape} from its metadata"
            )


def _dequantized(gguf: ModuleType, file: GGUFFile, name: str) -> np.ndarray:
    """The fp32 numbers that a tensor stands for."""
    tensor = file.tensors[name]
    rows = gguf.quants.quant_shape_to_byte_shape(tensor.shape, tensor.kind)
    stored = np.frombuffer(file.raw(name), dtype=np.uint8).reshape(rows)
    try:
        values = gguf.quants.dequantize(stored, tensor.kind)
    except NotImplementedError as error:
        kind = f"{name} is stored as {tensor.kind.name}"
        raise ValueError(f"{kind}, which gguf cannot read ({error})") from error
    return np.array(values, dtype=np.float32)


# ---- out


def write_gguf(
    model: Transformer, tokenizer: Tokenizer | None, path: str | Path, kind: str | None = None
) -> None:
    """`kind`: one of TYPES, for the matrices; None: BF16 for a bf16 model, else F32. Norms, biases and routers stay F32, and with Q4_0
    the embedding and the head are Q8_0, as llama.cpp's own converter has it. MTP modules are left out, with a warning.

    Raises ValueError for a model that llama.cpp would compute otherwise."""
    gguf, path = _package(), Path(path)
    config = model.config
    arch = architecture(config)
    if config.num_nextn_predict_layers:
        warnings.warn(
            "the MTP module is left out: llama.cpp's deepseek2 does not read it", stacklevel=2
        )
    kind = TYPES[kind or ("bf16" if model.embed.weight.dtype == torch.bfloat16 else "f32")]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + DRAFT)
    writer = gguf.GGUFWriter(draft, arch)
    fields = {f"{arch}.{key}": value for key, value in metadata(config).items()}
    fields |= {"general.file_type": _FILE_TYPES[kind], "general.quantization_version": 2}
    fields |= (
        _special_ids(config)
        if tokenizer is None
        else tokenizer_fields(tokenizer, config.vocab_size)
    )
    _add_fields(writer, fields)
    tensors = list(parts(model))
    if arch == "llama" and config.rope_scaling is not None:
        divisors = rope_divisors(config)
        tensors.append((ROPE_FREQS, divisors, tuple(divisors.shape)))
    types = [_type_of(gguf, kind, name, shape) for name, _, shape in tensors]
    for (name, _, shape), stored in zip(tensors, types, strict=True):
        size = gguf.quants.quant_shape_to_byte_shape(shape, stored)
        writer.add_tensor_info(
            name, shape, np.dtype(np.float32), int(np.prod(size)), raw_dtype=stored
        )
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for (name, view, shape), stored in zip(tensors, types, strict=True):
            values = finite(view.detach().reshape(shape).float(), name, path).numpy()
            writer.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(values), stored))
        writer.close()
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _type_of(gguf: ModuleType, kind: str, name: str, shape: tuple[int, ...]) -> Any:
    """Rows that are no multiple of a block (32) stay BF16."""
    types = gguf.GGMLQuantizationType
    if len(shape) == 1 or "ffn_gate_inp" in name:
        return types.F32
    if kind == "Q4_0" and name in ("token_embd.weight", "output.weight"):
        kind = "Q8_0"
    return types.BF16 if kind.startswith("Q") and shape[-1] % 32 else types[kind]


def _special_ids(config: Any) -> dict[str, Any]:
    ids = dict(zip(ENDS, config.eos_token_ids)) | (
        {} if config.bos_token_id is None else {"bos": config.bos_token_id}
    )
    return {"tokenizer.ggml.model": "none"} | {
        f"tokenizer.ggml.{name}_token_id": index for name, index in ids.items()
    }


def _add_fields(writer: Any, fields: Mapping[str, Any]) -> None:
    adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in fields.items():
        adders[type(value)](key, value)
