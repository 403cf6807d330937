"""When an answer equals a reference: the judge of mathematical answers, and its rules.

A text is brought into one way of writing (`normal_form.py`), read as a value of one kind
(`values.py`), and compared with the reference kind by kind (`comparing.py`); where two expressions
meet, math-verify reads them in a worker and they are compared there, exactly. Nothing that a model
wrote is run. The rules:

- *Dressing says nothing*: formula signs, LaTeX styles and sizes, brackets around the whole, "x ="
  or "the answer is" before it, a full stop, full-width and Chinese signs.
- *A reference that is a number wants a number*, written out: 1,200, 1 200, 1{,}200, 3/4, 1\\frac12,
  1.2\\times10^6, 0.\\overline{3}, 5 million. "3 + 4", "\\sqrt{25}", "5 or 7" are none; "m + n = 7"
  is, with what was asked before it. Numbers are equal exactly. Two decimals may stand for a
  fraction that none is equal to: one of ten digits or more, as machines print it, and a reference
  of three places or more that is the rounding of a fraction so simple that no other is near
  (0.667 is met by 2/3, never 2/3 by 0.667).
- *Units*: one that either side leaves out is not missed. Two are compared by what they measure:
  5 m is 500 cm, and neither 5 km nor 5 apples. \\$, 元, ° and nouns are units. An angle in degrees
  is none in radians.
- *Percent*: 28% is met by 28 and by 0.28; 28 by 28% only where a percentage is asked for.
- *Bases*: 10_2 is 10_2; the base may be left out where the question names one.
- *Times and ratios*: 3:30 is no 1:10; 2:4 is 1:2 and 1/2.
- *Lists and sets* have no order and no repeats, *tuples* have an order, and so has a list that
  meets a tuple or values of different names. A set is no tuple. *Matrices* are compared in any
  environment, a column with a tuple as well.
- *Intervals* compare their brackets too. A relation is met by the interval that it means; what is
  asked as an interval wants one.
- *Words* are equal without case and marks; one letter of A to J is a choice, in or without
  brackets, before its text or behind "option"; several are a list (ACD). An expression of letters (p - q, ab) is no word.
- *Expressions* are equal when they agree at points where both are real, to hundreds of digits; an
  equation also when it is a multiple of the other. Letters keep their case, and a sign that the
  parser would pass over is compared as written. "x = 5" is 5, in a chain the last value; what
  follows \\approx is a remark. y = 5 is not x = 5.
- *Never right*: text beyond 2,000 characters, numbers of 400 digits, brackets 40 deep, towers of
  powers, digits of other scripts, signs that nobody sees, nan, an ellipsis or the question again,
  unless the reference has it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from deepwright.tasks.chosen import is_choice
from deepwright.tasks.comparing import Comparison, Query
from deepwright.tasks.completions import braced as braced  # what reads references looks here
from deepwright.tasks.completions import last_boxed as last_boxed
from deepwright.tasks.normal_form import UNSEEN, depths, normal
from deepwright.tasks.values import Value, canonical, read, words

MAX_ANSWER = 2_000  # characters; a longer one is wrong unseen
MAX_WORDS = 20  # of a reference that is words: more than these no two people write alike
MAX_EXPONENT = 6  # digits: a power with so long an exponent, or a tower, is nobody's answer
_STRANGE = (
    ("digits of another script", re.compile(r"(?![0-9])[\d²³¹⁰-⁹₀-₉]")),
    ("no finite number", re.compile(r"(?i)\b(?:nan|inf|infinity)\b")),
    ("characters that nobody sees", UNSEEN),
)
_TOWER = re.compile(rf"\^ ?\{{? ?-?(?:[0-9]{{{MAX_EXPONENT},}}|[0-9]+ ?\}}? ?\^)")
# No renderer takes a formula sign before a line's end for the beginning of an inline formula.
_BROKEN_FORMULA = re.compile(r"\\\([ \t]*\n|^[^$]*(?<!\\)\$(?!\$)[ \t]*\n")
_ELLIPSIS = re.compile(r"\\[a-z]?dots|\.\.\.|[…⋯]")


@dataclass(frozen=True)
class Judgement:
    """`right`: None where it depends on what is `asked` of math-verify."""

    right: bool | None
    detail: str
    asked: tuple[Query, ...] = ()


def judge_answer(
    answer: str, reference: str, question: str = "", known: Mapping[Query, bool] | None = None
) -> Judgement:
    """Whether an answer is right by the rules above. `known`: answers to what was asked before."""
    if why := refused(answer, reference, question):
        return Judgement(False, why)
    if why := judgeable(reference):
        return Judgement(False, f"the reference cannot be judged: {why}")
    comparison = Comparison(question, known or {})
    one, other = read(answer), read(reference)
    right = comparison.same(one, other)
    if right is None:
        return Judgement(None, "for math-verify", tuple(comparison.asked))
    how = " by math-verify" if known else ""
    return Judgement(right, f"{one.kind}, for the reference's {other.kind}, compared{how}")


def refused(answer: str, reference: str, question: str) -> str:
    """Why an answer is not looked at, or ''."""
    if len(answer) > MAX_ANSWER or re.search(r"[0-9]{400}", answer):
        return f"longer than {MAX_ANSWER} characters or 400 digits"
    try:
        said = normal(answer)
    except ValueError as error:
        return str(error)
    if why := strange(said, reference) or _unseen(answer, reference):
        return why
    if _TOWER.search(said):
        return "an exponent beyond all bounds"
    if _ELLIPSIS.search(answer) and not _ELLIPSIS.search(reference):
        return "an ellipsis"
    if _BROKEN_FORMULA.search(answer):
        return "an inline formula over several lines"
    return "repeats the question" if _repeats(answer, reference, question) else ""


def _repeats(answer: str, reference: str, question: str) -> bool:
    squeezed, given, right = (re.sub(r"\s+", "", text) for text in (answer, question, reference))
    computed = len(squeezed) > 2 and re.search(r"[-+*/^]", squeezed)
    return bool(computed) and squeezed in given and squeezed != right


def strange(answer: str, reference: str) -> str:
    """What an answer holds that the reference does not and that Python's float or a lenient parser
    would pass over, or ''."""
    for said, found in _STRANGE:
        if found.search(answer) and not found.search(reference):
            return said
    return ""


def _unseen(answer: str, reference: str) -> str:
    hidden = UNSEEN.search(answer) and not UNSEEN.search(reference)
    return "characters that nobody sees" if hidden else ""


def judgeable(reference: str) -> str:
    """'' for a reference that an answer can meet, else why none ever could.

    It is empty, too long, nested too deeply, cut within a brace (no box could hold it), or a text
    of so many words that nobody says them alike."""
    if not reference.strip():
        return "it is empty"
    if len(reference) > MAX_ANSWER or re.search(r"[0-9]{400}", reference):
        return f"it is longer than {MAX_ANSWER} characters or 400 digits"
    try:
        said = normal(reference)
    except ValueError as error:
        return str(error)
    if not said:
        return "it says nothing"
    if _TOWER.search(said):
        return "an exponent beyond all bounds"
    braces = re.sub(r"\\.", "", reference, flags=re.DOTALL)
    if depths(re.sub("[^{}]", "", braces))[::2] != (0, 0):
        return "its braces do not balance"
    count = len(re.findall(r"[^\W\d_]{2,}", re.sub(r"\\[A-Za-z]+", " ", reference)))
    return f"it is a text of {count} words" if count > MAX_WORDS else ""


def number(text: str) -> Fraction | None:
    """The value of a text that is one number, with or without a unit or "x =" before it."""
    value = _read_or_none(text)
    return value.quantity.value if value and value.quantity else None


def plain(text: str) -> str:
    """A text as votes and words compare it: its words, or its signs in one way of writing."""
    value = _read_or_none(text)
    if value is None:
        return " ".join(text.split()).casefold()
    return words(value.text) if value.kind == "words" else canonical(value.text)


def _read_or_none(text: str) -> Value | None:
    try:
        return read(text[:MAX_ANSWER])
    except ValueError:
        return None


def same_number(answer: str, reference: str) -> bool | None:
    """Whether both are one number of equal value; None where the reference is none."""
    wanted = _read_or_none(reference)
    if wanted is None or wanted.kind != "number":
        return None
    said = _read_or_none(answer)
    return said is not None and bool(Comparison().same(said, wanted))


def asks_math_verify(reference: str) -> bool:
    """Whether answers to this reference may need the package math-verify to be judged."""
    value = _read_or_none(reference)
    return value is not None and _has_expressions(value)


def _has_expressions(value: Value) -> bool:
    single = value.kind == "expression" and not is_choice(value)
    return single or any(map(_has_expressions, value.parts))


def same_here(one: str, other: str) -> bool:
    """Whether two answers are one as far as that shows without a worker, as of repeated boxes."""
    first, second = _read_or_none(one), _read_or_none(other)
    return bool(first and second and Comparison().same(first, second))


def digest(text: str) -> int:
    """A hash that is the same on every machine and in every process: what splits are made by."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
