"""Python values as plain data that JSON holds, back again, and when two of them are equal.

What a program returns leaves its sandbox in this form and is compared outside, so nothing that its
classes say about equality or about themselves is ever asked. Numbers, texts, lists, None, True and
False stand for themselves, everything else is an object with one key:

    {"tuple": [..]} {"dict": [[key, value], ..]} {"set": [..]} {"bytes": hex} {"range": [..]}
    {"int": hex} {"float": "nan"} {"complex": [..]} {"decimal": ".."} {"fraction": [..]}
    {"time": [class, ISO text]} {"other": class}

A subclass (Counter, namedtuple, frozenset, IntEnum) is what it is built on; a deque and an array
are the lists that they hold. The same text runs inside the sandboxes: only the standard library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Plain = Any  # what JSON holds
Inner = Callable[[object], Plain]

DEEPEST = 100  # levels of containers
MOST_DIGITS = 4000  # beyond them Python refuses decimal digits; hexadecimal ones are linear
_CLOSE = {"exact": (1e-9, 1e-12), "printed": (1e-6, 1e-6)}  # relative, absolute


def as_other(value: object) -> Plain:
    return {"other": type(value).__name__}


def encode(value: object, other: Inner = as_other, depth: int = 0) -> Plain:
    """The plain form of a value; `other` makes it of what this does not know.

    RecursionError beyond DEEPEST levels (a list that holds itself)."""
    if value is None or value is True or value is False or type(value) is str:
        return value
    if depth > DEEPEST:
        raise RecursionError(f"more than {DEEPEST} levels of containers")
    form = next((form for kinds, form in _FORMS if isinstance(value, kinds)), None)
    if form is None:
        names = (f"{kind.__module__}.{kind.__name__}" for kind in type(value).__mro__)
        form = next((_NAMED[name] for name in names if name in _NAMED), None)
    if form is None:
        return other(value)
    return form(value, lambda part: encode(part, other, depth + 1))


def _int(value: int, inner: Inner) -> Plain:
    value = int.__index__(value)
    return value if value.bit_length() < 3 * MOST_DIGITS else {"int": hex(value)}


def _float(value: float, inner: Inner) -> Plain:
    value = float.__float__(value)
    return value if math.isfinite(value) else {"float": float.__repr__(value)}


def _dict(value: Mapping, inner: Inner) -> Plain:
    return {"dict": [[inner(key), inner(item)] for key, item in dict.items(value)]}


def _list_of(value: Any, inner: Inner) -> Plain:
    return [inner(part) for part in value]


def _time(value: Any, inner: Inner) -> Plain:
    return {"time": [type(value).__name__, value.isoformat()]}


# The base class's own iteration, whatever a subclass makes of it.
_FORMS: list[tuple[Any, Callable[[Any, Inner], Plain]]] = [
    (int, _int),
    (float, _float),
    (str, lambda value, inner: str.__str__(value)),
    (list, lambda value, inner: _list_of(list.__iter__(value), inner)),
    (tuple, lambda value, inner: {"tuple": _list_of(tuple.__iter__(value), inner)}),
    (dict, _dict),
    (set, lambda value, inner: {"set": _list_of(set.__iter__(value), inner)}),
    (frozenset, lambda value, inner: {"set": _list_of(frozenset.__iter__(value), inner)}),
    (type({}.keys()), lambda value, inner: {"set": _list_of(value, inner)}),
    ((bytes, bytearray), lambda value, inner: {"bytes": bytes(value).hex()}),
    (range, lambda value, inner: {"range": [value.start, value.stop, value.step]}),
    (complex, lambda value, inner: {"complex": [inner(value.real), inner(value.imag)]}),
]
# By name: a sandbox starts sooner without modules that few programs use.
_NAMED: dict[str, Callable[[Any, Inner], Plain]] = {
    "collections.deque": _list_of,
    "numpy.ndarray": lambda value, inner: inner(value.tolist()),
    "numpy.generic": lambda value, inner: inner(value.tolist()),
    "decimal.Decimal": lambda value, inner: {"decimal": str(value)},
    "fractions.Fraction": lambda value, inner: {
        "fraction": [inner(value.numerator), inner(value.denominator)]
    },
    "datetime.datetime": _time, "datetime.date": _time, "datetime.time": _time,
}  # fmt: skip


def decode(tree: Plain, other: Callable[[Plain], Any] | None = None) -> Any:
    """The value of a plain form. ValueError, TypeError and the like for what is none.

    `other` makes it of objects with another key; without it they are refused."""
    if isinstance(tree, list):
        return [decode(part, other) for part in tree]
    if not isinstance(tree, dict):
        return tree
    ((tag, inner),) = tree.items()
    if tag in _VALUES:
        return _VALUES[tag](inner, lambda part: decode(part, other))
    if other is None:
        raise ValueError(f"{tag!r} is no plain value")
    return other(tree)


def _decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def _fraction(above: int, below: int) -> Any:
    from fractions import Fraction

    return Fraction(above, below)


def _time_of(kind: str, text: str) -> Any:
    import datetime

    if kind not in ("datetime", "date", "time"):
        raise ValueError(f"{kind!r} is no time")
    return getattr(datetime, kind).fromisoformat(text)


_VALUES: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda inner, of: tuple(of(part) for part in inner),
    "dict": lambda inner, of: {of(key): of(item) for key, item in inner},
    "set": lambda inner, of: {of(part) for part in inner},
    "bytes": lambda inner, of: bytes.fromhex(inner),
    "range": lambda inner, of: range(*inner),
    "int": lambda inner, of: int(inner, 16),
    "float": lambda inner, of: float(inner),
    "complex": lambda inner, of: complex(*map(of, inner)),
    "decimal": lambda inner, of: _decimal(inner),
    "fraction": lambda inner, of: _fraction(*map(of, inner)),
    "time": lambda inner, of: _time_of(*inner),
}
_NUMBERS = ("int", "float", "complex", "decimal", "fraction")


def same(got: Plain, wanted: Plain, how: str = "exact") -> bool:
    """Whether two plain forms are equal as `==` calls their values, but for these.

    True is no 1 (where True is wanted, 1 will do, as everywhere in Python); two nan are equal;
    where a float is wanted, a number within 1e-9 of it is that number. `how` "printed": within
    1e-6, and a tuple is a list; "is": True, False and None alone. Never raises, whatever `got` is.
    """
    try:
        return got is wanted if how == "is" else _same(got, wanted, how)
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
        return False


def _same(got: Plain, wanted: Plain, how: str) -> bool:
    if _is_number(wanted):
        if isinstance(got, bool) and not isinstance(wanted, bool):
            return False
        return _is_number(got) and _same_number(_number(got), _number(wanted), how)
    if isinstance(wanted, list):
        got = got["tuple"] if how == "printed" and isinstance(got, dict) else got
        return isinstance(got, list) and _same_parts(got, wanted, how)
    if not isinstance(wanted, dict):
        return type(got) is type(wanted) and got == wanted
    ((tag, inner),) = wanted.items()
    if not isinstance(got, dict) or got.keys() != {tag}:
        return False
    if tag == "tuple":
        return _same_parts(got[tag], inner, how)
    if tag == "set":
        return sorted(map(key_of, got[tag])) == sorted(map(key_of, inner))
    if tag == "dict":
        ours, theirs = ({key_of(key): item for key, item in one} for one in (inner, got[tag]))
        return ours.keys() == theirs.keys() and all(
            _same(theirs[key], item, how) for key, item in ours.items()
        )
    return tag in _VALUES and got == wanted


def _same_parts(got: Sequence[Plain], wanted: Sequence[Plain], how: str) -> bool:
    return len(got) == len(wanted) and all(_same(a, b, how) for a, b in zip(got, wanted))


def _is_number(tree: Plain) -> bool:
    return isinstance(tree, (int, float)) or (
        isinstance(tree, dict) and len(tree) == 1 and next(iter(tree)) in _NUMBERS
    )


def _number(tree: Plain) -> Any:
    """Read on its own, in time that is linear in the text; ValueError for too many digits."""
    if not isinstance(tree, dict):
        return int(tree) if isinstance(tree, bool) else tree
    ((tag, inner),) = tree.items()
    if tag in ("complex", "fraction"):
        inner = [_number(part) for part in inner]
        if tag == "fraction" and max(part.bit_length() for part in inner) > 4 * MOST_DIGITS:
            raise ValueError(f"a fraction of more than {MOST_DIGITS} digits")
        return complex(*inner) if tag == "complex" else _fraction(*inner)
    if tag == "decimal" and len(inner) > MOST_DIGITS:
        raise ValueError(f"more than {MOST_DIGITS} digits")
    return _VALUES[tag](inner, None)


def _same_number(got: Any, wanted: Any, how: str) -> bool:
    if isinstance(wanted, complex) or isinstance(got, complex):
        pairs = zip(*((complex(one).real, complex(one).imag) for one in (got, wanted)))
        return all(_same_number(a, b, how) for a, b in pairs)
    if isinstance(wanted, float):
        near, nearest = _CLOSE[how]
        if math.isnan(wanted) or math.isnan(float(got)):
            return math.isnan(wanted) and math.isnan(float(got))
        return math.isclose(float(got), wanted, rel_tol=near, abs_tol=nearest)
    return key_of(encode(got)) == key_of(encode(wanted))


def key_of(tree: Plain) -> str:
    """A text that equal values have in common: what members of sets and keys are compared by.

    A text because its hash cannot be foreseen: numbers can be chosen so that all hash alike."""
    if isinstance(tree, bool) or not _is_number(tree):
        if isinstance(tree, list):
            raise TypeError("a list is no member of a set")
        if not isinstance(tree, dict):
            return json.dumps(tree)
        ((tag, inner),) = tree.items()
        if tag in ("tuple", "set"):
            keys = [key_of(part) for part in inner]
            return f"{tag}({', '.join(sorted(keys) if tag == 'set' else keys)})"
        return f"{tag} {json.dumps(inner)}"
    number = _number(tree)
    if isinstance(number, complex):
        return f"{key_of(encode(number.real))} {key_of(encode(number.imag))}"
    if isinstance(number, float) and not math.isfinite(number):
        return str(number)
    if hasattr(number, "adjusted") and not -MOST_DIGITS < number.adjusted() < MOST_DIGITS:
        return str(number.normalize())  # a Decimal whose digits would fill the memory
    above, below = number.as_integer_ratio()
    return f"{above:x}/{below:x}"
