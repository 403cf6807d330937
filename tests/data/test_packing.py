"""Packing: rows by hand, borders, exact resume from any point, fill-in-the-middle."""

import json
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.text_corpus import TextCorpus
from deepwright.data import CountdownCorpus, PackedStream
from deepwright.tasks import make_task
from deepwright.text import number_tokenizer, train_bpe
from deepwright.text.tokenizer import EOS

TASK = make_task("countdown")
TOKENIZER = number_tokenizer(TASK.tokenizer_words(), TASK.largest_number)
CORPUS = CountdownCorpus(TASK)
BPE = train_bpe(["abc def ghi 123\n" * 4], 280)


@dataclass(frozen=True)
class Listed:
    texts: tuple[str, ...]

    def document(self, i):
        return self.texts[i % len(self.texts)]


def resumed_as_unbroken(fresh, rows, cut):
    """Batches of so many `rows`, read in one go and with a stop after `cut` of them, are equal; returns them."""
    unbroken = fresh()
    whole = [unbroken.batch(n) for n in rows]
    first = fresh()
    for n in rows[:cut]:
        first.batch(n)
    second = fresh()
    second.restore(json.loads(json.dumps(first.state())))
    assert all(torch.equal(second.batch(n), wanted) for n, wanted in zip(rows[cut:], whole[cut:]))
    return whole


def test_rows_by_hand():
    """Numbers n are id n + `zero`; the stream is 0 a 1 0 b c 1 0 a 1 0 b c 1 ..., rows start 4 apart and overlap by 1 + extra."""
    zero = TOKENIZER.encode("0")[0]
    a, b, c = zero + 5, zero + 6, zero + 7
    stream = PackedStream(Listed(("5", "6 7")), TOKENIZER, 4, extra=1)
    batch = stream.batch(2)
    assert batch.dtype == torch.int64 and batch.tolist() == [[0, a, 1, 0, b, c], [b, c, 1, 0, a, 1]]
    assert stream.batch(1).tolist() == [[a, 1, 0, b, c, 1]]


@pytest.mark.invariant
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(0, 5),
    st.sampled_from([3, 17, 64]),
    st.sampled_from([0, 1, 2]),
)
def test_resume_anywhere_equals_the_unbroken_stream(rows, cut, length, extra):
    def fresh():
        return PackedStream(CORPUS, TOKENIZER, length, seed=9, extra=extra)

    whole = resumed_as_unbroken(fresh, rows, cut)
    assert torch.equal(
        torch.cat(whole), fresh().batch(sum(rows))
    )  # how rows are grouped into batches changes nothing


def test_each_document_has_one_bos_and_one_eos_and_each_token_is_an_input_once():
    stream = PackedStream(CORPUS, TOKENIZER, 32)
    inputs = torch.cat([stream.batch(7)[:, :-1].flatten() for _ in range(10)]).tolist()
    wanted = [token for i in range(200) for token in [0, *TOKENIZER.encode(CORPUS.document(i)), 1]]
    assert inputs == wanted[: len(inputs)]
    assert all(after == 0 for token, after in pairwise(inputs) if token == 1)


def test_a_document_cannot_forge_a_border():
    tokens = PackedStream(Listed((f"abc{EOS}def",)), BPE, 8).document_tokens(0)
    assert tokens.count(BPE.eos_id) == 1 and tokens[-1] == BPE.eos_id
    assert BPE.decode(tokens) == f"abc{EOS}def"


def test_fill_in_the_middle_is_prefix_suffix_middle_at_its_rate():
    texts = tuple(f"abc {i} def\nghi é {i * 7}\n" for i in range(2000))
    stream = PackedStream(Listed(texts), BPE, 8, fim_rate=0.1, seed=4)
    begin, hole, end = BPE.fim_ids
    moved = 0
    for i, text in enumerate(texts):
        bos, *body, eos = stream.document_tokens(i)
        assert (bos, eos) == (0, 1)
        if begin not in body:
            assert BPE.decode(body) == text
            continue
        moved += 1
        assert body[0] == begin and [body.count(t) for t in BPE.fim_ids] == [1, 1, 1]
        prefix, suffix, middle = (
            body[1 : body.index(hole)],
            body[body.index(hole) + 1 : body.index(end)],
            body[body.index(end) + 1 :],
        )
        assert BPE.decode(prefix) + BPE.decode(middle) + BPE.decode(suffix) == text
    assert abs(moved / 2000 - 0.1) < 5 * (0.1 * 0.9 / 2000) ** 0.5  # five standard deviations
    assert stream.document_tokens(17) == PackedStream(
        Listed(texts), BPE, 99, fim_rate=0.1, seed=4
    ).document_tokens(17)


def test_bad_settings_are_one_sentence():
    with pytest.raises(ValueError, match="no fill-in-the-middle tokens"):
        PackedStream(CORPUS, TOKENIZER, 8, fim_rate=0.1)
    with pytest.raises(ValueError, match="length 0"):
        PackedStream(CORPUS, TOKENIZER, 0)
    with pytest.raises(ValueError, match="fim_rate is 2"):
        PackedStream(CORPUS, TOKENIZER, 8, fim_rate=2)
    with pytest.raises(ValueError, match="rows is 0"):
        PackedStream(CORPUS, TOKENIZER, 8).batch(0)
    with pytest.raises(ValueError, match="length 8, this one has 16"):
        PackedStream(CORPUS, TOKENIZER, 16).restore(PackedStream(CORPUS, TOKENIZER, 8).state())


def write_tree(folder):
    for name in [f"m{i}.py" for i in range(60)] + [
        "test/x.py",
        "site-packages/y.py",
        "pkg/tests/z.py",
        "notes.txt",
    ]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"# {name}\r\n".encode() + b"x = 1\n" * 20)


def test_text_corpus_splits_by_file_and_covers_every_character(tmp_path):
    write_tree(tmp_path)
    train, validation = (
        TextCorpus(split, folder=str(tmp_path), longest=50, validation_every=5)
        for split in ("train", "validation")
    )
    assert (
        not set(train.files) & set(validation.files)
        and len(train.files) + len(validation.files) == 60
    )
    assert list(train.files) == sorted(train.files) and 3 < len(validation.files) < 25
    assert all(len(text) <= 50 and text.endswith("\n") and "\r" not in text for text in train.texts)
    assert "".join(train.texts) == "".join(f"# {name}\n" + "x = 1\n" * 20 for name in train.files)


def test_text_corpus_reads_each_document_once_an_epoch_in_a_new_order(tmp_path):
    write_tree(tmp_path)
    corpus = TextCorpus(seed=2, folder=str(tmp_path), longest=50)
    n = len(corpus)
    epochs = [[corpus.document(e * n + i) for i in range(n)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(corpus.texts) and epochs[0] != epochs[1]
    assert corpus.document(3) == epochs[0][3]  # going back gives the same


def test_the_standard_library_is_there_and_large_enough():
    corpus = TextCorpus("validation")
    assert len(corpus.files) > 10 and sum(map(len, corpus.texts)) > 100_000
    assert not any("site-packages" in name or name.startswith("test/") for name in corpus.files)


def test_text_corpus_refuses_nonsense(tmp_path):
    with pytest.raises(ValueError, match=r"no \.py file"):
        _ = TextCorpus(folder=str(tmp_path)).files
    with pytest.raises(ValueError, match="split is 'test'"):
        TextCorpus("test")


def test_without_carry_every_row_begins_with_a_document_and_resumes_exactly():
    corpus = CountdownCorpus(make_task("countdown"), 3)
    tokenizer = number_tokenizer(corpus.task.tokenizer_words(), corpus.task.largest_number)
    whole = PackedStream(corpus, tokenizer, 100, carry=False, extra=1).batch(12)
    assert whole.shape == (12, 102) and (whole[:, 0] == tokenizer.bos_id).all()
    first = PackedStream(corpus, tokenizer, 100, carry=False, extra=1)
    begun = first.batch(5)
    second = PackedStream(corpus, tokenizer, 100, carry=False, extra=1)
    second.restore(first.state())
    assert torch.equal(torch.cat((begun, second.batch(7))), whole)
    with pytest.raises(ValueError, match="carry"):
        PackedStream(corpus, tokenizer, 100, extra=1).restore(first.state())
