"""Real text that every machine has: the source of the Python standard library, docstrings and reference topics included.

Files are taken by sorted relative path, cut at line ends into documents, and the documents read in an order drawn anew
for each epoch. A file is in validation by the hash of its path alone, so no part of it is ever trained on.
Left out: tests (generated tables and broken encodings), installed packages, code that only some platforms have is kept.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deepwright.seeds import shuffled, stream

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_EPOCH = 80  # purpose of the random stream


@dataclass(frozen=True)
class TextCorpus:
    """`split` is "train" or "validation" (about one file in `validation_every`). `folder` "" means this Python's library."""

    split: str = "train"
    seed: int = 0
    folder: str = ""
    longest: int = 20_000  # characters in a document
    validation_every: int = 20

    def __post_init__(self) -> None:
        if self.split not in ("train", "validation"):
            raise ValueError(f"split is {self.split!r}, expected 'train' or 'validation'")
        if self.longest < 1 or self.validation_every < 2:
            raise ValueError(
                f"longest {self.longest}, validation_every {self.validation_every}: expected at least 1 and 2"
            )

    @property
    def root(self) -> Path:
        return Path(self.folder or sysconfig.get_path("stdlib"))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Relative paths of this split's files, sorted."""
        kept = []
        for folder, subfolders, names in os.walk(self.root):
            # not even looked into: installed packages are many
            subfolders[:] = [name for name in subfolders if name not in _SKIPPED]
            kept += [
                (Path(folder) / name).relative_to(self.root).as_posix()
                for name in names
                if name.endswith(".py")
            ]
        kept.sort()
        files = tuple(
            name for name in kept if self._is_validation(name) == (self.split == "validation")
        )
        if not files:
            raise ValueError(f"folder {self.root} has no .py file for the split {self.split!r}")
        return files

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Every document once, by path and place in the file."""
        documents = []
        for name in self.files:
            text = (
                (self.root / name)
                .read_bytes()
                .decode("utf-8", errors="replace")
                .replace("\r\n", "\n")
            )
            documents += [part for part in _parts(text, self.longest) if part.strip()]
        return tuple(documents)

    def __len__(self) -> int:
        return len(self.texts)

    def document(self, i: int) -> str:
        epoch, place = divmod(i, len(self.texts))
        return self.texts[self._order(epoch)[place]]

    def _order(self, epoch: int) -> list[int]:
        kept = self.__dict__.setdefault("_orders", {})
        if epoch not in kept:
            kept.clear()
            kept[epoch] = shuffled(stream(self.seed, _EPOCH, epoch), range(len(self.texts)))
        return kept[epoch]

    def _is_validation(self, name: str) -> bool:
        return (
            int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
            % self.validation_every
            == 0
        )


def _parts(text: str, longest: int) -> list[str]:
    """The text in pieces of at most `longest` characters, cut after a line end wherever one is in reach."""
    parts, start = [], 0
    while start < len(text):
        end = min(start + longest, len(text))
        if end < len(text):
            line_end = text.rfind("\n", start, end)
            end = line_end + 1 if line_end >= start else end
        parts.append(text[start:end])
        start = end
    return parts
