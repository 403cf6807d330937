"""The incremental parser equals the parse of the whole text, wherever the text is cut, and the parse equals the rules written as one pattern."""

import random
import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwright.text.thoughts import Delta, ThoughtParser, ends_in_thought, split_thought

PARTS = [
    "<think>",
    "</think>",
    "<",
    "</",
    "<thi",
    "nk>",
    "</thin",
    "think>",
    ">",
    "\n",
    " ",
    "\u2003",
    "a",
    "é",
    "日本",
    "\U0001f642",
    "\u0301",
    "<answer>",
]
HOSTILE = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=14).map("".join)


def reference(text: str, inside: bool) -> Delta:
    """The stated rules as a regular expression over the whole text."""
    opened = re.match(r"\s*<think>", text)
    if not opened and not inside:
        return Delta("", text)
    rest = text[opened.end() :] if opened else text
    found = re.fullmatch(r"(.*?)</think>(.*)", rest, re.DOTALL)
    return Delta(*found.groups()) if found else Delta(rest, "")


def streamed(text: str, cuts: list[int], inside: bool) -> Delta:
    parser = ThoughtParser(inside)
    borders = [0, *sorted(cut for cut in cuts if cut <= len(text)), len(text)]
    deltas = [*(parser.feed(text[start:end]) for start, end in pairwise(borders)), parser.finish()]
    return Delta(
        "".join(delta.reasoning for delta in deltas), "".join(delta.content for delta in deltas)
    )


@settings(max_examples=600)
@given(HOSTILE, st.booleans())
def test_every_split_point_and_every_character_alone(text, inside):
    expected = reference(text, inside)
    assert split_thought(text, inside) == expected
    assert streamed(text, list(range(len(text))), inside) == expected
    for cut in range(len(text) + 1):
        assert streamed(text, [cut], inside) == expected


@settings(max_examples=400)
@given(HOSTILE, st.lists(st.integers(0, 60)), st.booleans())
def test_any_pieces_empty_ones_included(text, cuts, inside):
    assert streamed(text, cuts, inside) == reference(text, inside)


def test_ten_thousand_hostile_streams():
    draw, thoughts = random.Random(0), 0
    for _ in range(10_000):
        text = "".join(draw.choices(PARTS, k=draw.randrange(12)))
        inside, cuts = draw.random() < 0.5, [draw.randrange(60) for _ in range(draw.randrange(8))]
        expected = reference(text, inside)
        thoughts += bool(expected.reasoning and expected.content)
        assert streamed(text, cuts, inside) == split_thought(text, inside) == expected, (
            text,
            cuts,
            inside,
        )
    assert thoughts > 500  # the streams do have both


@settings(max_examples=300)
@given(HOSTILE, st.booleans())
def test_nothing_is_emitted_that_is_taken_back(text, inside):
    """What was emitted so far is a beginning of the result, and less than a tag waits."""
    parser, expected, so_far = ThoughtParser(inside), reference(text, inside), ["", ""]
    for n, character in enumerate(text):
        delta = parser.feed(character)
        so_far = [so_far[0] + delta.reasoning, so_far[1] + delta.content]
        assert expected.reasoning.startswith(so_far[0]) and expected.content.startswith(so_far[1])
        waiting = sum(map(len, split_thought(text[: n + 1], inside))) - sum(map(len, so_far))
        # blanks wait until it is known what they precede
        assert waiting < len("</think>") or not text[: n + 1].strip("< think").strip()


@pytest.mark.parametrize(
    "text, inside, reasoning, content",
    [
        ("<think>a</think>b", False, "a", "b"),
        ("\n <think>\na\n</think>\n\nb", False, "\na\n", "\n\nb"),
        ("a</think>b", True, "a", "b"),  # the prompt ended with the tag
        ("<think>\na</think>b", True, "\na", "b"),  # and the model repeats it
        ("a</think>b", False, "", "a</think>b"),  # never opened: ordinary text
        ("no tags", False, "", "no tags"),
        ("no tags", True, "no tags", ""),
        ("<think>unclosed", False, "unclosed", ""),
        ("<think>a</thi", False, "a</thi", ""),
        ("<think>a<think>b</think>c</think>d", False, "a<think>b", "c</think>d"),
        ("<think></think>", False, "", ""),
        (
            "x <think>a</think>",
            False,
            "",
            "x <think>a</think>",
        ),  # text before it: a tag in the content
        ("<think>a</think>b<think>c</think>d", False, "a", "b<think>c</think>d"),
        ("<thi", False, "", "<thi"),
        ("  ", False, "", "  "),
        ("  ", True, "  ", ""),
        ("", True, "", ""),
    ],
)
def test_the_stated_rules(text, inside, reasoning, content):
    assert split_thought(text, inside) == reference(text, inside) == (reasoning, content)


def test_it_says_whether_a_thought_is_open():
    parser = ThoughtParser(ends_in_thought("<｜Assistant｜><think>\n"))
    assert parser.inside
    parser.feed("a</think")
    assert parser.inside
    parser.feed(">")
    assert not parser.inside


def test_where_a_prompt_ends():
    assert ends_in_thought("q<think>") and ends_in_thought("q<think>\n\n ")
    assert (
        not ends_in_thought("what does <think> mean?<｜Assistant｜>")
        and not ends_in_thought("<think>\n\n</think>\n\n")
        and not ends_in_thought("")
    )


def test_other_tags():
    parser = ThoughtParser(opening="[THINK]", closing="[/THINK]")
    assert parser.feed("[THINK]a</think>[/TH") == ("a</think>", "") and parser.feed("INK]b") == (
        "",
        "b",
    )


@pytest.mark.parametrize(
    "text", [" " * 200_000, "<" * 200_000, "<think>" + "</think" * 30_000, "<think>" * 30_000]
)
def test_time_is_linear_in_the_text(text):
    begun = time.process_time()
    assert streamed(text, list(range(len(text))), False) == reference(text, False)
    assert time.process_time() - begun < 5  # 200,000 pieces; quadratic work would take minutes
