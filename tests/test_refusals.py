"""Whatever a value or a file is, what is said of it is one short sentence."""

import errno
import json
import os
from typing import Literal

import pytest

from deepwright.files import (
    append_records,
    parse_json,
    read_json,
    read_records,
    read_rows,
    read_toml,
    rewind_records,
    write_json,
    write_records,
    write_whole,
)
from deepwright.refusals import QUOTED, describe, expect, expect_fields, holds, nearest, quoted

DEEP = "[" * 100_000 + "]" * 100_000


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        b"\x00" * 10_000_000,
        10**4000,
        16**50_000,
        list(range(10_000_000)),
        {str(i): "y" * 1000 for i in range(1000)},
        nested(900),
        ["\ud800"] * 50,
        float("nan"),
        type("Strange", (), {"__repr__": lambda self: "z" * 100_000})(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_quoted_shortly(value):
    assert len(quoted(value)) <= QUOTED
    with pytest.raises(ValueError, match=r"^size is .*, expected a number$") as caught:
        expect(False, "size", value, "a number")
    assert len(str(caught.value)) < 2 * QUOTED


def test_what_is_short_is_quoted_as_it_is():
    for value in ("a'b", 3, 1e-6, None, [128, 128], (1, 0), {"b": 1, "a": [2]}, b"x"):
        assert quoted(value) == repr(value) or value == {"b": 1, "a": [2]}
    assert quoted({"b": 1, "a": [2]}) == "{'a': [2], 'b': 1}"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int), (-1, int), (3, float), (3.5, float), (float("nan"), float), ("a", str),
        (None, str | None),
        ([], list[int]), ([1, 2], list[int]), ({}, dict[str, float]), ({"a": 1}, dict[str, float]),
        ([1.5, 2], tuple[float, int]), ([1, 2, 3], tuple[int, ...]), (True, bool),
        ("a", Literal["a", "b"]),
        ([{"a": None}], list[dict[str, float | None]]), ({"a": []}, dict), ("a", str | list[str]),
    ],
)  # fmt: skip
def test_what_is_of_a_type(value, hint):
    assert holds(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, int), (True, float), (3.0, int), ("3", int), (None, int), (1 << 63, int),
        (-(1 << 63), float),
        (10**400, float), ([1, "2"], list[int]), ({"a": "b"}, dict[str, float]),
        ([1], tuple[float, int]),
        ("ab", list[str]), ("ab", tuple[str, ...]), ("c", Literal["a", "b"]), ([], dict),
        ({}, list),
        ([{"a": "x"}], list[dict[str, float | None]]), (0, bool),
    ],
)  # fmt: skip
def test_what_is_not(value, hint):
    assert not holds(value, hint)
    with pytest.raises(ValueError, match=r"^file, line 3: step is .*, expected \S") as caught:
        expect_fields({"step": value}, "file, line 3", {"step": hint})
    assert len(str(caught.value)) < 400


def test_types_in_words():
    assert describe(float | None) == "a number or null"
    assert describe(list[dict[str, int]]) == (
        "a list, each value of it a table, each value of it a whole number"
    )
    assert describe(tuple[int, ...]) == "[a whole number, ...]"
    assert describe(Literal["a", "b"]) == "one of 'a', 'b'"


def test_a_field_that_may_be_none_may_be_missing():
    expect_fields({}, "file", {"seconds": float | None})
    with pytest.raises(ValueError, match="^file: step is None, expected a whole number$"):
        expect_fields({}, "file", {"step": int})


def test_an_endless_name_is_not_compared_with_others():
    assert nearest("learning_rat", ["learning_rate"]) == "; did you mean learning_rate?"
    assert nearest("x" * 1_000_000, ["learning_rate"]) == ""


@pytest.mark.parametrize(
    "text",
    ["", "{", DEEP, '{"a": ' * 5000, "9" * 5000, b"\xff\xfe", "NaN", "[1,]", "nul"],
    ids=lambda text: str(text[:6]),
)
def test_text_that_is_no_json_is_one_short_sentence(text):
    with pytest.raises(ValueError, match=r"^here: not JSON \(") as caught:
        parse_json(text, "here")
    assert len(str(caught.value)) < 300


def test_constants_that_json_lacks():
    assert parse_json("[NaN, -Infinity, 1]", "here", constants="None") == [None, None, 1]
    assert parse_json("[Infinity, 1]", "here", constants="float") == [float("inf"), 1]


@pytest.mark.parametrize("text", ["[]", "null", "3", '"text"', "[" + "1," * 100_000 + "1]"])
def test_an_object_is_expected_in_a_json_file(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json holds .*, expected an object") as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 300


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    write_json(tmp_path / "a.json", {"a": "ä"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    with pytest.raises(ZeroDivisionError):  # halfway through
        write_records(tmp_path / "a.json", ({"a": 1 / n} for n in (2, 1, 0)))
    assert read_json(tmp_path / "a.json") == {"a": "ä"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


# ---- rows of data

ROWS = [{"question": "2 + 2", "answer": "4"}, {"question": "größer?", "answer": "no"}]


def written(folder, name: str):
    path = folder / name
    if name.endswith(".parquet"):
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif name == "lines.json" or name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n\n" for row in ROWS))
    else:
        path.write_text(json.dumps(ROWS, indent=2 if name == "indented.json" else None))
    return path


@pytest.mark.parametrize(
    "name", ["a.jsonl", "list.json", "indented.json", "lines.json", "a.parquet"]
)
def test_rows_of_every_kind_of_file(tmp_path, name):
    found = list(read_rows(written(tmp_path, name)))
    assert [row for _, row in found] == ROWS
    assert found[1][0] == ("line 3" if "line" in found[0][0] else "row 2")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"a": 1}\n[1]\n', "line 2: expected a JSON object, found [1]"),
        ("a.jsonl", b'{"a": 1}\nnull\n', "line 2: expected a JSON object, found None"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ("a.jsonl", DEEP.encode(), "line 1: not JSON"),
        ("a.jsonl", b'{"a": "\\ud800"}', "line 1: not JSON"),
        ("a.json", b'{"rows": [1]}', "expected a list of objects"),
        ("a.json", b"[1, 2]", "row 1: expected a JSON object, found 1"),
        ("a.json", DEEP.encode(), "not JSON"),
        ("a.json", b"", "not JSON"),
        ("a.parquet", b"PAR1 and nothing else", "not a Parquet file"),
        ("a.parquet", b"", "not a Parquet file"),
        ("a.csv", b"a,b\n1,2\n", "expected a .jsonl, .json or .parquet file"),
    ],
)
def test_a_damaged_file_of_rows_is_one_sentence(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        list(read_rows(path))
    assert said in str(caught.value) and str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    (tmp_path / "folder.json").mkdir()
    for name in ("none.jsonl", "none.json", "none.parquet", "folder.json"):
        with pytest.raises(OSError, match=name.replace(".", r"\.")):
            list(read_rows(tmp_path / name))


# ---- TOML, records, full disks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"x = = 1", "a.toml is not TOML: Invalid value"),
        (b"\xff", "a.toml is not TOML: 'utf-8' codec"),
        (b"#" * 70_000, "a.toml is no file of settings"),
        (b"a." * 5000 + b"a = 1", "a.toml is no file of settings"),
        (b"a = " + b"[" * 5000, "a.toml is not TOML"),
        (b"a." * 40 + b"a = 1", "a.toml nests its tables beyond 30"),
        (b"a = 0x" + b"f" * 17, "a.toml holds a whole number beyond 64 bits"),
        (b"a = [[1, 99999999999999999999]]", "a.toml holds a whole number beyond 64 bits"),
    ],
)
def test_a_toml_file_that_is_none(tmp_path, text, said):
    (tmp_path / "a.toml").write_bytes(text)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read_toml(tmp_path / "a.toml")
    assert said in str(caught.value)
    with pytest.raises(ValueError, match="b.toml is missing"):
        read_toml(tmp_path / "b.toml")


def test_records_have_the_fields_that_are_asked_for(tmp_path):
    path = tmp_path / "a.jsonl"
    append_records(path, [{"stage": "base", "step": 1}, {"stage": "base", "step": "2"}])
    assert len(read_records(path)) == 2
    for read in (
        lambda: read_records(path, {"step": int}),
        lambda: rewind_records(path, lambda record: record["step"] > 1),
    ):
        with pytest.raises(ValueError, match=r"a\.jsonl, line 2: step is '2', expected a whole"):
            read()
    assert len(path.read_text().splitlines()) == 2


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.txt", "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"):
        write_whole(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_half_characters_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"a\.txt cannot be written: .*surrogates"):
        write_whole(tmp_path / "a.txt", "\ud800")
    assert list(tmp_path.iterdir()) == []
