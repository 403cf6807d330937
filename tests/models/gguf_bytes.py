"""GGUF files byte by byte, so that they can be wrong in ways that no writer would make them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

U32, I32, F32, BOOL, TEXT, ARRAY, U64, F64 = 4, 5, 6, 7, 8, 9, 10, 12
_FORMS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "?",
    U64: "Q",
    11: "q",
    F64: "d",
}


@dataclass
class Tensor:
    """As written: dimensions in GGUF's order (columns first), ggml's type, place after the
    header."""

    dimensions: list[int]
    kind: int
    place: int
    data: bytes


@dataclass
class File:
    """What a GGUF file says; `announced` replaces the counts of tensors and keys, `lengths` those
    of texts and arrays by key."""

    fields: dict[str, tuple[int, Any]]  # type and value; of an array (type of an entry, entries)
    tensors: dict[str, Tensor]
    magic: bytes = b"GGUF"
    version: int = 3
    announced: tuple[int | None, int | None] = (None, None)
    lengths: dict[str, int] = field(default_factory=dict)
    alignment: int = 32

    def to_bytes(self) -> bytes:
        counts = (len(self.tensors), len(self.fields))
        counts = [own if said is None else said for own, said in zip(counts, self.announced)]
        out = self.magic + struct.pack("<IQQ", self.version, *counts)
        for key, (kind, value) in self.fields.items():
            out += _text(key) + struct.pack("<I", kind) + _value(kind, value, self.lengths.get(key))
        for name, tensor in self.tensors.items():
            sizes = struct.pack(
                f"<I{len(tensor.dimensions)}Q", len(tensor.dimensions), *tensor.dimensions
            )
            out += _text(name) + sizes + struct.pack("<IQ", tensor.kind, tensor.place)
        out += bytes(-len(out) % self.alignment)
        start = len(out)
        for tensor in sorted(self.tensors.values(), key=lambda tensor: tensor.place):
            if tensor.place < 2**24:
                out += bytes(max(0, start + tensor.place - len(out))) + tensor.data
        return out


def _text(text: str, length: int | None = None) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data) if length is None else length) + data


def _value(kind: int, value: Any, length: int | None = None) -> bytes:
    if kind == TEXT:
        return _text(value, length)
    if kind == ARRAY:
        inner, entries = value
        body = b"".join(_value(inner, entry) for entry in entries)
        return struct.pack("<IQ", inner, len(entries) if length is None else length) + body
    return struct.pack(f"<{_FORMS.get(kind, 'I')}", value)


def from_reader(fields: Mapping[str, Any], tensors: Iterable[Any]) -> File:
    """From a file that the package `gguf` has read: an independent reading of what is then
    damaged."""
    kept = {}
    for key, one in fields.items():
        if not key.startswith("GGUF."):
            kinds = [int(kind) for kind in one.types]
            value = one.contents()
            kept[key] = (kinds[0], (kinds[-1], value) if kinds[0] == ARRAY else value)
    placed, at = {}, 0
    for tensor in tensors:
        data = tensor.data.tobytes()
        placed[tensor.name] = Tensor(
            [int(n) for n in tensor.shape], int(tensor.tensor_type), at, data
        )
        at += len(data) + -len(data) % 32
    return File(kept, placed)
