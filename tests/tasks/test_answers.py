"""Where an answer stands, and when it equals a reference."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.tasks.answers import (
    bare,
    braced,
    digest,
    is_words,
    last_boxed,
    number,
    plain,
    read_boxed,
    refused,
    same_number,
)


@pytest.mark.parametrize(
    "completion, answer",
    [
        (r"3 + 4 = 7. \boxed{7}", "7"),
        (r"\boxed{7}", "7"),
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"<think> 3 + 4 </think> \boxed{7}", "7"),
        (r"3 + 4 </think> \boxed{7}", "7"),  # the prompt opened the thought
        (r"<think> is it \boxed{8}? no </think> \boxed{7}", "7"),  # boxes in a thought are thoughts
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\\}", r"\\"),  # an escaped backslash does not escape the brace
    ],
)
def test_one_box(completion, answer):
    assert read_boxed(completion)[1] == answer


@pytest.mark.parametrize(
    "completion, said",
    [
        ("7", "0 times"),
        (r"\boxed{7} \boxed{7}", "2 times"),
        (r"\boxed{7} \boxed{8}", "2 times"),
        (r"\boxed{\boxed{7}}", "2 times"),
        (r"<think></think>\boxed{7}", "thought is empty"),
        ("<think> \n </think>\\boxed{7}", "thought is empty"),
        (r"</think>\boxed{7}", "thought is empty"),
        (r"<think> \boxed{7} </think>", "after the thought"),
        (r"\boxed{7} <think> so </think>", "before the thought"),
        (r"<think> so </think> <think> so </think> \boxed{7}", "2 times"),
        (r"<think> so \boxed{7}", "thought that ends"),
        (r"so </think> <think> \boxed{7}", "before the thought"),
        (r"\boxed{7", "balanced"),
        (r"\boxed{{7}", "balanced"),
        (r"\boxed7", "balanced"),
        (r"\boxed{7\}", "balanced"),
        (r"\boxed{ }", "is empty"),
    ],
)
def test_other_layouts_are_refused(completion, said):
    assert said in read_boxed(completion)


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "\\boxed{", "\\boxed", "{", "}", "\\", "7", " "])
    ).map("".join)
)
def test_every_text_gets_an_answer_or_a_reason(text):
    found = read_boxed(text)
    assert isinstance(found, str) or (found[1].strip() and f"\\boxed{{{found[1]}}}" in text)


@pytest.mark.parametrize(
    "text, value",
    [
        ("7", 7), ("-7", -7), ("+7", 7), ("007", 7), ("7.50", Fraction(15, 2)), (".5", Fraction(1, 2)), ("1,234,567", 1234567), ("1{,}000", 1000),
        ("1/2", Fraction(1, 2)), ("-3/6", Fraction(-1, 2)), (r"\frac{3}{4}", Fraction(3, 4)), (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"\frac34", Fraction(3, 4)), ("$7$", 7), ("\\$ 5", 5), (" 7. ", 7), (r"\frac{-1}{2}", Fraction(-1, 2)),
        ("", None), ("-", None), (".", None), ("3 + 4", None), ("7 7", None), ("1,23", None), ("1/0", None), ("٧", None), ("７", None), ("7e3", None),
        ("0x7", None), ("7_000", None), ("nan", None), ("inf", None), ("x", None), ("7\0", None), ("9" * 401, None), ("1/2/3", None), ("12", 12),
    ],
)  # fmt: skip
def test_numbers(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "answer, reference, same",
    [
        ("7", "7", True), ("7.0", "7", True), ("x = 7", "7", True), (r"7\text{ dollars}", "7", True), ("12", r"12\%", True), ("0.5", r"\frac12", True),
        ("8", "7", False), ("3+4", "7", False), ("5 or 7", "7", False), ("5, 7", "7", False), ("5=7", "7", False), ("7=7", "7", False),
        ("7%", "7", False), (r"7 \pm 0", "7", False), ("77", "7", False), ("x^2", "x^2", None), ("Paris", "Paris", None),
    ],
)  # fmt: skip
def test_numbers_are_compared_exactly(answer, reference, same):
    assert same_number(answer, reference) is same


def test_words():
    assert (
        is_words("Paris")
        and is_words(r"\text{(B)}")
        and is_words("New York")
        and not is_words("x^2")
        and not is_words("7")
        and not is_words("")
    )
    assert plain(r"\text{New  York.}") == plain("new york") and plain("(B)") == "b"
    assert plain("Pairs") != plain("Paris")
    assert bare("x_1 = 5") == " 5".strip() or number(bare("x_1 = 5")) == 5


def test_references():
    assert (
        last_boxed(r"First \boxed{1}, so \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
        and last_boxed("none") is None
    )
    assert braced("{a{b}c}d") == "a{b}c" and braced("x") is None
    assert (
        digest("a") == 0xCA978112CA1BBDCA
    )  # the first 8 bytes of sha256("a"): no machine splits otherwise


@pytest.mark.parametrize(
    "answer, said",
    [
        ("9**9**9", "exponent"), ("9^{9^{9}}", "exponent"), ("2^{1000000}", "exponent"), ("x" * 2001, "longer"), ("9" * 400, "longer"),
        ("x = y = 2", "equation"), ("5 or 7", "words beside"), ("Expand $x$. x^2+2x", "more than one formula"), ("maybe x^2+2x", "words beside"),
        ("x^2+2x\0", "nobody sees"),
        ("(x+1)^2 - 1", "repeats"), ("(x + 1)^2-1", "repeats"), ("٣x", "another script"),
        ("nan", "no finite"), ("x^2+2x", ""), ("2^{10}", ""), (r"\frac{\sqrt{2}}{2}", ""), ("sqrt(2)", ""), (r"\sin x", ""),
        (r"2\text{ metres}", ""), ("$x(x+2)$", ""),
    ],
)  # fmt: skip
def test_what_no_verifier_is_shown(answer, said):
    found = refused(answer, "x^2+2x", "Expand (x+1)^2 - 1.")
    assert said in found if said else not found
