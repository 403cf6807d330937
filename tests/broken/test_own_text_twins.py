"""Wrong twins of own text and of haystacks: mistakes of this kind that were made elsewhere, and the test that must then fail."""

import re

import numpy as np
import pytest

from deepwright.data import token_stream, tokens
from deepwright.data.token_stream import TokenStream
from deepwright.data.tokens import Encoder, Seen, Tokens, write_tokens
from deepwright.tasks import needle
from tests.broken.patched import must_reject
from tests.data import test_token_stream, test_tokens
from tests.tasks import test_needle


def sides(folder):
    with pytest.MonkeyPatch.context() as patch:
        test_tokens.test_every_document_once_whole_and_on_the_side_of_its_hash(folder, 100, patch)


def independent(folder):
    test_tokens.test_the_side_of_a_document_does_not_depend_on_the_others(folder)


def borders(folder):
    test_tokens.test_a_border_that_a_text_spells_is_no_border(folder)


def real():
    with pytest.MonkeyPatch.context() as patch:
        test_tokens.test_the_table_reads_real_text(patch)


def made(folder):
    write_tokens(test_tokens.documents(120), test_token_stream.TOKENIZER, folder / "t", shard=700)
    return Tokens(folder / "t")


def resumed(folder):
    check = test_token_stream.test_resume_anywhere_equals_the_unbroken_stream.hypothesis.inner_test
    for cut in range(3):
        check(made(folder) if cut == 0 else Tokens(folder / "t"), [2, 3, 1], cut, 0.5)


def ranks(folder):
    test_token_stream.test_ranks_read_together_what_one_reads_alone(made(folder), 2)


def epoch():
    check = test_token_stream.test_an_epoch_reads_every_token_once.hypothesis.inner_test
    for seed in range(4):
        check(331, 10, seed, 1)


def filled(folder):
    test_token_stream.test_fill_in_the_middle_keeps_every_token_of_a_part(folder)


def depth():
    test_needle.test_a_problem_is_a_text_of_that_length_with_its_number_at_that_depth(512)


def noted():
    test_needle.test_what_a_document_recalls_was_noted_before()


def shared():
    test_needle.test_texts_share_nothing_but_their_words()


def from_the_start(right):
    def restore(self, state):
        right(self, state)
        self.position = 0

    return restore


def in_order_of_position(right):
    """A generator that is drawn from as rows are read: nobody else can tell which row comes next."""
    drawn = np.random.default_rng(0)

    def row(self, position):
        return right(self, int(drawn.integers(1 << 20)))

    return row


def with_replacement(right):
    return lambda place, size, seed, epoch: right(place, size, seed, epoch) * 7 % size // 2


def holes_for_ends(right):
    """The two marks change places: what is filled in and what follows it do, too."""

    def rearranged(self, row, position):
        found, (_, hole, end) = right(self, row, position), self.tokenizer.fim_ids
        return np.where(found == hole, end, np.where(found == end, hole, found))

    return rearranged


def by_turn(right):
    """The side by the place in the file: another file before it moves every document."""
    count = iter(range(1 << 30))
    return lambda text: (next(count) % 10 == 0 and 1) or (1 << 63) + next(count)


def never_seen(right):
    return lambda self, hashes: np.ones(len(hashes), bool)


def reads_specials(right):
    def encode(self, texts):
        self.backend.encode_special_tokens = False
        yield from right(self, texts)

    return encode


def blanks_before_numbers(right):
    """The pattern without knowing that numbers are cut out first."""
    return re.compile(right.pattern.replace("(?![^\\s0-9])", "(?!\\S)"), re.ASCII)


def always_first(right):
    return lambda hay, words: 0


def one_key_each(right):
    """Numbers that belong to their names, whatever the text: they can be learned by heart."""

    def statement(self, rng, known):
        words = right(self, rng, known)
        name = words[1]
        known[name] = needle.NAMES.index(name) % needle.KEYS
        return [words[0], name, str(known[name]), "."]

    return statement


def another_number(right):
    def recalled(word, rng, known):
        word, name, number = right(word, rng, known)
        return [word, name, str((int(number) + 1) % needle.KEYS)]

    return recalled


@pytest.mark.parametrize(
    "check, owner, name, wrong",
    [
        (resumed, TokenStream, "restore", from_the_start),
        (resumed, TokenStream, "row", in_order_of_position),
        (ranks, TokenStream, "row", in_order_of_position),
        (epoch, token_stream, "permuted", with_replacement),
        (filled, TokenStream, "_rearranged", holes_for_ends),
        (sides, tokens, "_hash", by_turn),
        (independent, tokens, "_hash", by_turn),
        (sides, Seen, "new", never_seen),
        (borders, Encoder, "__call__", reads_specials),
        (real, tokens, "ASCII_WORDS", blanks_before_numbers),
        (depth, needle, "_nearest", always_first),
        (shared, needle.Needle, "_statement", one_key_each),
        (noted, needle, "_recalled", another_number),
    ],
)  # fmt: skip
def test_a_wrong_twin_is_rejected(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
