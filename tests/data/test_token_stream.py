"""Rows of tokens: every one once in an epoch, a function of (seed, position), resumed exactly, the same at any world size."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepwright.data import TokenStream, sequential
from deepwright.data.texts import Text
from deepwright.data.token_stream import permuted
from deepwright.data.tokens import Tokens, write_tokens
from deepwright.text import train_bpe
from tests.data.test_packing import resumed_as_unbroken
from tests.data.test_tokens import documents

TOKENIZER = train_bpe(["the quick brown fox"] * 3, 320)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens") / "t"
    write_tokens(documents(200), TOKENIZER, folder, shard=700)
    return Tokens(folder)


@given(st.integers(1, 300), st.integers(0, 9), st.integers(0, 3))
def test_a_permutation_of_any_size(size, seed, epoch):
    assert sorted(permuted(n, size, seed, epoch) for n in range(size)) == list(range(size))


def test_its_order_looks_like_chance():
    """Neighbours land far apart, and other seeds and epochs mean other orders."""
    orders = [
        [permuted(n, 4000, seed, epoch) for n in range(4000)]
        for seed, epoch in [(0, 0), (1, 0), (0, 1)]
    ]
    for order in orders:
        steps = [abs(a - b) for a, b in pairwise(order)]
        assert 0.9 < np.mean(steps) / (4000 / 3) < 1.1  # a third of the range, by chance
        assert abs(np.corrcoef(order, range(4000))[0, 1]) < 5 / 4000**0.5
    assert orders[0] != orders[1] != orders[2] != orders[0]


class Numbers:
    """Tokens that say where they stand."""

    folder, split, manifest = "", "train", {"tokenizer": ""}

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def read(self, start, count):
        assert start >= 0 and start + count <= self.count
        return np.arange(start, start + count)


@given(st.integers(2, 400), st.integers(1, 40), st.integers(0, 3), st.integers(0, 2))
def test_an_epoch_reads_every_token_once(count, length, seed, epoch):
    """But for what is too short for a row at the begin and at the end."""
    if count <= length:
        return
    stream = TokenStream(Numbers(count), TOKENIZER, length, seed=seed)
    rows = [stream.row(epoch * stream.rows + n) for n in range(stream.rows)]
    starts = sorted(int(row[0]) for row in rows)
    assert all(row.tolist() == list(range(row[0], row[0] + length + 1)) for row in rows)
    assert starts == list(range(starts[0], starts[0] + length * stream.rows, length))
    left_out = count - 1 - length * stream.rows
    assert left_out < 2 * length and starts[0] <= left_out


def test_rows_begin_elsewhere_in_each_epoch():
    stream = TokenStream(Numbers(4000), TOKENIZER, 100)
    begins = {
        min(int(stream.row(e * stream.rows + n)[0]) for n in range(stream.rows)) for e in range(20)
    }
    assert len(begins) > 12 and max(begins) > 60


@pytest.mark.invariant
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.5]),
)
def test_resume_anywhere_equals_the_unbroken_stream(tokens, rows, cut, fim_rate):
    def fresh():
        return TokenStream(tokens, TOKENIZER, 16, seed=9, fim_rate=fim_rate)

    resumed_as_unbroken(fresh, rows, cut)


@pytest.mark.invariant
@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_read_together_what_one_reads_alone(tokens, world):
    alone = TokenStream(tokens, TOKENIZER, 16, seed=1).batch(8)
    parts = [
        [TokenStream(tokens, TOKENIZER, 16, seed=1).row(n) for n in range(rank, 8, world)]
        for rank in range(world)
    ]
    together = [parts[n % world][n // world] for n in range(8)]
    assert torch.equal(torch.from_numpy(np.stack(together)), alone)


def test_another_stream_is_not_gone_on_with(tokens):
    saved = TokenStream(tokens, TOKENIZER, 16).state()
    for other in ({"length": 17}, {"length": 16, "seed": 1}, {"length": 16, "fim_rate": 0.5}):
        with pytest.raises(ValueError, match="of the saved stream is"):
            TokenStream(tokens, TOKENIZER, **other).restore(saved)


def test_fill_in_the_middle_keeps_every_token_of_a_part(tmp_path):
    """Each document lies in a row alone, so what is rearranged is it, as prefix, suffix, middle."""
    begin, hole, end = TOKENIZER.fim_ids
    text = Text("", "the quick brown fox the quick brown fox")
    write_tokens([text, Text("", "fox")], TOKENIZER, tmp_path / "t", held_out=0)
    tokens = Tokens(tmp_path / "t")
    body = TOKENIZER.encode(text.text)
    stream = TokenStream(tokens, TOKENIZER, len(tokens) - 1, seed=2, fim_rate=1.0)
    rearranged = 0
    for position in range(20):
        row = stream.row(position).tolist()
        assert len(row) == len(tokens)
        start = row.index(begin) + 1
        assert row[:start] == [TOKENIZER.bos_id, begin]
        first, second = row.index(hole, start), row.index(end, start)
        prefix, suffix = row[start:first], row[first + 1 : second]
        middle = row[second + 1 : second + 1 + len(body) - len(prefix) - len(suffix)]
        assert prefix + middle + suffix == body
        assert row[second + 1 + len(middle)] == TOKENIZER.eos_id
        rearranged += prefix + suffix + middle != body
    assert rearranged > 10


def test_a_share_of_the_parts_is_rearranged(tokens):
    stream = TokenStream(tokens, TOKENIZER, 64, fim_rate=0.1)
    begin = TOKENIZER.fim_ids[0]
    rows = [stream.row(n) for n in range(600)]
    found = sum(int((row == begin).sum()) for row in rows)
    parts = sum(
        len(stream.tokens.read(0, 1)) + int((row == TOKENIZER.eos_id).sum()) for row in rows
    )
    assert 0.05 < found / parts < 0.15


def test_validation_reads_the_split_in_its_order(tokens):
    rows = sequential(tokens, 16, 5)
    assert rows.shape == (5, 17)
    assert rows[:, :-1].flatten().tolist() == tokens.read(0, 80).tolist()
    assert torch.equal(rows[:-1, -1], rows[1:, 0])
    assert sequential(tokens, 1 << 40, 5).shape == (1, len(tokens))


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"length": 0}, "length is 0"),
        ({"length": 1 << 40}, "the number of tokens of the split train"),
        ({"length": 4, "fim_rate": 2}, "fim_rate is 2"),
    ],
)
def test_what_cannot_be_read(tokens, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        TokenStream(tokens, TOKENIZER, **settings)
