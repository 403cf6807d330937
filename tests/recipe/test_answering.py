"""A prompt answered piece by piece: what is streamed is what would have been generated, and what was cut is named."""

import pytest

from deepwright.cli import main
from deepwright.recipe.answering import cut, open_engine, stopping, stream_ids, stream_text
from deepwright.sampler import Sampling
from tests.recipe.player import PROMPT, save_player


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained model."""
    return save_player(tmp_path_factory.mktemp("models") / "small")


def test_streamed_text_is_the_generated_text(folder):
    engine, tokenizer, place = open_engine(str(folder), 1)
    assert place == folder
    sampling = stopping(Sampling(40, seed=5), tokenizer)
    prompt = tokenizer.encode_prompt(PROMPT)
    whole = engine.sample([prompt], sampling)[0][0].token_ids
    assert tuple(stream_ids(engine, prompt, sampling)) == whole
    text = "".join(stream_text(tokenizer, stream_ids(engine, prompt, sampling)))
    assert text == tokenizer.decode(whole)


def test_stream_that_is_left_early_frees_the_engine(folder):
    engine, tokenizer, _ = open_engine(str(folder), 1)
    stream = stream_ids(engine, tokenizer.encode_prompt(PROMPT), Sampling(40))
    next(stream)
    stream.close()
    assert not engine.has_work


class Bytes:
    """A tokenizer whose ids are bytes, so that one character may need several."""

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


def test_half_a_character_waits_for_its_other_half():
    text = "aß €\N{GRINNING FACE}z"
    pieces = list(stream_text(Bytes(), iter(text.encode())))
    assert "".join(pieces) == text and "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_text_cut_inside_a_character_is_not_lost():
    text = "".join(stream_text(Bytes(), iter("ab€".encode()[:-1])))
    assert text == "ab\N{REPLACEMENT CHARACTER}"


def test_where_an_answer_was_cut():
    sampling = Sampling(5, stop_ids=(1, 2))
    assert cut((7, 7, 2), sampling, 100) == ""
    assert cut((7, 7, 7, 7, 2), sampling, 100) == ""  # the last token allowed is an end
    assert cut((7,) * 5, sampling, 100) == "cut at 5 tokens: --max-tokens N allows more"
    assert cut((7,) * 3, sampling, 2048) == "cut after 3 tokens, where the context of 2,048 ends"


def test_generate_marks_what_is_cut_beside_its_text(folder, capsys):
    few = ["--max-tokens", "3", "--threads", "1", "--n", "2"]
    assert main(["generate", str(folder), PROMPT, *few]) == 0
    said = capsys.readouterr()
    assert said.err == "[cut at 3 tokens: --max-tokens N allows more]\n" * 2
    assert len(said.out.splitlines()) == 2 and "cut" not in said.out
    long = PROMPT + " 5" * 500
    assert main(["generate", str(folder), long, "--threads", "1", "--temperature", "0"]) == 0
    assert "where the context of 512 ends]" in capsys.readouterr().err
