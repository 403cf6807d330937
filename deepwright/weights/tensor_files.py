"""The safetensors files of one folder, read one tensor at a time and written shard by shard.

Only safetensors: a pickle can run code when it is opened, so a folder that has nothing else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepwright.config import FP8_BLOCK

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
SCALE = "_scale_inv"
REOPEN_BYTES = 256 << 20


class TensorFiles:
    """Names, shapes and tensors of a folder's safetensors files. FP8 weights come out multiplied by their block scales.

    Raises ValueError for a folder without safetensors, an index that names a missing file, or a damaged file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = {name: _open(folder / name) for name in _file_names(folder)}
        self._home = {key: name for name, file in self._files.items() for key in file.keys()}  # noqa: SIM118 - not a dict
        self._touched = 0

    def names(self) -> list[str]:
        """Every tensor but the scales, which belong to their weights."""
        return [name for name in self._home if not self._is_scale(name)]

    def _is_scale(self, name: str) -> bool:
        return name.endswith(SCALE) and name.removesuffix(SCALE) in self._home

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file(name).get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """dtype as stored. Reads the tensor's first element at most."""
        part = self._file(name).get_slice(name)
        return (part[:1] if part.get_shape() else part[...]).dtype

    def tensor(self, name: str) -> Tensor:
        """The tensor, fp32 where it is stored in FP8. To be copied and let go: it lies in the mapped file."""
        stored = self._read(name)
        if stored.element_size() > 1:
            return stored
        if name + SCALE not in self._home:
            raise ValueError(
                f"{name} in {self.folder} is {stored.dtype} and has no {name + SCALE} beside it"
            )
        return dequantize(stored, self._read(name + SCALE))

    def _file(self, name: str) -> safe_open:
        return self._files[self._home[name]]

    def _read(self, name: str) -> Tensor:
        """Pages of a mapped file count as memory until it is closed, so files are opened anew after every REOPEN_BYTES."""
        if self._touched > REOPEN_BYTES:
            self._touched, self._files = (
                0,
                {file: _open(self.folder / file) for file in self._files},
            )
        tensor = self._file(name).get_tensor(name)
        self._touched += tensor.nbytes
        return tensor


def dequantize(weight: Tensor, scale: Tensor) -> Tensor:
    """fp32 weights from FP8 values and one dequantisation scale for each block of 128 x 128 (ragged at the edges)."""
    expected = tuple(-(-size // FP8_BLOCK) for size in weight.shape)
    if tuple(scale.shape) != expected:
        raise ValueError(
            f"block scales have shape {tuple(scale.shape)}, expected {expected} for weights of shape {tuple(weight.shape)}"
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
    return f"shard-{number:05d}.draft"  # how many there will be is known at the end


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
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error


def _weight_map(folder: Path) -> dict[str, str]:
    if not (folder / INDEX).is_file():
        return {}
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{folder / INDEX} is damaged: no JSON with a weight_map") from error


def _file_names(folder: Path) -> list[str]:
    names = sorted(set(_weight_map(folder).values()))
    if names:
        return names
    if (folder / WHOLE).is_file():
        return [WHOLE]
    pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
    if pickles:
        raise ValueError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code: convert it to safetensors first"
        )
    raise ValueError(f"{folder} has neither {WHOLE} nor {INDEX}")
