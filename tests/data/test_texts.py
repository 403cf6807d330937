"""Anyone's text: which files, which documents, and one sentence for everything that is none."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from deepwright.data import texts as reading
from deepwright.data.texts import Texts, cut


def texts(*paths, **settings):
    return [text.text for text in Texts(tuple(map(str, paths)), **settings)]


@pytest.fixture
def library(tmp_path):
    """One folder with every kind of file: the documents "one" to "eight"."""
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.md").write_text("two")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "d.rst").write_text("three")
    with gzip.open(tmp_path / "e.txt.gz", "wt") as file:
        file.write("four")
    (tmp_path / "f.txt.zst").write_bytes(zstandard.compress(b"five"))
    (tmp_path / "g.jsonl").write_text('{"text": "six"}\n\n{"text": "seven", "more": 1}\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": ["eight"]}), tmp_path / "h.parquet")
    (tmp_path / "i.bin").write_bytes(b"\0\1")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "j.txt").write_text("hidden")
    return tmp_path


ALL = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


def test_a_folder_is_all_its_text(library):
    assert texts(library) == ALL
    assert texts(library / "c", library / "a.txt", library) == [
        "three", "one", "two", "four", "five", "six", "seven", "eight",
    ]  # fmt: skip


def test_globs(library):
    assert texts(f"{library}/*.md", f"{library}/**/*.rst") == ["two", "three"]


def test_a_file_that_is_named_is_text_whatever_its_ending(tmp_path):
    (tmp_path / "README").write_text("plain")
    (tmp_path / "rows.json").write_text('[{"text": "listed"}]')
    assert texts(tmp_path / "README") == ["plain"]
    assert texts(tmp_path / "rows.json") == ["listed"]


def test_packed_rows_and_another_column(tmp_path):
    row = json.dumps({"body": "words"}) + "\n"
    (tmp_path / "r.jsonl.zst").write_bytes(zstandard.compress(row.encode()) * 2)  # two frames
    assert texts(tmp_path, column="body") == ["words", "words"]


def test_marks_and_line_ends_of_windows_go(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 3)  # \r and \n, and the bytes of é, in two blocks
    (tmp_path / "w.txt").write_bytes("\ufeffa\r\nbéc\rd\r\n".encode())
    assert texts(tmp_path) == ["a\nbéc\rd\n"]


def test_blank_documents_are_none(tmp_path):
    (tmp_path / "a.txt").write_text(" \n\n ")
    (tmp_path / "b.txt").write_text("b")
    assert texts(tmp_path) == ["b"]


@given(st.lists(st.text("ab \n", max_size=40), max_size=12), st.integers(8, 30))
def test_what_is_cut_is_whole_again(pieces, longest):
    parts = list(cut(pieces, longest))
    assert "".join(parts) == "".join(pieces)
    assert all(0 < len(part) <= longest for part in parts)
    for part in parts[:-1]:
        assert len(part) >= longest // 2
        if not part.endswith((" ", "\n")):  # then there was no border to be had
            assert len(part) == longest and not {" ", "\n"} & set(part[longest // 2 :])


def test_cut_at_an_empty_line_before_a_line_end_before_a_blank():
    assert list(cut(["aaaaaaaa\n\nb c\nd e"], 16)) == ["aaaaaaaa\n\n", "b c\nd e"]
    assert list(cut(["aaaaaaaa bb\ncc dd e"], 16)) == ["aaaaaaaa bb\n", "cc dd e"]
    assert list(cut(["aaaaaaaabb cc dd e"], 16)) == ["aaaaaaaabb cc ", "dd e"]


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\xff\xfe\0w\0", "is no UTF-8 text"),
        ("a.txt", b"good\xe2\x82", "is no UTF-8 text"),
        ("a.txt", b"a\0b", "is no text: it holds zero bytes"),
        ("a.txt.gz", b"\x1f\x8b\x08\0\0", "not a whole gzip file"),
        ("a.txt.gz", b"plain", "not a whole gzip file"),
        ("a.txt.zst", b"plain text, not packed", "not a whole zst file"),
        ("a.txt.zst", zstandard.compress(b"words " * 99)[:-9], "not a whole zst file"),
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', "has no text in a column 'text'"),
        ("a.jsonl", b'{"text": 3}\n', "has no text in a column 'text'"),
        ("a.jsonl", b'["x"]\n', "line 1: expected a JSON object"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1"),
        ("a.parquet", b"PAR1", "not a Parquet file"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_one_sentence_that_names_the_file(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        texts(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and len(str(caught.value)) < 600


def test_a_row_of_a_hundred_megabytes_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        file.truncate(100 << 20)
    with pytest.raises(ValueError, match="line 1: longer than 64 MB"):
        texts(tmp_path)


@pytest.mark.parametrize("path", ["nowhere.txt", "*.nothing"])
def test_what_is_not_there(tmp_path, path):
    with pytest.raises(ValueError, match="expected a file, a folder or a glob that is there"):
        texts(tmp_path / path)
    with pytest.raises(ValueError, match="expected a folder with"):
        texts(tmp_path)
    with pytest.raises(ValueError, match="expected files or folders of text"):
        texts()
