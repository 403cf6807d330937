"""GGUF in and out, whole or not at all, through the package `gguf` (an extra): one tensor in memory beside the model.

Quantised tensors come in as the fp32 numbers that they stand for (Q4_0, Q4_1, Q8_0, K-quants, whatever `gguf` can undo).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from deepwright.model.transformer import Transformer
from deepwright.text.tokenizer import Tokenizer
from deepwright.weights.gguf_names import (
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
_FILE_TYPES = {
    "F32": 0,
    "Q4_0": 2,
    "Q8_0": 7,
    "BF16": 32,
}  # llama.cpp's numbers for "mostly this type"
_READ_ERRORS = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    NotImplementedError,
)  # what `gguf` raises on damage


def _package() -> ModuleType:
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("GGUF files need the package gguf: pip install 'deepwright[gguf]'")
    import gguf

    return gguf


# ---- in


def read_gguf(
    path: str | Path, dtype: torch.dtype | None = None
) -> tuple[Transformer, Tokenizer | None]:
    """Model and, if the file has one that we read, tokenizer. `dtype`: fp32 unless the file is BF16.

    Raises ValueError for a damaged file, an unknown architecture, key or tensor type, a missing or left-over tensor, NaN weights."""
    gguf, path = _package(), Path(path)
    fields, tensors = _open(gguf, path)
    if fields.get("split.count", 1) > 1:
        raise ValueError(
            f"{path} is one of {fields['split.count']} parts: join them with `llama-gguf-split --merge` first"
        )
    shapes = {
        name: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in tensors.items()
    }

    def numbers(name: str) -> torch.Tensor:
        stored = tensors[name]
        try:
            values = gguf.quants.dequantize(stored.data, stored.tensor_type)
        except _READ_ERRORS as error:
            raise ValueError(
                f"{name} in {path} is stored as {stored.tensor_type.name}, which gguf cannot read ({error})"
            ) from error
        return finite(
            torch.from_numpy(np.array(values, dtype=np.float32)).view(shapes[name]), name, path
        )

    if "token_embd.weight" not in tensors:
        raise ValueError(f"{path} lacks token_embd.weight")
    try:
        config = read_config(fields, shapes, numbers(ROPE_FREQS) if ROPE_FREQS in tensors else None)
    except (TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{path} has metadata that makes no model ({error})") from error
    stored = (
        torch.bfloat16 if tensors["token_embd.weight"].tensor_type.name == "BF16" else torch.float32
    )
    model = allocate(config, dtype or stored)
    targets = {
        name: (view, shape)
        for name, view, shape in parts(model, whole_kv_b="blk.0.attn_kv_b.weight" in tensors)
    }
    if missing := sorted(set(targets) - set(tensors)):
        raise ValueError(f"{path} lacks {listed(missing)}")
    if left_over := sorted(set(tensors) - set(targets) - {ROPE_FREQS}):
        raise ValueError(
            f"{path} holds {listed(left_over)}, which a model of its metadata does not have"
        )
    with torch.no_grad():
        for name, (view, shape) in targets.items():
            if shapes[name] != shape:
                raise ValueError(
                    f"{name} has shape {shapes[name]} in {path}, expected {shape} from its metadata"
                )
            view.copy_(numbers(name).view(view.shape))
    return model, read_tokenizer(fields)


def _open(gguf: ModuleType, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata by key and tensors by name."""
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        reader = gguf.GGUFReader(path)
        return {key: field.contents() for key, field in reader.fields.items()}, {
            tensor.name: tensor for tensor in reader.tensors
        }
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is damaged, cut short, of an unknown tensor type, or no GGUF file ({reason})"
        ) from error


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
    draft = path.with_name(path.name + ".draft")
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
    ids = dict(zip(("eos", "eot", "eom"), config.eos_token_ids)) | (
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
