"""The answer grammar against Python's own arithmetic on Fractions, and hostile answers against the clock."""

import re
import time
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.tasks.expression import ExpressionError, all_trees, evaluate, written

NUMBER = st.integers(0, 50).map(str)
VALID = st.recursive(
    NUMBER,
    lambda inner: st.one_of(
        inner.map(lambda text: f"( {text} )"),
        st.tuples(inner, st.sampled_from(["+", " - ", " *", "/ "]), inner).map(
            "".join
        ),  # without parentheses: precedence decides
    ),
    max_leaves=12,
)


def python_value(text):
    """Python refuses zeros before a number, which mean nothing."""
    return eval(re.sub(r"0*(\d+)", r"Fraction(\1)", text), {"Fraction": Fraction})


@given(VALID)
def test_value_and_numbers_equal_pythons(text):
    try:
        wanted = python_value(text)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="zero"):
            evaluate(text)
        return
    value, numbers = evaluate(text)
    assert value == wanted and numbers == [int(n) for n in re.findall(r"\d+", text)]


@given(st.text(alphabet="0123456789+-*/() "))
def test_whatever_is_accepted_means_what_python_means(text):
    try:
        value, _ = evaluate(text)
    except ExpressionError:
        return
    assert value == python_value(text.strip())


def test_zeros_before_a_number_mean_nothing():
    assert evaluate("007 - 00 * 10")[0] == python_value("007 - 00 * 10") == 7


@pytest.mark.parametrize(
    "text",
    ["", " ", "+", "3 +", "3 4", "( 3", "3 )", "()", "-3", "+ 3", "3 ** 2", "3 // 2", "2(3)", "3.5", "1e3", "0x1", "1_0", "²", "٣ + ٤",
     "３", "3 × 4", "a", "3 + __import__('os')", "3\x00", "3\u00a0+ 4", "1234567890", "1 / 0", "1 / ( 2 - 2 )", "( 3 + 4 ) )", "3 = 3"],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(ExpressionError):
        evaluate(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000 + "1" + ")" * 100_000,
        "9" * 1_000_000,
        "1 + " * 300_000 + "1",
        " " * 1_000_000,
        "9*" * 250 + "9",
    ],
)
def test_length_is_bounded_before_anything_is_parsed(text):
    start = time.process_time()
    with pytest.raises(ExpressionError):
        evaluate(text)
    assert (
        time.process_time() - start < 0.2
    )  # a thousandth of this in practice; the processor's time, not the clock's


def test_enumeration_finds_exactly_what_brute_force_finds():
    """Brute force: every order, every operator pair, both shapes, all values within 0..99."""
    for numbers in [(1, 1, 1), (2, 3, 3), (4, 7, 10), (1, 5, 9), (10, 10, 10)]:
        wanted = set()
        for (a, b, c), (o1, o2) in product(permutations(numbers), product("+-*", repeat=2)):
            for inner, outer in (
                (f"{a}{o1}{b}", f"({a}{o1}{b}){o2}{c}"),
                (f"{b}{o2}{c}", f"{a}{o1}({b}{o2}{c})"),
            ):
                if 0 <= eval(inner) <= 99 and 0 <= eval(outer) <= 99:
                    wanted.add(eval(outer))
        trees = all_trees(numbers, "+-*", 99)
        assert {tree[0] for tree in trees} == wanted and len(set(trees)) == len(trees)


@given(
    st.lists(st.integers(1, 10), min_size=2, max_size=4).map(sorted).map(tuple),
    st.integers(0, 7),
    st.data(),
)
def test_what_is_written_down_is_true(numbers, flips, data):
    tree = data.draw(st.sampled_from(all_trees(numbers, "+-*/", 99)))
    equations, expression = written(tree, flips)
    value, used = evaluate(expression)
    assert value == tree[0] and sorted(used) == list(numbers)
    for equation in equations:
        left, right = equation.split(" = ")
        assert evaluate(left)[0] == int(right) and 0 <= int(right) <= 99
    assert len(equations) == len(numbers) - 1 and equations[-1].endswith(f"= {tree[0]}")
