"""Whatever a value or a file is, what is said of it is one short sentence."""

import json

import pytest

from deepwright.files import parse_json, read_json, read_rows, write_json, write_records
from deepwright.refusals import QUOTED, expect, nearest, quoted

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
