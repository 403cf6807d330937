"""Anyone's text as documents: files, folders and globs of text, .jsonl and .parquet, also packed
(.gz, .zst).

A text file is a document, and so is a row of a table (its column `text`). Either is read as several
when it is longer than `longest` characters, cut after an empty line or a line end where there is
one, so that memory stays small whatever a file holds. Files come sorted, so the documents and their
order follow from the paths alone. Left out: formats that need a renderer (.pdf, .html), hidden files
of a folder.
"""

from __future__ import annotations

import codecs
import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deepwright.files import PACKED, hidden, opened, read_rows
from deepwright.refusals import expect, quoted

PLAIN = (".txt", ".md", ".rst", ".py")
TABLES = (".jsonl", ".parquet")
LISTS = (".json",)  # in a folder they describe the others; read where they are named
BLOCK = 1 << 18  # bytes read at once


class Text(NamedTuple):
    """One document, and where it stands: "notes.md", "rows.jsonl, line 3"."""

    where: str
    text: str


@dataclass(frozen=True)
class Texts:
    """The documents of `paths`. ValueError naming what is missing, empty or no text."""

    paths: tuple[str, ...]
    column: str = "text"  # of a table's rows
    longest: int = 1 << 16  # characters in a document

    def __post_init__(self) -> None:
        expect(len(self.paths) > 0, "data", list(self.paths), "files or folders of text")
        expect(self.longest >= 256, "longest", self.longest, "at least 256 characters")

    @property
    def files(self) -> list[Path]:
        """Every file once, in the order of `paths`, those of a folder or glob sorted."""
        return list(dict.fromkeys(file for path in self.paths for file in files_of(path)))

    def __iter__(self) -> Iterator[Text]:
        """Documents that are not blank, in a fixed order."""
        for file in self.files:
            for where, pieces in self._documents(file):
                for text in cut(pieces, self.longest):
                    if text.strip():
                        yield Text(where, text)

    def _documents(self, file: Path) -> Iterator[tuple[str, Iterable[str]]]:
        if _kind(file) not in TABLES + LISTS:
            yield str(file), _decoded(file)
            return
        for place, row in read_rows(file):
            where, text = f"{file}, {place}", row.get(self.column)
            if not isinstance(text, str):
                raise ValueError(
                    f"{where} has no text in a column {self.column!r}: --text.column names another"
                    f" of {quoted(', '.join(map(str, row)), 120)}"
                )
            yield where, [text]


def files_of(path: str) -> list[Path]:
    """The files that a path, a folder or a glob stands for. ValueError where it is none."""
    place = Path(path)
    if place.is_dir():
        found = [
            file
            for file in sorted(place.rglob("*"))
            if _kind(file) in PLAIN + TABLES and file.is_file() and not hidden(file, place)
        ]
        kinds = ", ".join(PLAIN + TABLES)
        expect(bool(found), "data", path, f"a folder with {kinds} files in it, packed or not")
    elif place.exists():
        found = [place]
        if not place.stat().st_size:  # in a folder it is nothing
            raise ValueError(f"{path} is empty, expected a file with text in it")
    else:
        found = [Path(name) for name in sorted(glob.glob(path, recursive=True))]
        found = [file for file in found if file.is_file()]
        expect(bool(found), "data", path, "a file, a folder or a glob that is there")
    return found


def cut(pieces: Iterable[str], longest: int) -> Iterator[str]:
    """The text that the pieces are, in parts of at most `longest` characters that end after an
    empty line, else a line end, else a blank, wherever one stands in their second half."""
    held = ""
    for piece in pieces:
        held += piece
        while len(held) > longest:
            end = next(
                (
                    place + len(border)
                    for border in ("\n\n", "\n", " ")
                    if (place := held.rfind(border, longest // 2, longest - len(border) + 1)) > 0
                ),
                longest,
            )
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _kind(file: Path) -> str:
    """The ending that says how a file is read: that before .gz or .zst."""
    return Path(file.stem).suffix if file.suffix in PACKED else file.suffix


def _decoded(file: Path) -> Iterator[str]:
    """A text file in pieces, without a byte order mark, lines ended by one character."""
    decode = codecs.getincrementaldecoder("utf-8")()
    read, held = 0, ""
    with opened(file) as source:
        while block := source.read(BLOCK):
            try:
                text = decode.decode(block)
            except UnicodeDecodeError as error:
                raise ValueError(_no_text(file, read, error)) from None
            if "\0" in text:
                raise ValueError(f"{file} is no text: it holds zero bytes")
            text = held + (text if read else text.removeprefix("\ufeff"))
            held = "\r" if text.endswith("\r") else ""  # its line feed may come next
            read += len(block)
            yield text[: len(text) - len(held)].replace("\r\n", "\n")
    try:
        decode.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(_no_text(file, read, error)) from None
    yield held


def _no_text(file: Path, read: int, error: UnicodeDecodeError) -> str:
    return f"{file} is no UTF-8 text ({error.reason} near byte {read + error.start:,})"


def expected_bytes(files: Sequence[Path]) -> int:
    """About how much text the files hold, for a progress bar: packed ones three times their size."""
    factors = {file: 3 if file.suffix in (*PACKED, ".parquet") else 1 for file in files}
    return sum(factor * file.stat().st_size for file, factor in factors.items())
