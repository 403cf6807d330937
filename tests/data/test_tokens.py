"""Folders of tokens: what is written is what was read, once; what is damaged is refused; a kill leaves nothing."""

import hashlib
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.data import tokens as shards
from deepwright.data.texts import Text
from deepwright.data.tokens import (
    MANIFEST,
    Encoder,
    Seen,
    Tokens,
    read_manifest,
    write_tokens,
)
from deepwright.text import Tokenizer, train_bpe

WORDS = (
    "the quick brown fox jumps over lazy dogs while seven wizards box <｜end▁of▁sentence｜>".split()
)
TOKENIZER = train_bpe([" ".join(WORDS)] * 3, 320)
BPE = train_bpe([Path(__file__).read_text()], 700)
ENCODER = Encoder(TOKENIZER)


def documents(count, seed=0):
    rng = np.random.default_rng(seed)
    made = [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(count)]
    return [Text(f"line {number}", text) for number, text in enumerate(made)]


def ids_of(text):
    return [TOKENIZER.bos_id, *TOKENIZER.encode(text, specials=False), TOKENIZER.eos_id]


def spoken(folder, split):
    """The documents of a split, cut at its borders."""
    tokens = Tokens(folder, split)
    ends = [int(end) for ends in tokens.borders() for end in ends]
    return [tokens.read(a, b - a).tolist() for a, b in zip([0, *ends], ends)], tokens


@pytest.mark.parametrize("shard", [1, 100, 1 << 20])
def test_every_document_once_whole_and_on_the_side_of_its_hash(tmp_path, shard, monkeypatch):
    monkeypatch.setattr(shards, "AT_ONCE", 500)
    read = [*documents(300), *documents(40), *documents(5, seed=1)]
    manifest = write_tokens(read, TOKENIZER, tmp_path / "t", held_out=0.1, shard=shard)
    kept = list(dict.fromkeys(text.text for text in read))
    assert manifest["duplicates"] == len(read) - len(kept)
    sides = {"train": [], "held_out": []}
    for text in kept:  # by hand
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        sides["held_out" if number < 0.1 * 2**64 else "train"].append(text)
    assert 10 < len(sides["held_out"]) < 60
    for split, expected in sides.items():
        found, tokens = spoken(tmp_path / "t", split)
        assert Counter(map(tuple, found)) == Counter(tuple(ids_of(text)) for text in expected)
        assert tokens.documents == len(expected) and len(tokens) == sum(map(len, found))
        assert tokens.text_bytes == sum(len(text.encode()) for text in expected)
    assert Tokenizer.load(tmp_path / "t").encode("the fox") == TOKENIZER.encode("the fox")


def test_the_side_of_a_document_does_not_depend_on_the_others(tmp_path):
    write_tokens(documents(300), TOKENIZER, tmp_path / "a", held_out=0.1)
    write_tokens(documents(300)[::-3], TOKENIZER, tmp_path / "b", held_out=0.1)
    of_all = {tuple(ids) for ids in spoken(tmp_path / "a", "held_out")[0]}
    of_some = {tuple(ids) for ids in spoken(tmp_path / "b", "held_out")[0]}
    assert of_some and of_some < of_all
    assert not of_all & {tuple(ids) for ids in spoken(tmp_path / "b", "train")[0]}


def test_at_least_one_document_is_held_out(tmp_path):
    write_tokens(documents(12), TOKENIZER, tmp_path / "t", held_out=1e-9)
    assert [len(spoken(tmp_path / "t", split)[0]) for split in shards.SPLITS] == [11, 1]
    with pytest.raises(ValueError, match="documents of the split train is 0"):
        write_tokens(documents(1), TOKENIZER, tmp_path / "u")
    with pytest.raises(ValueError, match="documents of the split train is 0"):
        write_tokens([], TOKENIZER, tmp_path / "u", held_out=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t"]


@given(st.lists(st.lists(st.integers(0, 60), max_size=25), max_size=12))
def test_what_was_seen_is_what_a_set_says(batches):
    seen, known = Seen(), set()
    for batch in batches:
        expected = []
        for number in batch:
            expected.append(number not in known)
            known.add(number)
        assert seen.new(np.array(batch, np.uint64)).tolist() == expected
    assert sum(map(len, seen.runs)) == len(known)


@given(st.text(st.sampled_from("ab Z9_7.,'\n\r\t\x1d\x0b-é一²<｜>"), max_size=60))
def test_words_from_the_table_are_those_of_the_tokenizer(text):
    """Word by word in ASCII, otherwise by the tokenizer itself."""
    (ids,) = ENCODER([text])
    assert ids.tolist() == ids_of(text)


def test_the_table_reads_real_text(monkeypatch):
    """This file's own folder, with a table that is often full."""
    monkeypatch.setattr(shards, "MOST_WORDS", 200)
    encoder = Encoder(BPE)
    assert encoder.by_words
    files = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    files.append("one   1\n   22 333  4444\t5\n")
    read = 0
    for text, ids in zip(files, encoder(files)):
        assert ids.tolist() == [BPE.bos_id, *BPE.encode(text, specials=False), BPE.eos_id]
        read += text.isascii()
    assert read >= 2 and len(encoder.table) <= 200


def test_only_vocabularies_of_our_kind_have_a_table(tmp_path):
    from tests.text import family

    assert not Encoder(family.load(tmp_path / "smollm", "smollm")).by_words
    assert Encoder(Tokenizer.load(saved(BPE, tmp_path / "ours"))).by_words


def saved(tokenizer, folder):
    tokenizer.save(folder)
    return folder


def test_a_border_that_a_text_spells_is_no_border(tmp_path):
    text = f"a {TOKENIZER.eos} b"
    write_tokens([Text("", text), Text("", "c")], TOKENIZER, tmp_path / "t", held_out=0)
    tokens = Tokens(tmp_path / "t")
    assert tokens.read(0, len(tokens)).tolist().count(TOKENIZER.eos_id) == 2


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def torn():
        yield from documents(50)
        raise ValueError("x.txt is no UTF-8 text")

    with pytest.raises(ValueError, match="no UTF-8"):
        write_tokens(torn(), TOKENIZER, tmp_path / "t")
    assert not list(tmp_path.iterdir())
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "mine").touch()
    with pytest.raises(ValueError, match="is there already"):
        write_tokens(documents(9), TOKENIZER, tmp_path / "t")
    assert (tmp_path / "t" / "mine").exists()


def test_a_full_disk_is_named_and_leaves_nothing():
    """A small file system of its own would need root; /dev/shm with a limit on the size of files does."""
    import resource
    import subprocess

    folder = f"/dev/shm/deepwright-{os.getpid()}"
    code = (
        "import signal, resource, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "from tests.data.test_tokens import *;"
        f"write_tokens(documents(3000), TOKENIZER, '{folder}')"
    )
    assert resource.RLIMIT_FSIZE
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "OSError: [Errno 27] File too large: " in done.stderr and folder in done.stderr
        assert not os.path.exists(folder) and not os.path.exists(folder + ".draft")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda f: (f / "train-00000.tokens").write_bytes(b"123"), "the size of .*train-00000"),
        (lambda f: (f / MANIFEST).write_text("{"), "not JSON"),
        (lambda f: (f / MANIFEST).write_text('{"format": 2}'), "tokens.json: vocabulary"),
        (lambda f: (f / "train-00000.tokens").unlink(), "No such file"),
    ],
)
def test_damage_is_named(tmp_path, damage, sentence):
    folder = tmp_path / "t"
    write_tokens(documents(30), TOKENIZER, folder)
    damage(folder)
    with pytest.raises((ValueError, OSError), match=sentence):
        Tokens(folder)


def test_another_format_and_a_path_for_a_name_are_refused(tmp_path):
    import json

    folder = tmp_path / "t"
    write_tokens(documents(30), TOKENIZER, folder)
    good = json.loads((folder / MANIFEST).read_text())
    for change, sentence in (
        ({"format": 2}, "format is 2, expected 1"),
        ({"train": {**good["train"], "shards": [{"name": "../x", "tokens": 1, "documents": 1}]}},
         "expected the name of a file"),
    ):  # fmt: skip
        (folder / MANIFEST).write_text(json.dumps({**good, **change}))
        with pytest.raises(ValueError, match=sentence):
            read_manifest(folder)
