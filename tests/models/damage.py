"""Checks for tests/fuzz.py: one file of a small model is damaged, then the model is opened and
asked for logits and ids."""

from __future__ import annotations

import copy
import functools
import json
import random
import struct
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from deepwright import weights
from deepwright.config import ModelConfig
from deepwright.text import Tokenizer
from deepwright.train import checkpoint
from deepwright.weights.gguf_files import read_gguf, write_gguf
from tests.fuzz import NUMBERS, damaged_bytes, damaged_json
from tests.models import gguf_bytes, tiny

warnings.simplefilter("ignore")
NAMES = (
    "unsloth/Llama-3.2-1B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen3-0.6B", "deepseek-ai/DeepSeek-R1",
    "deepseek-ai/DeepSeek-V2-Lite-Chat", "meta-llama/Llama-2-7b-hf",
)  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
INDEX = "model.safetensors.index.json"


@functools.cache
def files(name: str, shards: bool = False) -> dict[str, bytes]:
    """The files of a small folder by name."""
    with tempfile.TemporaryDirectory() as root:
        folder = tiny.make(tiny.RELEASED[name], Path(root) / "m")
        if shards:
            model = weights.load_model(folder)
            weights.save_model(model, Path(root) / "s", max_shard_bytes=20_000)
            (folder / "model.safetensors").unlink()
            for path in (Path(root) / "s").glob("model*"):
                path.rename(folder / path.name)
        (folder / "special_tokens_map.json").write_text('{"eos_token": null}')
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def lay(folder: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (folder / name).write_bytes(data)


def use(folder: Path) -> None:
    """Opens a folder and does what every command does with it."""
    model, tokenizer = weights.load(folder)
    model(torch.tensor([[0, model.config.vocab_size - 1]]))
    tokenizer.decode(tokenizer.encode("hello to you, 日本"))


def _one(draw: random.Random, folder: Path, file: str, shards: bool = False) -> None:
    content = files(draw.choice(NAMES), shards)
    given = json.loads(content.get(file, b"{}"))
    lay(folder, content | {file: damaged_json(given, draw)})
    use(folder)


def config(draw: random.Random, folder: Path) -> None:
    _one(draw, folder, "config.json")


def generation(draw: random.Random, folder: Path) -> None:
    _one(draw, folder, "generation_config.json")


def tokenizer(draw: random.Random, folder: Path) -> None:
    _one(draw, folder, "tokenizer.json")


def tokenizer_config(draw: random.Random, folder: Path) -> None:
    file = draw.choice(
        ("tokenizer_config.json", "tokenizer_config.json", "special_tokens_map.json")
    )
    content = dict(files(draw.choice(NAMES)))
    given = json.loads(content[file])
    if file == "tokenizer_config.json":
        specials = json.loads(content["tokenizer.json"])["added_tokens"]
        given["added_tokens_decoder"] = {str(token.pop("id")): token for token in specials}
        given["chat_template"] = draw.choice(
            (TEMPLATE, [{"name": "default", "template": TEMPLATE}])
        )
    lay(folder, content | {file: damaged_json(given, draw)})
    use(folder)


def index(draw: random.Random, folder: Path) -> None:
    _one(draw, folder, INDEX, shards=True)


def safetensors(draw: random.Random, folder: Path) -> None:
    """Bytes anywhere, or the header as JSON, with or without its length put right."""
    content = files(draw.choice(NAMES))
    data = content["model.safetensors"]
    if draw.random() < 0.4:
        damaged = damaged_bytes(data, draw)
    else:
        (size,) = struct.unpack("<Q", data[:8])
        header = damaged_json(json.loads(data[8 : 8 + size]), draw)
        length = len(header) if draw.random() < 0.9 else draw.choice((0, 1, 2**32, 2**63))
        damaged = struct.pack("<Q", length) + header + data[8 + size :]
    lay(folder, content | {"model.safetensors": damaged})
    use(folder)


# ---- GGUF


@functools.cache
def gguf_file(name: str) -> gguf_bytes.File:
    import gguf

    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        lay(folder, files(name))
        model, spoken = weights.load(folder)
        write_gguf(model, spoken, folder / "m.gguf")
        reader = gguf.GGUFReader(folder / "m.gguf")
        return gguf_bytes.from_reader(reader.fields, reader.tensors)


def gguf(draw: random.Random, folder: Path) -> None:
    """Bytes anywhere, or one statement of the file."""
    file = copy.deepcopy(gguf_file(draw.choice([name for name in NAMES if "R1" not in name])))
    if draw.random() < 0.6:
        file.fields.pop("tokenizer.huggingface.json")  # rebuilt from vocabulary and merges
    if draw.random() < 0.35:
        data = damaged_bytes(file.to_bytes(), draw)
    else:
        for _ in range(draw.choice((1, 1, 2))):
            draw.choice((_wrong_field, _wrong_field, _wrong_field, _wrong_tensor, _wrong_count))(
                file, draw
            )
        data = file.to_bytes()
    (folder / "m.gguf").write_bytes(data)
    model, spoken = read_gguf(folder / "m.gguf")
    model(torch.tensor([[0, model.config.vocab_size - 1]]))
    if spoken is not None:
        spoken.decode(spoken.encode("hello to you, 日本"))


def _wrong_field(file: gguf_bytes.File, draw: random.Random) -> None:
    key = draw.choice(sorted(file.fields))
    how = draw.choice(
        ("number", "number", "number", "type", "gone", "text", "array", "nested", "entry", "entry")
    )
    kind, value = file.fields[key]
    if how == "gone":
        del file.fields[key]
    elif how == "number":
        number = draw.choice([n for n in NUMBERS if isinstance(n, int)])
        file.fields[key] = (
            (gguf_bytes.U64, number % 2**64) if number > 0 else (11, max(number, -(2**63)))
        )
    elif how == "type":
        reals = [n for n in NUMBERS if isinstance(n, float)] + [float("nan"), float("inf")]
        file.fields[key] = draw.choice(
            ((gguf_bytes.F64, draw.choice(reals)), (gguf_bytes.BOOL, True), (77, 1))
        )
    elif how == "text":
        file.fields[key] = (
            gguf_bytes.TEXT,
            draw.choice(("", "x" * 100_000, "llama", "\ud800", "none")),
        )
    elif how == "array":
        file.fields[key] = (
            gguf_bytes.ARRAY,
            (gguf_bytes.U32, [1] * draw.choice((0, 1, 3, 70_000))),
        )
    elif how == "nested":
        file.fields[key] = (gguf_bytes.ARRAY, (gguf_bytes.ARRAY, [(gguf_bytes.U32, [1])] * 2))
    elif kind == gguf_bytes.ARRAY and value[1]:
        entries = value[1]
        at, other = draw.randrange(len(entries)), draw.randrange(len(entries))
        entries[at] = draw.choice((entries[other], "" if isinstance(entries[at], str) else 9))


def _wrong_tensor(file: gguf_bytes.File, draw: random.Random) -> None:
    name = draw.choice(sorted(file.tensors))
    tensor = file.tensors[name]
    how = draw.choice(("gone", "renamed", "dimension", "dimensions", "type", "place", "numbers"))
    if how == "gone":
        del file.tensors[name]
    elif how == "renamed":
        file.tensors[
            draw.choice((name + "x", "", "y" * 10_000, "blk.2147483648.attn_q.weight"))
        ] = file.tensors.pop(name)
    elif how == "dimension":
        at = draw.randrange(len(tensor.dimensions))
        tensor.dimensions[at] = draw.choice((0, 1, 2, 2**31, 2**32, 2**62, 2**64 - 1))
    elif how == "dimensions":
        tensor.dimensions[:] = draw.choice(
            ([], [1] * 4, [1] * 5, [2**16] * 4, tensor.dimensions * 2)
        )
    elif how == "type":
        tensor.kind = draw.choice((1, 2, 8, 10, 14, 24, 26, 28, 30, 39, 99, 2**32 - 1))
    elif how == "place":
        tensor.place = draw.choice((0, 1, 32, tensor.place + 32, 2**40, 2**63, 2**64 - 1))
    else:
        tensor.data = struct.pack("<f", draw.choice((float("nan"), float("inf"), 3e38))) * (
            len(tensor.data) // 4
        )


def _wrong_count(file: gguf_bytes.File, draw: random.Random) -> None:
    number = draw.choice((0, 1, 2, 1000, 2**31, 2**32, 2**62, 2**64 - 1))
    how = draw.choice(("tensors", "keys", "length", "length", "version", "magic", "alignment"))
    if how == "tensors":
        file.announced = (number, None)
    elif how == "keys":
        file.announced = (None, number)
    elif how == "length":
        file.lengths[draw.choice(sorted(file.fields))] = number
    elif how == "version":
        file.version = draw.choice((0, 1, 2, 4, 3 << 24, 2**32 - 1))
    elif how == "magic":
        file.magic = draw.choice((b"GGML", b"FUGG", b"\0\0\0\0", b"ggjt"))
    else:
        file.fields["general.alignment"] = (gguf_bytes.U32, draw.choice((0, 1, 3, 33, 2**31)))


# ---- checkpoints


@functools.cache
def saved_checkpoint() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "m"
        lay_base = files(NAMES[0])
        folder.mkdir()
        lay(folder, lay_base)
        state = {
            "counters": {"step": 3, "tokens": 7},
            "settings": {"length": 5},
            "stream": {"read": 1},
        }
        made = checkpoint.save_checkpoint(
            root, 3, weights.load_model(folder), None, {"a": torch.ones(2)}, state
        )
        return {
            str(path.relative_to(made)): path.read_bytes()
            for path in made.rglob("*")
            if path.is_file()
        }


def resume(draw: random.Random, folder: Path) -> None:
    """The trainer's part of a checkpoint: with its checksums put right, so that the damage reaches
    the reader, or not."""
    made = folder / "checkpoints" / "step-3"
    (made / "trainer").mkdir(parents=True)
    content = saved_checkpoint()
    name = draw.choice(
        (checkpoint.STATE, checkpoint.STATE, checkpoint.TENSORS, checkpoint.MANIFEST)
    )
    if name == checkpoint.TENSORS:
        content = content | {name: damaged_bytes(content[name], draw)}
    else:
        content = content | {name: damaged_json(json.loads(content[name]), draw)}
    lay(made, content)
    if name != checkpoint.MANIFEST and draw.random() < 0.8:
        (made / checkpoint.MANIFEST).unlink()
        checkpoint._write_manifest(made)
    found = checkpoint.latest_checkpoint(folder)
    assert found is not None
    checkpoint.check_settings(found, {"length": 5}, ())
    assert found.tensors is not None and found.state["counters"] is not None


def text_alone(draw: random.Random, folder: Path) -> None:
    """A tokenizer without a model, as `eval` on a server opens it."""
    content = files(draw.choice(NAMES))
    file = draw.choice(
        ("tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json")
    )
    lay(folder, content | {file: damaged_bytes(content.get(file, b"{}"), draw)})
    spoken = Tokenizer.load(folder)
    spoken.decode(spoken.encode("hello"))


def description(draw: random.Random, folder: Path) -> None:
    """The dict of a config.json alone: nothing there bounds a size, so nothing may be looped
    over."""
    content = files(draw.choice(NAMES))
    (folder / "config.json").write_bytes(damaged_json(json.loads(content["config.json"]), draw))
    found: Any = weights.read_config(folder)
    assert isinstance(found, ModelConfig)
    assert (
        found.parameters > 0 and found.forward_flops(9, with_mtp=True) > 0 and found.moe_layers >= 0
    )
