"""The safetensors files of one folder, read one tensor at a time and written shard by shard.

Only safetensors: a pickle can run code when it is opened, so a folder that has nothing else is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepwright.config import FP8_BLOCK
from deepwright.files import DRAFT, read_json
from deepwright.refusals import expect, quoted, words_of
from deepwright.weights.layouts import describe

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SCALE = "_scale_inv"
REOPEN_BYTES = 256 << 20
FP8 = "F8_E4M3"
NUMBERS = ("F64", "F32", "F16", "BF16", FP8)  # what a tensor of a model may be stored as


class TensorFiles:
    """Names, shapes and tensors of a folder's safetensors files. FP8 weights come out multiplied by
    their block scales.

    Raises ValueError for a folder without safetensors, an index that is none or names a file that
    is missing or outside the folder, a damaged file, a tensor that stands in two files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = {name: _open(folder / name) for name in _file_names(folder)}
        self._home = _homes(folder, self._files)
        self._touched = 0

    def names(self) -> list[str]:
        """Every tensor but the scales, which belong to their weights."""
        return [name for name in self._home if not self._is_scale(name)]

    def _is_scale(self, name: str) -> bool:
        return name.endswith(SCALE) and name.removesuffix(SCALE) in self._home

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file(name).get_slice(name).get_shape())

    def numbers(self) -> int:
        """How many numbers all tensors hold together."""
        return sum(math.prod(self.shape(name)) for name in self.names())

    def dtype(self, name: str) -> torch.dtype:
        """dtype as stored. Reads the tensor's first element at most."""
        part = self._file(name).get_slice(name)
        return (part[:1] if part.get_shape() else part[...]).dtype

    def check_kind(self, name: str) -> None:
        """ValueError where a tensor is stored as something else than real numbers, or in FP8
        without scales."""
        kind = self._file(name).get_slice(name).get_dtype()
        where = f"{name[:100]} in {self.folder}"
        expect(kind in NUMBERS, f"{where}: its type", kind, " or ".join(NUMBERS))
        if kind == FP8 and name + SCALE not in self._home:
            raise ValueError(f"{where} is {kind} and has no {name[:100] + SCALE} beside it")

    def tensor(self, name: str) -> Tensor:
        """The tensor, fp32 where it is stored in FP8. To be copied and let go: it lies in the mapped file."""
        stored = self._read(name)
        if stored.element_size() > 1:
            return stored
        scales = self._read(name + SCALE)
        try:
            return dequantize(stored, scales)
        except ValueError as error:
            raise ValueError(f"{name[:100]} in {self.folder}: {error}") from error

    def _file(self, name: str) -> safe_open:
        return self._files[self._home[name]]

    def _read(self, name: str) -> Tensor:
        """Pages of a mapped file count as memory until it is closed, so files are opened anew after every REOPEN_BYTES."""
        if self._touched > REOPEN_BYTES:
            self._touched = 0
            self._files = {file: _open(self.folder / file) for file in self._files}
        tensor = self._file(name).get_tensor(name)
        self._touched += tensor.nbytes
        return tensor


def dequantize(weight: Tensor, scale: Tensor) -> Tensor:
    """fp32 weights from FP8 values and one dequantisation scale for each block of 128 x 128 (ragged at the edges)."""
    expected = tuple(-(-size // FP8_BLOCK) for size in weight.shape)
    if tuple(scale.shape) != expected:
        raise ValueError(
            f"block scales have shape {quoted(tuple(scale.shape))}, expected {quoted(expected)} "
            f"for weights of shape {quoted(tuple(weight.shape))}"
        )
    for axis, size in enumerate(weight.shape):
        scale = scale.repeat_interleave(FP8_BLOCK, axis).narrow(axis, 0, size)
    return weight.float() * scale.float()


def write_tensors(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, max_shard_bytes: int
) -> None:
    """Writes `model.safetensors`, or shards with an index when more than `max_shard_bytes` come. Holds one shard's views at a time."""
    shards: list[list[str]] = []
    total = 0
    for number, shard in enumerate(_shards(tensors, max_shard_bytes), 1):
        save_file(shard, folder / _draft_name(number), metadata={"format": "pt"})
        shards.append(list(shard))
        total += sum(tensor.nbytes for tensor in shard.values())
    names = (
        [WHOLE]
        if len(shards) == 1
        else [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    )
    for number, name in enumerate(names, 1):
        (folder / _draft_name(number)).rename(folder / name)
    if len(shards) > 1:
        weight_map = {key: name for name, keys in zip(names, shards) for key in keys}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(
            json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )


def _draft_name(number: int) -> str:
    return f"shard-{number:05d}{DRAFT}"  # how many there will be is known at the end


def _shards(tensors: Iterable[tuple[str, Tensor]], limit: int) -> Iterable[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.contiguous()
        size += tensor.nbytes
    yield shard


def _open(path: Path) -> safe_open:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    _refuse_strange_link(path)
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({words_of(error)})") from error


def _homes(folder: Path, files: Mapping[str, safe_open]) -> dict[str, str]:
    """Tensor -> the file that it stands in."""
    homes: dict[str, str] = {}
    for file, opened in files.items():
        for name in opened.keys():  # noqa: SIM118 - not a dict
            if name in homes:
                both = f"{homes[name]} and {file}"
                raise ValueError(f"{name[:100]} stands in both {both} of {folder}")
            homes[name] = file
    return homes


def _file_names(folder: Path) -> list[str]:
    whole, index = (folder / WHOLE).is_file(), folder / INDEX
    if index.is_file():
        names = _indexed(index)
        if whole and names != [WHOLE]:
            raise ValueError(
                f"{folder} holds {WHOLE} and an {INDEX} that names {quoted(names, 60)}: take away "
                "the one that is not the model's"
            )
        return names
    if whole:
        return [WHOLE]
    if what := describe(folder):
        raise ValueError(f"{folder} holds {what}")
    parts = sorted(path.name for path in folder.glob("*.safetensors"))
    raise ValueError(
        f"{folder} has neither {WHOLE} nor {INDEX}"
        + (f", but {quoted(parts, 100)}" if parts else "")
    )


def _indexed(index: Path) -> list[str]:
    """The files that an index names, all of them in its own folder."""
    names = read_json(index).get("weight_map")
    usual = isinstance(names, dict) and names and all(type(n) is str for n in names.values())
    expect(bool(usual), f"{index}: weight_map", names, "an object of tensors and their files")
    files = sorted(set(names.values()))
    for name in files:
        plain = Path(name).name == name and name.endswith(".safetensors")
        expect(plain, f"{index}: a file", name, "a .safetensors file in the same folder")
    return files


def _refuse_strange_link(path: Path) -> None:
    """A link may lead anywhere, as in the Hub's cache (to `blobs/` there), but to weights only."""
    target = path.resolve() if path.is_symlink() else path
    weights = target.suffix == ".safetensors" or target.parent.name == "blobs"
    expect(weights, str(path), str(target), "a link to a .safetensors file")
