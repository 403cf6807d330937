"""How the worker compares expressions: exactly, symmetrically, and nowhere by a fixed number of places."""

import importlib.util
import time
from pathlib import Path

import pytest

from deepwright.tasks import worker as beside

pytest.importorskip("math_verify", reason="the extra `tasks` is not installed")


@pytest.fixture(scope="module")
def worker():
    """The script as a verifier process runs it: on its own."""
    spec = importlib.util.spec_from_file_location("worker_alone", Path(beside.__file__))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EQUAL = [
    ("x(x+2)", "x^{2}+2x"), (r"\sqrt{2}\sqrt{3}", r"\sqrt{6}"), (r"\frac{1}{2^{99}}", "2^{-99}"), (r"x^{n+1}", r"x\cdot x^{n}"),
    (r"\sin^{2}x+\cos^{2}x", "1"), (r"\frac{1}{i}", "-i"), (r"e^{i\pi}", "-1"), (r"\frac{10\sqrt{10.5}}{27}", r"\frac{5\sqrt{42}}{27}"),
    ("0.1+0.2", "0.3"), (r"\sqrt{x^{2}}", "|x|"), (r"\sqrt{x}\sqrt{y}", r"\sqrt{xy}"), (r"\ln x^{2}", r"2\ln x"), (r"n!", "n(n-1)!"),
    (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"), (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"), ("10^{50}+1", "1+10^{50}"), ("x-x", "y-y"),
]  # fmt: skip
UNEQUAL = [
    ("10^{-20}", "10^{-21}"), (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), ("10^{50}+1", "10^{50}"), (r"\sqrt{10^{100}+1}", "10^{50}"),
    ("x", "x+10^{-50}"), ("1", "1-10^{-30}"), ("e^{-20}", "0"), (r"\sqrt{2}\cdot 10^{-9}", r"\sqrt{3}\cdot 10^{-9}"), (r"\sqrt{x^{2}}", "x"),
    ("A", "a"), ("x_{1}", "x_{2}"), ("E", "e"), ("x", "-x"), ("x^{2}", "x^{3}"), ("x", "y"), ("0", "x"), (r"\lfloor x\rfloor", r"\lceil x\rceil"),
    ("3-2i", "3+2i"), (r"\frac{1}{x}", r"\frac{1}{x+1}"), (r"\pi", "3.14159265358979"), (r"\pi", r"\frac{22}{7}"), ("2^{n-1}", "2^{n}-1"),
]  # fmt: skip


@pytest.mark.parametrize(
    "one, other, same", [(*p, True) for p in EQUAL] + [(*p, False) for p in UNEQUAL]
)
def test_equal_or_not_whichever_stands_first(worker, one, other, same):
    assert (
        worker.verify_math({"pairs": [["equal", one, other], ["equal", other, one]]}) == [same] * 2
    )


@pytest.mark.parametrize(
    "one, other, proportional, positive",
    [
        ("(2x-y+1)-(0)", "(y)-(2x+1)", True, False),
        ("(x)-(2)", "(3x)-(6)", True, True),
        ("(x)-(2)", "(-3x)-(-6)", True, False),
        ("(x)-(2)", "(x)-(3)", False, False),
        ("(x)-(2)", "(x^{2})-(4)", False, False),
        ("(x)-(2)", "0", False, False),
        ("3", "4", True, True),
    ],
)
def test_in_proportion(worker, one, other, proportional, positive):
    pairs = [
        [how, *two] for how in ("proportional", "positive") for two in ((one, other), (other, one))
    ]
    assert worker.verify_math({"pairs": pairs}) == [proportional] * 2 + [positive] * 2


def test_decimals_of_many_digits(worker):
    asked = [
        ("1.41421356237", True),
        ("1.41421356238", False),
        ("1.4142135623730951", True),
        ("1.41421356236", False),
        ("1.4142135623731951", False),
        ("1.4142135623730950999", False),
    ]
    for decimal, near in asked:
        places = len(decimal.partition(".")[2])
        assert worker.verify_math({"pairs": [[f"within {places}", decimal, r"\sqrt{2}"]]}) == [near]
    assert worker.verify_math({"pairs": [["within 9", "1.000000000", "x"]]}) == [False]


@pytest.mark.parametrize(
    "one, other, same",
    [
        (r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R}\setminus\{0\}", True),
        (r"(0,1]\cup(1,2)", "(0,2)", True),
        (r"(0,1)\cup(1,2)", "(0,2)", False),
        (r"\{10^{-20}\}\cup[3,4]", r"\{10^{-21}\}\cup[3,4]", False),
        (r"\emptyset", r"\mathbb{R}", False),
    ],
)
def test_sets(worker, one, other, same):
    assert worker.verify_math({"pairs": [["sets", one, other], ["sets", other, one]]}) == [same] * 2


def test_a_reference_that_cannot_be_read_is_named_and_an_answer_is_wrong(worker):
    assert worker.verify_math({"pairs": [["equal", r"\frac{", "x"]]}) == [False]
    with pytest.raises(ValueError, match=r"cannot read the reference '\\\\frac\{'"):
        worker.verify_math({"pairs": [["equal", "x", r"\frac{"]]})


def test_a_comparison_takes_milliseconds(worker):
    """3 ms where both are read already, measured; reading takes ten times that."""
    worker.verify_math({"pairs": [["equal", *pair] for pair in EQUAL]})
    start = time.process_time()
    worker.verify_math({"pairs": [["equal", *pair] for pair in EQUAL + UNEQUAL]})
    assert time.process_time() - start < 10
