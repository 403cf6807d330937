"""Where a real model's answer stands and when it equals a reference: \\boxed{..}, numbers, plain words.

Numbers are compared here, exactly and without a package; other maths goes to math-verify in a worker (`files.py`). An answer to a
question for a number must be a number: "3 + 4" says nothing that the question did not, and "5 or 7" says two things.
"""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction

from deepwright.text.thoughts import END_THINK, THINK

BOX = "\\boxed"
MAX_ANSWER = 2_000  # characters; a longer one is wrong unseen
MAX_EXPONENT = (
    6  # digits: a power with so long an exponent, or a tower of powers, is nobody's answer
)
_NUMBER = re.compile(r"([-+]?)([0-9]{1,400})?(?:\.([0-9]{1,400}))?", re.ASCII)
_FRACTION = re.compile(
    r"([-+]?)(?:\\frac)?\{?(-?[0-9]{1,400})\}?(?:/|(?<=\})|(?<=\\frac[0-9]))\{?(-?[0-9]{1,400})\}?",
    re.ASCII,
)
_DRESSING = re.compile(r"\\[,!;: ]|\\\$|\$|\\left|\\right|[\s.]+$|^\s+")
_UNIT = re.compile(
    r"(?<=[0-9}])\s*(?:\\(?:text|mathrm|mbox)\{[^{}]{0,40}\}|\^?\{?\\(?:circ|degree)\}?)$"
)
_STRANGE = (
    ("digits of another script", re.compile(r"(?![0-9])[\d²³¹⁰-⁹₀-₉]")),
    ("no finite number", re.compile(r"(?i)\b(?:nan|inf|infinity)\b")),
    (
        "characters that nobody sees",
        re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f\\u200b-\\u200f\\ud800-\\udfff]"),
    ),
)
_TOWER = re.compile(rf"(?:\^|\*\*)[\s{{(]*(?:[0-9]{{{MAX_EXPONENT},}}|[0-9]+[\s{{(]*(?:\^|\*\*))")
_WORD = re.compile(r"(?<![a-z\\])(?:[a-z]{4,}|or|and|not)(?![a-z])")
_FUNCTIONS = {"sqrt", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan"}
_NAMED = re.compile(r"^\s*[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=(?!=)")


def read_boxed(completion: str) -> tuple[str, str] | str:
    """(what stands before it, answer) of a completion with exactly one balanced, non-empty \\boxed{..}, or what is wrong.

    A thought may come first, whether its <think> stands in the completion or ended the prompt; then the box stands after
    </think>, the thought is not empty, and there is one thought. Linear in the length."""
    opened, closed = completion.count(THINK), completion.count(END_THINK)
    if opened > 1 or closed > 1 or opened > closed:
        return f"{THINK} stands {opened} times and {END_THINK} {closed} times, expected one thought that ends"
    thought, _, rest = completion.rpartition(END_THINK)
    before, _, inside = thought.rpartition(THINK)
    if before.strip() or THINK in rest:
        return "text before the thought"
    if closed and not inside.strip():
        return "the thought is empty"
    count = rest.count(BOX)
    if count != 1:
        return f"{BOX} stands {count} times{' after the thought' if closed else ''}, expected once"
    start = rest.index(BOX) + len(BOX)
    answer = braced(rest[start:])
    if answer is None:
        return f"{BOX} without balanced braces"
    return (completion, answer) if answer.strip() else f"{BOX} is empty"


def braced(text: str) -> str | None:
    """What the braces that open `text` hold; None where they do not open or do not close. \\{ and \\} are characters, not braces."""
    if not text.startswith("{"):
        return None
    depth, escaped = 0, False
    for i, letter in enumerate(text):
        if not escaped and letter in "{}":
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return text[1:i]
        escaped = letter == "\\" and not escaped
    return None


def last_boxed(text: str) -> str | None:
    """The last \\boxed{..} of a reference solution (MATH writes its answers so)."""
    return braced(text[text.rindex(BOX) + len(BOX) :]) if BOX in text else None


def number(text: str) -> Fraction | None:
    """The value of one plain number: digits with optional sign, thousands commas, decimals; a/b or \\frac; None for all else."""
    text = (
        _DRESSING.sub("", text)
        .replace("{,}", ",")
        .replace("dfrac", "frac")
        .replace("tfrac", "frac")
        .strip()
    )
    if re.fullmatch(r"[-+]?[0-9]{1,3}(?:,[0-9]{3}){1,130}(?:\.[0-9]{1,400})?", text):
        text = text.replace(",", "")
    if (found := _NUMBER.fullmatch(text)) and (found[2] or found[3]):
        return Fraction(f"{found[1]}{found[2] or 0}.{found[3] or 0}")
    if (found := _FRACTION.fullmatch(text)) and int(found[3]):
        return (-1 if found[1] == "-" else 1) * Fraction(int(found[2]), int(found[3]))
    return None


def bare(text: str) -> str:
    """An answer without a unit behind its number and without "x =" before it."""
    return _UNIT.sub("", _NAMED.sub("", _DRESSING.sub("", text)))


def same_number(answer: str, reference: str) -> bool | None:
    """Whether both are one number of equal value; None where the reference is none, so that something else must judge."""
    percent = re.compile(r"\s*\\?%\s*$")
    if percent.search(reference):
        answer, reference = percent.sub("", answer), percent.sub("", reference)
    wanted = number(bare(reference))
    return None if wanted is None else number(bare(answer)) == wanted


def plain(text: str) -> str:
    """Words for comparison: one blank between them, no case, no \\text{..} or parentheses around the whole."""
    text = re.sub(r"^\s*\\(?:text|mathrm|mbox|textbf)\{([^{}]*)\}\s*$", r"\1", text)
    return " ".join(re.sub(r"^\s*\(([^()]*)\)\s*$", r"\1", text).split()).casefold().rstrip(".")


def is_words(reference: str) -> bool:
    """A reference that is words (or one letter of a choice), where maths would read "Paris" as p*a*r*i*s and pay "Pairs"."""
    return bool(re.fullmatch(r"[^\W\d_]+(?:[ '.,-]+[^\W\d_]+)*", plain(reference)))


def strange(answer: str, reference: str) -> str:
    """What an answer holds that the reference does not and that Python's float or a lenient parser would pass over, or ''."""
    for said, found in _STRANGE:
        if found.search(answer) and not found.search(reference):
            return said
    return ""


def refused(answer: str, reference: str, question: str) -> str:
    """Why an answer is not shown to the verifier of expressions, or ''."""
    if len(answer) > MAX_ANSWER or re.search(r"[0-9]{400}", answer):
        return f"longer than {MAX_ANSWER} characters or 400 digits"
    if why := strange(answer, reference):
        return why
    if _TOWER.search(answer):
        return "an exponent beyond all bounds"
    if "=" in bare(answer) and "=" not in reference:
        return "an equation where a value was asked for"
    if "$" in answer.strip().strip("$") and not is_words(reference):
        return "more than one formula"
    beside = (
        set(_WORD.findall(_UNIT.sub("", answer).casefold()))
        - set(_WORD.findall(reference.casefold()))
        - _FUNCTIONS
    )
    if beside and not is_words(reference):
        return f"words beside the value: {min(beside)[:20]}"
    squeezed, given = (re.sub(r"\s+", "", text) for text in (answer, question))
    if (
        len(squeezed) > 2
        and re.search(r"[-+*/^]", squeezed)
        and squeezed in given
        and squeezed != re.sub(r"\s+", "", reference)
    ):
        return "repeats the question"
    return ""


def digest(text: str) -> int:
    """A hash that is the same on every machine and in every process: what splits are made by."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
