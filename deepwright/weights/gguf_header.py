"""The header of a GGUF file: its metadata, and where each tensor lies.

Files come from anywhere, so every count, length and place is compared with the file before it is
believed, and nothing is read twice. Left out: big-endian files, version 1, arrays of arrays (no
key that is known has any).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from deepwright.refusals import quoted

MAGIC, VERSIONS, ALIGNMENT, DIMENSIONS = b"GGUF", (2, 3), 32, 4
HEADER = 1 << 28  # bytes: ten times the largest header that people have
ENTRIES = 1 << 22  # of an array: ten times the largest vocabulary
_TEXT, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_SIZES = {kind: struct.calcsize(f"<{form}") for kind, form in _SCALARS.items()}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: shape with rows first, ggml's type, first byte and number of bytes."""

    shape: tuple[int, ...]
    kind: Any
    start: int
    size: int


@dataclass(frozen=True)
class GGUFFile:
    fields: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    data: mmap.mmap

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def raw(self, name: str) -> bytes:
        tensor = self.tensors[name]
        return self.data[tensor.start : tensor.start + tensor.size]


def open_gguf(path: Path, gguf: ModuleType) -> GGUFFile:
    """ValueError in one sentence where it is missing, damaged, or of a kind that is not read."""
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        with path.open("rb") as file:
            if path.stat().st_size < 24:
                _refuse(f"it has {path.stat().st_size} bytes")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = _Header(data)
        fields = header.fields()
        tensors = header.tensors(gguf, fields.get("general.alignment", ALIGNMENT))
    except (_Damaged, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is damaged, cut short, of an unknown tensor type, or no GGUF file ({error})"
        ) from None
    return GGUFFile(fields, tensors, data)


class _Damaged(Exception):
    """What is wrong with a header, in words."""


def _refuse(why: str) -> NoReturn:
    raise _Damaged(why)


class _Header:
    """Reads from the beginning on; the counts of fields and tensors are known once it is made."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.end, self.at = data, min(len(data), HEADER), 0
        magic = self.take(4, "its first bytes")
        if magic != MAGIC:
            _refuse(f"it begins with {magic!r}, expected {MAGIC!r}")
        version = self.number("I", "its version")
        if version not in VERSIONS:
            big = version & 0xFFFF == 0
            _refuse("it is big-endian" if big else f"its version is {version}, expected 2 or 3")
        # Name, number of dimensions, one of them, type and place; key, type and one byte.
        self.tensor_count = self.count(8 + 4 + 8 + 4 + 8, "tensors")
        self.field_count = self.count(8 + 4 + 1, "keys")

    def take(self, size: int, what: str) -> bytes:
        if size > self.end - self.at:
            _refuse(f"{what} would reach beyond its end")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str, what: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}"), what))[0]

    def text(self, what: str) -> str:
        (size,) = _LENGTH.unpack(self.take(8, what))
        return self.take(size, what).decode("utf-8")

    def count(self, least: int, what: str) -> int:
        """A number of entries of at least `least` bytes each."""
        announced, room = self.number("Q", f"the number of {what}"), (self.end - self.at) // least
        if announced > room:
            _refuse(f"it announces {announced:,} {what} and has room for {room:,}")
        return announced

    def fields(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self.field_count):
            key = self.text("a key")
            if key in found:
                _refuse(f"the key {quoted(key, 100)} stands twice")
            found[key] = self.value(self.number("I", "the type of a value"), quoted(key, 100))
        return found

    def value(self, kind: int, key: str) -> Any:
        if kind == _TEXT:
            return self.text(key)
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            _refuse(f"{key} has the unknown type {kind}")
        return self.number(_SCALARS[kind], key)

    def array(self, key: str) -> list[Any]:
        kind = self.number("I", key)
        if kind != _TEXT and kind not in _SCALARS:
            _refuse(f"{key} is an array of type {kind}")
        size = _SIZES.get(kind, 8)
        count = self.count(size, f"entries of {key}")
        if count > ENTRIES:
            _refuse(f"{key} has {count:,} entries, expected at most {ENTRIES:,}")
        if kind == _TEXT:
            return [self.text(key) for _ in range(count)]
        return list(struct.unpack(f"<{count}{_SCALARS[kind]}", self.take(count * size, key)))

    def tensors(self, gguf: ModuleType, alignment: Any) -> dict[str, StoredTensor]:
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            _refuse(f"general.alignment is {quoted(alignment, 60)}, expected a power of two")
        placed = {}
        for _ in range(self.tensor_count):
            name = self.text("a tensor's name")
            if name in placed:
                _refuse(f"the tensor {quoted(name, 100)} stands twice")
            placed[name] = self.tensor(gguf, alignment, quoted(name, 100))
        start = self.at + -self.at % alignment
        tensors = dict(_moved(placed, start))
        _check_places(tensors, len(self.data))
        return tensors

    def tensor(self, gguf: ModuleType, alignment: int, name: str) -> StoredTensor:
        """Its place counted from the end of the header."""
        count = self.number("I", name)
        if not 1 <= count <= DIMENSIONS:
            _refuse(f"{name} has {count:,} dimensions, expected 1 to {DIMENSIONS}")
        shape = tuple(reversed([self.number("Q", name) for _ in range(count)]))
        number, place = self.number("I", name), self.number("Q", name)
        kind = next((kind for kind in gguf.GGMLQuantizationType if kind == number), None)
        if kind is None:
            _refuse(f"{name} has the unknown tensor type {number}")
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if 0 in shape or shape[-1] % block or place % alignment:
            _refuse(
                f"{name} has shape {shape}, type {kind.name} and place {place}, expected rows of "
                f"whole blocks of {block} at a multiple of {alignment}"
            )
        return StoredTensor(shape, kind, place, math.prod(shape) // block * size)


def _moved(placed: Mapping[str, StoredTensor], start: int) -> Iterator[tuple[str, StoredTensor]]:
    for name, tensor in placed.items():
        yield name, StoredTensor(tensor.shape, tensor.kind, start + tensor.start, tensor.size)


def _check_places(tensors: Mapping[str, StoredTensor], length: int) -> None:
    """Every tensor lies in the file, and none in another's bytes."""
    end, before = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.start + tensor.size > length:
            reach = tensor.start + tensor.size
            _refuse(f"{quoted(name, 100)} would end at byte {reach:,} of {length:,}")
        if tensor.start < end:
            _refuse(f"{quoted(name, 100)} lies in the bytes of {quoted(before, 100)}")
        end, before = tensor.start + tensor.size, name
