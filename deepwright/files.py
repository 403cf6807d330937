"""Files that are read strictly and written whole: JSON, TOML, rows of data, the records of a run.

Reading: whatever bytes a file holds, it is what was expected or a ValueError of one sentence that
names it (and the row). Writing: a file appears by rename, so a kill leaves the old one or the new
one; an OSError names the file. Rows come from JSONL, a JSON list or Parquet; records are the lines
that a run appends to. No torch here.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import tomllib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

from deepwright.refusals import LARGEST, expect_fields, quoted, require, words_of

Row = dict[str, Any]
ROW_FILES = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.zst")
PACKED = (".gz", ".zst")
LONGEST_ROW = 1 << 26  # bytes of a line
LFS_POINTER = b"version https://git-lfs"
DRAFT = ".draft"  # ends the name of what is being written: a kill may leave it behind
LARGEST_TOML = 1 << 16  # bytes
MOST_DOTS = 4000  # Python's reader takes time that grows with the square of the dots in a key
DEEPEST = 30  # tables in tables


# ---- JSON


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


Constants = Literal["refused", "None", "float"]  # what becomes of NaN and Infinity
_CONSTANTS: dict[str, Callable[[str], Any]] = {"refused": _refused, "None": lambda name: None}
_CONSTANTS["float"] = float


def parse_json(text: str | bytes, where: str, *, constants: Constants = "refused") -> Any:
    """The value of a JSON text. ValueError "WHERE: not JSON (..)" for everything else.

    Refused too: nesting beyond Python's own bound, numbers of thousands of digits. `constants`:
    what becomes of NaN and Infinity, which JSON lacks, but Python and pandas write."""
    try:
        return json.loads(text, parse_constant=_CONSTANTS[constants])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({words_of(error)})") from None


def read_json(path: Path, *, constants: Constants = "refused") -> Row:
    """The object in a JSON file. ValueError where it is missing, damaged or something else."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    value = parse_json(path.read_bytes(), f"{path} is damaged", constants=constants)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {quoted(value, 60)}, expected an object")
    return value


def read_text(path: Path) -> str:
    """The text of a file. ValueError naming it where it is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error.reason} at {error.start})") from None


def write_json(path: Path, value: Mapping[str, Any], *, indent: int = 1) -> None:
    """The file appears whole, by rename."""
    write_whole(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Writes a text, or its pieces, beside `path`, brings it to disk and renames it into place."""
    draft = path.with_name(path.name + DRAFT)
    try:
        with naming(path), draft.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:  # a full disk, Ctrl-C, a value that JSON cannot hold
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that knows no file gets this one's name: what write and fsync raise has none. Half
    characters, which no file holds, are a ValueError."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} cannot be written: {error}") from None


@contextlib.contextmanager
def about(path: str | Path) -> Iterator[None]:
    """A ValueError that does not say which file or folder it is about says so."""
    try:
        yield
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


# ---- TOML


def read_toml(path: Path) -> Row:
    """The tables of a TOML file. ValueError where it is missing, damaged or no settings' size."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    with path.open("rb") as file:
        text = file.read(LARGEST_TOML + 1)
    if len(text) > LARGEST_TOML or text.count(b".") > MOST_DOTS:
        most = f"{LARGEST_TOML:,} bytes and {MOST_DOTS:,} dots"
        raise ValueError(f"{path} is no file of settings: expected at most {most}")
    try:
        table = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {words_of(error)}") from None
    _refuse_extremes(table, path)
    return table


def _refuse_extremes(table: Row, path: Path) -> None:
    """ValueError for whole numbers beyond 64 bits, which TOML lacks, and for tables too deep to be
    walked through by recursion."""
    layer: list[Any] = [table]
    for _ in range(DEEPEST):
        tables = (one.values() if isinstance(one, dict) else one for one in layer)
        values = [value for one in tables for value in one]
        if any(isinstance(value, int) and abs(value) >= LARGEST for value in values):
            raise ValueError(f"{path} holds a whole number beyond 64 bits")
        layer = [value for value in values if isinstance(value, (dict, list))]
    if layer:
        raise ValueError(f"{path} nests its tables beyond {DEEPEST}, expected a file of settings")


# ---- rows of data


def hidden(file: Path, folder: Path) -> bool:
    """Whether a file of a folder is hidden in it, by its name or that of a folder between."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(where it stands, row) of each row of a .jsonl, .json or .parquet file; .jsonl also packed,
    as .gz or .zst.

    Where: "line 3" or "row 3", for messages. A .json file holds a list of objects, or lines as a
    .jsonl file does. ValueError naming file and place of what is no object; OSError where there is
    no file."""
    path = Path(path)
    if not path.name.endswith(ROW_FILES):
        raise ValueError(f"{path}: expected a .jsonl, .json or .parquet file, or a .jsonl.gz")
    with opened(path):  # refuses a pointer
        pass
    if path.suffix == ".parquet":
        rows: Iterable[tuple[str, Any]] = _parquet_rows(path)
    elif path.suffix == ".json" and (listed := _listed_rows(path)) is not None:
        rows = ((f"row {number}", row) for number, row in enumerate(listed, 1))
    else:
        rows = _line_rows(path)
    for where, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {where}: expected a JSON object, found {quoted(row, 60)}")
        yield where, row


class _Frames(io.RawIOBase):
    """What the frames of a .zst file hold. EOFError where the last one is cut, which the library's
    own reader takes for its end."""

    def __init__(self, source: IO[bytes]) -> None:
        from zstandard import ZstdDecompressor

        self._source, self._frame = source, ZstdDecompressor().decompressobj
        self._reader, self._held, self._rest = self._frame(), b"", b""
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            packed = self._rest or self._source.read(1 << 12)
            if not packed and self._begun:
                raise EOFError("its last frame is cut")
            if not packed:
                return 0
            self._held, self._begun = self._reader.decompress(packed), True
            self._rest = self._reader.unused_data
            if self._reader.eof:
                self._reader, self._begun = self._frame(), False
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        return size


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it ends in .gz or .zst. ValueError naming one that is
    damaged, or a pointer of Git LFS."""
    with path.open("rb") as raw:
        if raw.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{path} is a pointer of Git LFS: `git lfs pull` fetches the file")
        raw.seek(0)
        try:
            if path.suffix == ".gz":
                yield gzip.GzipFile(fileobj=raw)  # type: ignore[misc]
            elif path.suffix == ".zst":
                require("zstandard", f"reading {path}", "text")
                yield io.BufferedReader(_Frames(raw), 1 << 17)
            else:
                yield raw
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            kind = "zst" if path.suffix == ".zst" else "gzip"
            raise ValueError(f"{path}: not a whole {kind} file ({words_of(error)})") from None
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise ValueError(f"{path}: not a whole zst file ({words_of(error)})") from None


def _line_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with opened(path) as file:
        number = 0
        while line := file.readline(LONGEST_ROW + 1):
            number += 1
            if len(line) > LONGEST_ROW:
                most = f"{LONGEST_ROW >> 20} MB"
                raise ValueError(f"{path}, line {number}: longer than {most}, expected rows")
            if line.strip():
                yield f"line {number}", _parse_rows(line, f"{path}, line {number}")


def _parse_rows(text: bytes, where: str) -> Any:
    """Refuses half characters ("\\ud800") as well: no tokenizer takes them."""
    value = parse_json(text, where, constants="None")
    if b"\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{where}: not JSON ({error})") from None
    return value


def _listed_rows(path: Path) -> list[Any] | None:
    """The list that a .json file holds; None where it has one object a line instead."""
    text = path.read_bytes()
    if text.lstrip()[:1] == b"{" and b"\n" in text.strip():
        try:
            value = _parse_rows(text, str(path))
        except ValueError:
            return None
    else:
        value = _parse_rows(text, str(path))
    if not isinstance(value, list):
        raise ValueError(f"{path} holds {quoted(value, 60)}, expected a list of objects")
    return value


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    require("pyarrow", f"reading {path}")
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                columns = [_column_values(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(batch.schema.names, values))
    except (pyarrow.ArrowException, UnicodeError, OSError) as error:
        if getattr(error, "errno", None):  # of the operating system, which names the file
            raise
        raise ValueError(f"{path}: not a Parquet file ({words_of(error)})") from None


def _column_values(column: Any) -> list[Any]:
    """Null for all of a column of times that Python cannot hold: nanoseconds, the year 10000, zones
    that nobody knows."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, KeyError):
        return [None] * len(column)


# ---- records of a run


STEPS = {"stage": str, "step": int}  # what every record says that a rewind looks at


def read_records(path: str | Path, fields: Mapping[str, Any] = {}) -> list[Row]:
    """All whole records of a JSONL file, in order; [] where there is no file.

    A last line without its line end is still being written, or was cut by a kill, and is left
    out; any other line that is no JSON object with these fields (`expect_fields`) is a ValueError
    naming the line."""
    path = Path(path)
    if not path.exists():
        return []
    lines = enumerate(path.read_bytes().split(b"\n")[:-1], 1)
    return [_record(path, f"line {n}", line, fields) for n, line in lines if line.strip()]


def _record(path: Path, place: str, line: bytes, fields: Mapping[str, Any]) -> Row:
    where = f"{path}, {place}"
    record = parse_json(line, where, constants="float")  # standard errors of one problem
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected one JSON object, found {quoted(line, 60)}")
    expect_fields(record, where, fields)
    return record


def last_record(path: str | Path, fields: Mapping[str, Any] = {}) -> Row | None:
    """The last whole record of a JSONL file, found from its end, so that a long file is not read;
    None where there is none. ValueError where that line is no such record."""
    path = Path(path)
    if not path.exists():
        return None
    size, reach = path.stat().st_size, 1 << 16
    with path.open("rb") as file:
        while True:
            file.seek(max(0, size - reach))
            lines = file.read(reach).split(b"\n")[:-1]
            whole = lines if reach >= size else lines[1:]
            if found := [line for line in whole if line.strip()]:
                return _record(path, "the last line", found[-1], fields)
            if reach >= size:
                return None
            reach *= 4


def append_records(
    path: Path, records: Iterable[Mapping[str, Any]], *, plain: bool = False
) -> None:
    """Further lines. Not `plain`: letters that are not ASCII stay readable."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=plain) + "\n" for record in records)


def write_records(path: Path, records: Iterable[Mapping[str, Any]], *, plain: bool = True) -> None:
    """A JSONL file, whole or not at all. Not `plain`: letters that are not ASCII stay readable."""
    write_whole(path, (json.dumps(record, ensure_ascii=plain) + "\n" for record in records))


def rewind_records(
    path: str | Path, drop: Callable[[Row], bool], fields: Mapping[str, Any] = STEPS
) -> int:
    """Rewrites a JSONL file (metrics, evaluations, samples) without the records for which `drop` is
    true, where there are any; all or nothing, by rename. A torn last line goes in any case. Returns
    how many went. ValueError for a record without these fields."""
    path = Path(path)
    records = read_records(path, fields)
    kept = [record for record in records if not drop(record)]
    cut_torn_line(path)
    if len(kept) < len(records):
        write_records(path, kept)
    return len(records) - len(kept)


def cut_torn_line(path: Path) -> None:
    """Cuts off a last line without its end, to which the next record would be appended."""
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole != path.stat().st_size:
            os.truncate(path, whole)
