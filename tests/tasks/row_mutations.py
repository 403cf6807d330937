"""Damage that row files of other people have, or could be given: from a seed, one file each."""

import datetime
import decimal
import gzip
import json
import random
from pathlib import Path
from typing import Any

DEEP = "[" * 600 + "1" + "]" * 600
HUGE = [
    "x" * 300_000,
    "\\boxed{" * 40_000,
    "#### " * 60_000,
    "the answer is " * 20_000,
    " " * 300_000 + "5",
    "." * 300_000 + "x",
    "(" * 200_000,
    "{" * 200_000,
    "1 000" * 60_000,
    "-" * 200_000 + "1",
    "9" * 200_000,
    "\n" * 200_000,
    "```" * 60_000,
    "<think>" * 40_000,
    "\\frac{1}{" * 20_000,
    "a, " * 90_000,
]
VALUES = [
    None,
    "",
    " ",
    0,
    -1,
    10**40,
    1e308,
    -0.0,
    True,
    False,
    [],
    {},
    [None],
    [[]],
    [1, 2, 3],
    ["a", "b"],
    {"a": 1},
    {"": None},
    [{"a": [{"b": None}]}],
    [["x"] * 3] * 3,
    "\u0000",
    "\ud7ff\u202e",
    "null",
    "{",
    "[",
    '{"inputs": [',
    '{"inputs": null, "outputs": [1]}',
    '{"inputs": [1, 2], "outputs": [1]}',
    '{"fn_name": "os.system", "inputs": [[1]], "outputs": [1]}',
    '{"fn_name": 3, "inputs": [[1]], "outputs": [1]}',
    '[{"input": 1}]',
    '["a", "b"]',
    "[1, 2",
    DEEP,
    json.loads(DEEP),
    "def check(candidate):\n    pass",
    "def check(candidate):\n    assert " + "-" * 500 + "candidate(1) == 1",
    "assert f(" + "(" * 150 + ")" * 150 + ") == 1",
    "def check():\n    assert True",
    "class X: pass",
    "def f(:",
    [{"role": "user"}],
    [{"role": None, "content": 3}],
    [{"role": "user", "content": None}],
    [{"role": "assistant", "content": "5"}],
    [{"content": [{"type": "image"}]}],
    "He has 5 apples left.",
    "#### ",
    "\\boxed{",
    "\\boxed",
    "\\boxed{}",
    "answer:",
    "The answer is",
    "NaN",
    "-Infinity",
    *HUGE,
]
# What Parquet can hold and JSON cannot, or not so.
ODD = [
    datetime.datetime(2024, 1, 1),
    datetime.date(1, 1, 1),
    datetime.time(12),
    datetime.timedelta(days=3),
    decimal.Decimal("6.00"),
    decimal.Decimal("1E-30"),
    b"\xff\x00",
    float("nan"),
    float("inf"),
    float("-inf"),
    {"when": datetime.datetime(2024, 1, 1), "raw": b"\x80"},
    [b"6"],
    [datetime.date(2024, 1, 1)],
    [decimal.Decimal(6)],
]


def damaged(row: dict[str, Any], r: random.Random) -> dict[str, Any]:
    """A row with one to three of its columns changed."""
    row = json.loads(json.dumps(row))
    for _ in range(r.choice((1, 1, 2, 3))):
        if not row:
            break
        name = r.choice(list(row))
        way = r.randrange(8)
        if way == 0:
            del row[name]
        elif way == 1:
            row[
                r.choice(
                    ["Answer", "QUESTION", "tests", "choices", "image", "messages", name.upper()]
                )
            ] = r.choice(VALUES)
        elif way == 2 and isinstance(row[name], str) and row[name]:
            row[name] = _torn(row[name], r)
        elif way == 3:
            row[name] = [row[name]]
        elif way == 4:
            other = r.choice(list(row))
            row[name], row[other] = row[other], row[name]
        elif way == 5 and isinstance(row[name], (list, dict)):
            row[name] = _inside(row[name], r)
        else:
            row[name] = r.choice(VALUES)
    return row


def _torn(text: str, r: random.Random) -> str:
    place = r.randrange(len(text))
    return r.choice(
        [
            text[:place],
            text[place:],
            text[:place] + r.choice("\\{}[]()\"'\x00é") + text[place:],
            text * 50,
        ]
    )


def _inside(value: Any, r: random.Random) -> Any:
    """The same one level down."""
    if isinstance(value, list) and value:
        return [r.choice(VALUES) if r.random() < 0.5 else one for one in value]
    if isinstance(value, dict) and value:
        return value | {r.choice(list(value)): r.choice(VALUES)}
    return r.choice(VALUES)


def damaged_file(row: dict[str, Any], folder: Path, seed: int) -> Path:
    """A file of four rows, of which some are damaged, and sometimes so is the file."""
    r = random.Random(seed)
    rows = [damaged(row, r) if r.random() < 0.7 else row for _ in range(4)]
    if r.random() < 0.25 and (path := _parquet(rows, folder, r)) is not None:
        return path
    lines = [json.dumps(one, ensure_ascii=r.random() < 0.5) for one in rows]
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    way = r.randrange(12)
    if way == 0:
        text = text[: r.randrange(len(text))]
    elif way == 1:
        text = "\ufeff".encode() + text
    elif way == 2:
        text = text.replace(b"\n", b"\r\n") + b"\n\n"
    elif way == 3:
        place = r.randrange(len(text))
        text = text[:place] + bytes([r.randrange(256)]) + text[place:]
    elif way == 4:
        text = b"[" + b",".join(line.encode("utf-8", "surrogatepass") for line in lines) + b"]"
    name = r.choice(["rows.jsonl", "rows.json", "rows.jsonl.gz"])
    if name.endswith("gz"):
        text = gzip.compress(text)
        text = text[: r.randrange(len(text))] if r.random() < 0.2 else text
    (folder / name).write_bytes(text)
    return folder / name


def _parquet(rows: list[dict[str, Any]], folder: Path, r: random.Random) -> Path | None:
    """As Parquet with a column of an odd type; None where Arrow finds no one type for a column."""
    import pyarrow
    import pyarrow.parquet

    name, odd = r.choice(list(rows[0]) or ["answer"]), r.choice(ODD)
    names = {column for row in rows for column in row}
    columns = {column: [row.get(column) for row in rows] for column in names}
    columns[name] = [odd] * len(rows)
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "rows.parquet")
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError, UnicodeError):
        return None
    path = folder / "rows.parquet"
    if r.random() < 0.1:
        path.write_bytes(path.read_bytes()[: r.randrange(path.stat().st_size)])
    return path
