"""Files that are read strictly and written whole: JSON, rows of data, the records of a run.

Reading: whatever bytes a file holds, it is what was expected or a ValueError of one sentence that
names it (and the row). Writing: a file appears by rename, so a kill leaves the old one or the new
one. Rows come from JSONL, a JSON list or Parquet; records are the lines that a run appends to. No
torch here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

from deepwright.refusals import quoted, require

Row = dict[str, Any]
ROW_FILES = (".jsonl", ".json", ".parquet")


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
        raise ValueError(f"{where}: not JSON ({str(error)[:200]})") from None


def read_json(path: Path, *, constants: Constants = "refused") -> Row:
    """The object in a JSON file. ValueError where it is missing, damaged or something else."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    value = parse_json(path.read_bytes(), f"{path} is damaged", constants=constants)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {quoted(value, 60)}, expected an object")
    return value


def write_json(path: Path, value: Mapping[str, Any], *, indent: int = 1) -> None:
    """The file appears whole, by rename."""
    write_whole(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Writes a text, or its pieces, beside `path`, brings it to disk and renames it into place."""
    draft = path.with_name(path.name + ".draft")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:  # a full disk, Ctrl-C, a value that JSON cannot hold
        draft.unlink(missing_ok=True)
        raise


# ---- rows of data


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(where it stands, row) of each row of a .jsonl, .json or .parquet file.

    Where: "line 3" or "row 3", for messages. A .json file holds a list of objects, or lines as a
    .jsonl file does. ValueError naming file and place of what is no object; OSError where there is
    no file."""
    path = Path(path)
    if path.suffix not in ROW_FILES:
        raise ValueError(f"{path}: expected a {', '.join(ROW_FILES[:-1])} or {ROW_FILES[-1]} file")
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


def _line_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield f"line {number}", _parse_rows(line, where)


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
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pyarrow.ArrowException, UnicodeError, OSError) as error:
        if getattr(error, "errno", None):  # of the operating system, which names the file
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not a Parquet file ({reason})") from None


# ---- records of a run


def read_records(path: str | Path) -> list[Row]:
    """All whole records of a JSONL file, in order; [] where there is no file.

    A last line without its line end is still being written, or was cut by a kill, and is left
    out; any other line that is no JSON object is a ValueError naming the line."""
    path = Path(path)
    if not path.exists():
        return []
    lines = enumerate(path.read_bytes().split(b"\n")[:-1], 1)
    return [_record(path, number, line) for number, line in lines if line.strip()]


def _record(path: Path, number: int, line: bytes) -> Row:
    where = f"{path}, line {number}"
    record = parse_json(line, where, constants="float")  # standard errors of one problem
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected one JSON object, found {quoted(line, 60)}")
    return record


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """One more line, with letters that are not ASCII readable."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_records(path: Path, records: Iterable[Mapping[str, Any]], *, plain: bool = True) -> None:
    """A JSONL file, whole or not at all. Not `plain`: letters that are not ASCII stay readable."""
    write_whole(path, (json.dumps(record, ensure_ascii=plain) + "\n" for record in records))


def rewind_records(path: str | Path, drop: Callable[[Row], bool]) -> int:
    """Rewrites a JSONL file (metrics, evaluations, samples) without the records for which `drop` is
    true, where there are any; all or nothing, by rename. A torn last line goes in any case. Returns
    how many went."""
    path = Path(path)
    records = read_records(path)
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
