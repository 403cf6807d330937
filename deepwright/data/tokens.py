"""Text made into tokens once, and read from disk ever after: shards that are mapped into memory.

A folder of tokens holds `tokens.json` (what is in it, of which tokenizer), the tokenizer's files, and
for each split numbered shards: NAME.tokens (uint16, or uint32 for vocabularies beyond it, little-endian)
and NAME.borders (int64: where each document of the shard ends). Documents stand end to end as
[BOS document EOS]. Equal documents are written once; the hash of a document alone decides
whether it is held out, so it never changes sides whatever else is read. The folder appears whole,
by rename. Left out: near duplicates, filters of quality.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import tokenizers

from deepwright.data.texts import Text
from deepwright.files import DRAFT, naming, read_json, write_json
from deepwright.refusals import expect, expect_fields
from deepwright.text.tokenizer import Tokenizer, splits_as_ours

MANIFEST = "tokens.json"
FORMAT = 1
SHARD = 1 << 26  # tokens
# How our own vocabularies cut ASCII (text/tokenizer.py), in one pattern: numbers are cut out first,
# so blanks before one stand at the end of a piece. ODD: characters that readers disagree on.
ASCII_WORDS = re.compile(
    r"[0-9]{1,3}| ?[A-Za-z]+| ?[^\sA-Za-z0-9]+[\r\n]*|\s+(?![^\s0-9])|\s+", re.ASCII
)
ODD = re.compile(r"[\x1c-\x1f]")
MOST_WORDS = 1 << 18  # in the table of an Encoder
AT_ONCE = 1 << 21  # characters that are encoded together
SPLITS: tuple[Split, ...] = ("train", "held_out")
Split = Literal["train", "held_out"]


def digest_of(tokenizer: Tokenizer) -> str:
    """The same for tokenizers that give the same ids."""
    return hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest()[:16]


class Seen:
    """The 64-bit hashes that were met: sorted arrays of doubling sizes, eight bytes each.

    Two different documents share a hash with a chance of 4e-5 among 40 million."""

    def __init__(self) -> None:
        self.runs: list[np.ndarray] = []

    def new(self, hashes: np.ndarray) -> np.ndarray:
        """Which of the hashes [N] were not met before, and remembers them."""
        _, first = np.unique(hashes, return_index=True)
        fresh = np.zeros(len(hashes), bool)
        fresh[first] = True
        for run in self.runs:
            place = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            fresh &= run[place] != hashes
        added = np.sort(hashes[fresh])
        while len(added) and self.runs and len(self.runs[-1]) <= 2 * len(added):
            added = np.sort(np.concatenate([self.runs.pop(), added]))
        self.runs += [added] if len(added) else []
        return fresh


@dataclass
class _Written:
    """The shards of one split while they are written."""

    folder: Path
    split: Split
    dtype: np.dtype
    shard: int
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    shards: list[dict[str, Any]] = field(default_factory=list)
    _open: tuple[IO[bytes], IO[bytes]] | None = None

    def add(self, ids: np.ndarray, text_bytes: int) -> None:
        if self._open is None or self.shards[-1]["tokens"] >= self.shard:
            self.close()
            name = f"{self.split}-{len(self.shards):05d}"
            self.shards.append({"name": name, "tokens": 0, "documents": 0})
            tokens, borders = (self.folder / f"{name}.{end}" for end in ("tokens", "borders"))
            self._open = tokens.open("wb"), borders.open("wb")
        shard = self.shards[-1]
        shard["tokens"] += len(ids)
        shard["documents"] += 1
        with naming(self.folder):
            self._open[0].write(ids.astype(self.dtype).tobytes())
            self._open[1].write(np.int64(shard["tokens"]).tobytes())
        self.documents, self.tokens = self.documents + 1, self.tokens + len(ids)
        self.text_bytes += text_bytes

    def close(self) -> None:
        for file in self._open or ():
            with naming(self.folder):
                file.flush()
                os.fsync(file.fileno())
                file.close()
        self._open = None

    def record(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.text_bytes,
            "shards": self.shards,
        }


def write_tokens(
    texts: Iterable[Text],
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    held_out: float = 0.01,
    shard: int = SHARD,
    facts: Mapping[str, Any] = {},
    watch: Callable[[int], None] = lambda characters: None,
) -> dict[str, Any]:
    """Makes the folder of tokens of `texts` and returns its manifest, in which `facts` are kept too.

    `held_out`: share of the documents. Where it is positive at least one document is held out and
    one trained on: ValueError where there are not two different ones. `watch` is told how many
    characters were read. A kill leaves nothing but a draft, which the next call removes."""
    folder = Path(folder)
    expect(0 <= held_out < 1, "held_out", held_out, "a share from 0 to below 1")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already, expected a new or an empty folder")
    draft = folder.with_name(folder.name + DRAFT)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        manifest = _write(texts, tokenizer, draft, held_out, shard, watch)
        tokenizer.save(draft)
        write_json(draft / MANIFEST, {**manifest, **facts})
        os.replace(draft, folder)
    except BaseException:  # a full disk, Ctrl-C, a text that is none
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return manifest


def _write(
    texts: Iterable[Text],
    tokenizer: Tokenizer,
    draft: Path,
    held_out: float,
    shard: int,
    watch: Callable[[int], None],
) -> dict[str, Any]:
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    written = {split: _Written(draft, split, dtype, shard) for split in SPLITS}
    encode, seen, duplicates = Encoder(tokenizer), Seen(), 0
    least: tuple[int, np.ndarray, int] | None = None  # held out where nothing else is
    with contextlib.ExitStack() as stack:
        for one in written.values():
            stack.callback(one.close)
        for batch in _batches(iter(texts)):
            hashes = np.array([_hash(text) for text in batch], np.uint64)
            fresh = seen.new(hashes)
            kept = [(int(h), text) for h, text, new in zip(hashes, batch, fresh) if new]
            duplicates += len(batch) - len(kept)
            for (number, text), ids in zip(kept, encode([text for _, text in kept])):
                entry = (number, ids, len(text.encode()))
                if number / 2**64 < held_out:
                    written["held_out"].add(*entry[1:])
                elif held_out and (least is None or number < least[0]):
                    if least is not None:
                        written["train"].add(*least[1:])
                    least = entry
                else:
                    written["train"].add(*entry[1:])
            watch(sum(map(len, batch)))
        if least is not None:
            written["train" if written["held_out"].documents else "held_out"].add(*least[1:])
    for split in SPLITS if held_out else SPLITS[:1]:
        expect(written[split].documents > 0, f"documents of the split {split}", 0,
               "at least one: a text in one document has none to hold out")  # fmt: skip
    return {
        "format": FORMAT,
        "vocabulary": tokenizer.vocab_size,
        "tokenizer": digest_of(tokenizer),
        "type": dtype.name,
        "duplicates": duplicates,
        **{split: one.record() for split, one in written.items()},
    }


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _batches(texts: Iterator[Text]) -> Iterator[list[str]]:
    """Documents of about AT_ONCE characters together."""
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text.text)
        held += len(text.text)
        if held >= AT_ONCE:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class Encoder:
    """Documents -> ids [BOS document EOS]. Special tokens spelled out in a text are ordinary
    characters.

    A vocabulary of our own kind reads plain ASCII word by word, from a table of the words that it
    met: three times as fast on one core as the tokenizer itself on two, and equal to it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
        self.backend.encode_special_tokens = True
        self.start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self.end = tokenizer.eos_id
        self.by_words = splits_as_ours(tokenizer)
        self.table: dict[str, list[int]] = {}

    def __call__(self, texts: list[str]) -> Iterator[np.ndarray]:
        plain = [self.by_words and text.isascii() and not ODD.search(text) for text in texts]
        others = [text for text, is_plain in zip(texts, plain) if not is_plain]
        whole = iter(self.backend.encode_batch_fast(others, add_special_tokens=False))
        for text, is_plain in zip(texts, plain):
            ids = self.read(text) if is_plain else next(whole).ids
            yield np.array([*self.start, *ids, self.end], np.uint32)

    def read(self, text: str) -> list[int]:
        """The ids of plain text, from the table."""
        ids: list[int] = []
        table = self.table
        for word in ASCII_WORDS.findall(text):
            known = table.get(word)
            if known is None:
                if len(table) >= MOST_WORDS:
                    table.clear()
                known = table[word] = self.backend.encode(word, add_special_tokens=False).ids
            ids += known
        return ids


# ---- reading


_SPLIT_FIELDS = {"tokens": int, "documents": int, "bytes": int, "shards": list[dict]}
_FIELDS = {
    "format": int,
    "vocabulary": int,
    "tokenizer": str,
    "type": Literal["uint16", "uint32"],
    "duplicates": int,
    "train": dict,
    "held_out": dict,
}


class Tokens:
    """The tokens of one split of a folder, as one long row that is never read as a whole.

    ValueError naming what is missing, cut or of another format."""

    def __init__(self, folder: str | Path, split: Split = "train") -> None:
        self.folder, self.split = Path(folder), split
        self.manifest = read_manifest(self.folder)
        part = self.manifest[split]
        self.documents, self.text_bytes = part["documents"], part["bytes"]
        dtype = np.dtype("<u2" if self.manifest["type"] == "uint16" else "<u4")
        self._shards = [
            _mapped(self.folder / f"{shard['name']}.tokens", dtype, shard["tokens"])
            for shard in part["shards"]
        ]
        self._ends = np.cumsum([len(shard) for shard in self._shards]).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens start .. start + count - 1, int64; they may cross from shard to shard."""
        assert 0 <= start <= start + count <= len(self)
        pieces, place = [], bisect.bisect_right(self._ends, start)
        while count > 0:
            begin = start - (self._ends[place - 1] if place else 0)
            piece = self._shards[place][begin : begin + count]
            pieces.append(piece.astype(np.int64))
            start, count, place = start + len(piece), count - len(piece), place + 1
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    def borders(self) -> Iterator[np.ndarray]:
        """Where each document ends, as a place in this split; an array for each shard."""
        for number, shard in enumerate(self.manifest[self.split]["shards"]):
            path = self.folder / f"{shard['name']}.borders"
            yield _mapped(path, np.dtype("<i8"), shard["documents"]) + (
                self._ends[number - 1] if number else 0
            )

    def first(self, documents: int) -> list[np.ndarray]:
        """The ids of the first documents."""
        ends = [
            int(end) for end in islice((end for ends in self.borders() for end in ends), documents)
        ]
        return [self.read(start, end - start) for start, end in zip([0, *ends], ends)]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_tokens` returned. ValueError naming what is wrong with it."""
    path = Path(folder) / MANIFEST
    manifest = read_json(path)
    expect_fields(manifest, str(path), _FIELDS)
    expect(manifest["format"] == FORMAT, f"{path}: format", manifest["format"], str(FORMAT))
    for split in SPLITS:
        expect_fields(manifest[split], f"{path}: {split}", _SPLIT_FIELDS)
        for shard in manifest[split]["shards"]:
            fields = {"name": str, "tokens": int, "documents": int}
            expect_fields(shard, f"{path}: a shard of {split}", fields)
            named = Path(shard["name"]).name == shard["name"]
            expect(named, f"{path}: a shard", shard["name"], "the name of a file")
    return manifest


def is_tokens(path: str) -> bool:
    return (Path(path) / MANIFEST).is_file()


def _mapped(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    size = path.stat().st_size
    expect(size == count * dtype.itemsize, f"the size of {path}", size,
           f"{count * dtype.itemsize} bytes, as its {MANIFEST} says")  # fmt: skip
    return np.memmap(path, dtype, "r", shape=(count,))
