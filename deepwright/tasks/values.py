"""What an answer says, as structure: a number with its unit, words, an expression, or a group.

`read` decides the kind once, so that comparing needs no guesses: "p - q" is an expression, "North"
a word, "1, 2" a list without order, "(1, 2)" a tuple with one. What stands before "=" is a name
when it could not be computed with ("x", "f(x)", "AB"), and then belongs to no value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from deepwright.tasks.normal_form import FUNCTIONS, enclosed, normal, split, tokens
from deepwright.tasks.numbers import Quantity, read_number
from deepwright.tasks.units import NEVER, NONE, Unit, is_noun, read_unit

Kind = Literal[
    "number", "words", "expression", "list", "set", "tuple", "interval", "union", "matrix",
    "ratio", "relation",
]  # fmt: skip


@dataclass(frozen=True)
class Value:
    """`text`: as it stands, in normal form. `parts`: of a group, or the members of a relation,
    whose operators are `signs`; those of a group are its brackets. `name`: what it is called."""

    kind: Kind
    text: str
    quantity: Quantity | None = None
    unit: Unit = NONE  # of an expression
    parts: tuple[Value, ...] = ()
    signs: tuple[str, ...] = ()
    name: str = field(default="", compare=False)


EQUAL = {"=", "\\approx", "\\equiv", "\\in"}
COMPARED = {"<", ">", "\\le", "\\ge", "\\ne"}
INFINITE = re.compile(r"([-+]?) ?\\infty")


@lru_cache(8192)
def read(text: str) -> Value:
    """The value of a text as someone wrote it. ValueError where it is nested too deeply."""
    return _read(_listed_words(normal(text)))


# A date is no difference and no quotient.
_DATE = re.compile(r"([12][0-9]{3})[-/](0?[1-9]|1[0-2])[-/](0?[1-9]|[12][0-9]|3[01])")


def _read(text: str) -> Value:
    if (number := read_number(text)) is not None:
        return Value("number", text, number)
    if day := _DATE.fullmatch(text):
        return Value("words", "-".join(part.lstrip("0") for part in day.groups()))
    for form in _FORMS:
        if (value := form(text)) is not None:
            return value
    return Value("words" if is_natural(text) else "expression", text)


# ---- groups

_LISTING = re.compile(
    r",? *\\text\{ *,? *(and|or|和|或|及|与)? *\} *|(?<![㐀-鿿]) *(?:和|或|及|与) *(?![㐀-鿿])"
)


def _listed_words(text: str) -> str:
    """\\text{ and } as and; 和 and 或 where they stand between values."""
    return _LISTING.sub(lambda m: " or " if m[1] in ("or", "或") else " and ", text)


def _enclosed(text: str) -> Value | None:
    """Brackets around all of it: a set, a tuple, an interval, or nothing but brackets."""
    if text[:1] == "]" and text[-1:] == "[":  # ]0, 1[ as in France
        text = f"({text[1:-1]})"
    found = enclosed(text)
    if found is None:
        return None
    opening, inside, closing = found
    if opening == "\\{":
        member, bars = split(inside, {"|", ":"})
        if len(bars) == 1 and is_name(split(member[0], {"\\in"})[0][0]):
            return _read(member[1])  # {x | x > 2}: what it says of x
        return Value("set", text, parts=_flat(tuple(map(_read, _cut(inside)))))
    parts = _cut(inside)
    if len(parts) == 1:
        return _read(inside)
    round_ = opening in ("(", "\\langle") and closing in (")", "\\rangle")
    signs = ("(", ")") if round_ else (opening, closing)
    kind = "interval" if len(parts) == 2 and not round_ else "tuple"
    return Value(kind, text, parts=tuple(map(_read, parts)), signs=signs)


def _cut(text: str) -> list[str]:
    """The parts of a list, by semicolons if there are any, else by commas and words."""
    parts, signs = split(text, {";"})
    if not signs:
        text = _without_thousands(text)
        parts, signs = split(_spelled(text), {",", "\\and", "\\or"})
    return [part for part in parts if part]


def _spelled(text: str) -> str:
    return re.sub(r"(?<![\w\\])(and|or)(?![\w])", r"\\\1 ", text)


def _without_thousands(text: str) -> str:
    """1,000, 2,000 without the commas within numbers: those that no blank follows."""
    if not re.search(r",\s|\band\b|\bor\b", text):
        return text
    thousands = r"(?<![0-9,.])([1-9][0-9]{0,2}(?:,[0-9]{3})+)(?![0-9]|,[0-9])"
    return re.sub(thousands, lambda m: m[1].replace(",", ""), text)


def _list(text: str) -> Value | None:
    if (whole := _TEXT.fullmatch(text)) and len(_cut(whole[1])) > 1:
        return _list(whole[1])  # \\text{A, C and F}
    parts = tuple(map(_read, found)) if len(found := _cut(text)) > 1 else ()
    if not parts:
        return None
    names = [one.name for one in parts]
    name = "" if any(names[1:]) else names[0]  # n = 1, 2, 3; else each part has one of its own
    said = re.search(r"\b(?:and|or)\b", text)
    joined = said[0] if said else ","
    return Value("list", text, parts=_flat(parts), signs=(joined,), name=name)


def _flat(parts: tuple[Value, ...]) -> tuple[Value, ...]:
    """A part that is a list itself (1 \\pm 2) gives its own parts."""
    pairs = [one.parts if one.signs == ("\\pm",) else (one,) for one in parts]
    return tuple(one for pair in pairs for one in pair)


def _union(text: str) -> Value | None:
    parts, signs = split(text, {"\\cup"})
    return Value("union", text, parts=tuple(map(_read, parts))) if signs and all(parts) else None


_TO = re.compile(r"(?<=[0-9]) ?(?:\\text\{ ?(?:to|比) ?\}|to|比) ?(?=[0-9])")  # 1 to 2


def _ratio(text: str) -> Value | None:
    """1:2, and 3:30 as a time, with am or pm."""
    *parts, last = split(_TO.sub(":", text), {":"})[0]
    found = re.match(r"(\d+(?:\.\d+)?)(.*)", last, re.DOTALL)
    unit = read_unit(found[2], False) if found else None
    if not parts or found is None or unit is None:
        return None
    read_parts = tuple(map(_read, [*parts, found[1]]))
    plain = all(one.kind in ("number", "expression") for one in read_parts)
    return Value("ratio", text, unit=unit, parts=read_parts) if plain else None


_MATRIX = re.compile(r"\\begin\{([bpB]?matrix|array|smallmatrix)\}(.*)\\end\{\1\}", re.DOTALL)


def _matrix(text: str) -> Value | None:
    found = _MATRIX.fullmatch(text)
    if not found or "\\begin" in found[2]:
        return None
    rows = [split(row, {"&"})[0] for row in split(found[2], {"\\\\"})[0] if row.strip()]
    cells = tuple(Value("tuple", "", parts=tuple(map(_read, row))) for row in rows)
    return Value("matrix", text, parts=cells)


_SYSTEM = re.compile(r"\\begin\{(cases|aligned|gathered)\}(.*)\\end\{\1\}", re.DOTALL)


def _system(text: str) -> Value | None:
    """Equations that all hold, one in a row; with conditions beside them it is a function."""
    found = _SYSTEM.fullmatch(text)
    if not found or "\\begin" in found[2] or (found[1] == "cases" and "&" in found[2]):
        return None
    rows = split(found[2].replace("&", ""), {"\\\\"})[0]
    parts = tuple(_read(row.rstrip(",. ")) for row in rows if row)
    told = len(parts) > 1 and all(one.name or one.kind == "relation" for one in parts)
    return Value("list", text, parts=parts, signs=("and",)) if told else None


def _pair_of_signs(text: str) -> Value | None:
    """1 \\pm 2 as the list of both."""
    if len(re.findall(r"\\pm(?![A-Za-z])", text)) != 1 or "\\mp" in text:
        return None
    both = tuple(_read(re.sub(r"\\pm ?", sign, text).strip(" +")) for sign in "+-")
    return Value("list", text, parts=both, signs=("\\pm",))


# ---- relations

_FUNCTION_LETTERS = "fghpqrstuvwFGHPQRSTVNEAC"
_ARGUMENT = r"\([^()*/=<>]*\)"
_SUB = r"(?:_\{[^{}]*\}|'+)*"
# Atomic: what could be read in two ways is read in the first, so that no text takes long.
_ONE_NAME = (
    rf"(?>\\(?:overline|vec|hat|overrightarrow)\{{[A-Za-z ]+\}}|\\text\{{[^{{}}]*\}}"
    rf"|\\[A-Za-z]+{_SUB}"
    rf"|[{_FUNCTION_LETTERS}]{_SUB}{_ARGUMENT}|[A-Za-z]{{4,}}(?: [A-Za-z]+)*|[A-Z]+{_SUB}|d[a-z]"
    rf"|[a-z]{_SUB}|[㐀-鿿]+)"
)
_NAMES = re.compile(
    rf"(?:m ?)?(?:\\(?:angle|triangle|measuredangle) ?)?{_ONE_NAME}(?: ?: ?{_ONE_NAME})*"
    rf"|\| ?{_ONE_NAME} ?\||\( ?{_ONE_NAME}(?: ?, ?{_ONE_NAME})* ?\)"
    rf"|\\frac\{{ ?{_ONE_NAME} ?\}}\{{ ?{_ONE_NAME} ?\}}|{_ONE_NAME} ?/ ?{_ONE_NAME}"
)
_COMPUTED = re.compile(r"\\(?:pi|infty|sqrt|frac|cdot|times|sin|cos|tan|log|ln|exp)\b")


def is_name(text: str) -> bool:
    """x, x_1, f(x), |AB|, A:B, (x, y), \\angle ABC, Area: what names a value, and is none."""
    return bool(_NAMES.fullmatch(text)) and not _COMPUTED.search(
        text.removeprefix("\\frac") if text.startswith("\\frac") else text
    )


def _relation(text: str) -> Value | None:
    members, signs = split(text, EQUAL | COMPARED)
    if not signs or not all(members):
        return None
    if set(signs) <= EQUAL and (value := _named(members, signs)) is not None:
        return value
    if {">", "\\ge"} & set(signs) and set(signs) <= {">", "\\ge", "="}:
        members, signs = members[::-1], [_MIRRORED.get(sign, sign) for sign in signs[::-1]]
    return Value("relation", text, parts=tuple(map(_read, members)), signs=tuple(signs))


_MIRRORED = {">": "<", "\\ge": "\\le"}


def _named(members: list[str], signs: list[str]) -> Value | None:
    """x = 5: the value 5 that is called x. In a chain with a name it is the last value joined by
    "=": what stands between is working. What follows \\approx is a remark, unless it is all."""
    names = list(filter(is_name, members))
    values = [(sign, one) for sign, one in zip(["=", *signs], members) if one not in names]
    if len(names) == len(members) == 2 and max(map(len, names)) > 1:
        values = [("=", names.pop())]  # f(x) = x
    exact = [one for sign, one in values if sign != "\\approx"]
    if len({canonical(one) for one in exact}) == len(exact) == len(members) > 1:
        numbers = [_read(one) for one in exact]  # 3/4 = 0.75
        if all(one.quantity and one.quantity == numbers[0].quantity for one in numbers):
            return numbers[0]
    if not values or not (names or signs == ["\\approx"]):
        return None
    value = _read(exact[-1] if exact else values[0][1])
    return replace(value, name=names[0]) if names else value


_SAYS = r"(?: (?:is|are|equals) ?|是|为|等于)"
_STATED = re.compile(rf"(?:\\text\{{ ?)?([A-Za-z][A-Za-z \\]*?|[㐀-鿿]+?){_SAYS} ?\}}?:? ?(.+)")


def _stated(text: str) -> Value | None:
    """The area is 5: as area = 5, where what is said is no words itself."""
    found = _STATED.fullmatch(text)
    if not found or re.search(_SAYS, found[2]):
        return None
    if any(word in NEVER or "不" in word for word in found[1].lower().split()):
        return None
    value = _read(found[2])
    return replace(value, name=found[1]) if value.kind != "words" else None


def as_interval(value: Value) -> Value | None:
    """a < x <= b, x > a, x <= b as an interval; None where the middle is no name."""
    if value.kind == "interval" or (value.kind == "tuple" and len(value.parts) == 2):
        return replace(value, kind="interval")
    if value.kind != "relation" or not set(value.signs) <= {"<", "\\le"} or len(value.signs) > 2:
        return None
    parts, signs = value.parts, value.signs
    if len(parts) == 2:
        if is_name(parts[0].text):
            parts, signs = (_read("-\\infty"), *parts), ("<", *signs)
        else:
            parts, signs = (*parts, _read("\\infty")), (*signs, "<")
    low, name, high = parts
    if not is_name(name.text) or is_name(low.text) or is_name(high.text):
        return None
    brackets = ("(" if signs[0] == "<" else "[", ")" if signs[1] == "<" else "]")
    return Value("interval", value.text, parts=(low, high), signs=brackets, name=name.text)


# ---- words and expressions

_SMALL_WORDS = set("no up in on of is it to by or we he me my so am pm if as at do go us".split())
_LETTERS = re.compile(r"(?<![A-Za-z\\])[^\W\d_]+|\\[A-Za-z]+")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")


def is_natural(text: str) -> bool:
    """Words of a language, or one letter of a choice, rather than a formula.

    Beside signs of mathematics short runs of letters are products: 2abc."""
    if any(len(_only_letters(inside)) > 1 for inside in _TEXT.findall(text)):
        return True
    if re.fullmatch(r"\\text\{ ?\(?[^\W\d_]\)?\.? ?\}", text):
        return True
    plain = _TEXT.sub(r" \1 ", text)
    runs = [run for run in _LETTERS.findall(plain) if not run.startswith("\\")]
    if re.search(r"[\d^_=+*/<>|\\{}()\[\]]", plain):
        return any(not run.isascii() or (len(run) > 3 and run not in FUNCTIONS) for run in runs)
    return any(_is_word(run) for run in runs)


def _only_letters(text: str) -> str:
    return "".join(filter(str.isalpha, text))


def _is_word(run: str) -> bool:
    return not run.isascii() or run.lower() in _SMALL_WORDS or is_noun(run)


def words(text: str) -> str:
    """Words for comparison: one blank between them, no case, no marks around the whole."""
    text = _TEXT.sub(r" \1 ", text).replace("\\and", "and").replace("\\or", "or")
    text = " ".join(re.sub(r"^\s*\(([^()]*)\)\s*$", r"\1", text.strip()).split())
    return text.casefold().strip(" .,;:!?\"'")


_TAIL = re.compile(
    r"(?:\\text\{[^{}]*\}|\^\{ ?\\circ ?\}| [A-Za-zµ²³/]{2,})(?:\^\{ ?-?[1-9] ?\})?$"
)


def _with_unit(text: str) -> Value | None:
    """5\\sqrt{2}\\text{ cm}: an expression and its unit."""
    found = _TAIL.search(text)
    unit = read_unit(found[0], False) if found else None
    start = text[: found.start()].strip() if found else ""
    if unit is None or not start or ("\\" not in found[0] and unit.factor == 1):
        return None
    if "circ" in found[0] and re.search(r"\\(?:sin|cos|tan|cot|sec|csc)\b", start):
        return None
    inner = _read(start)
    return replace(inner, unit=unit) if inner.kind == "expression" else None


_FORMS = (
    _enclosed,
    _list,
    _relation,
    _union,
    _ratio,
    _matrix,
    _system,
    _pair_of_signs,
    _with_unit,
    _stated,
)


def canonical(text: str) -> str:
    """The tokens with one blank between them: how two texts are compared as written."""
    return " ".join(token for token in tokens(text) if not token.isspace())
