"""What a user can get wrong, said in one sentence: a number out of range, a name that does not exist.

A sentence names the value and what was expected. Values come from files and people that nobody
vouches for, so a value is quoted by `quoted`: short, whatever it is.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import importlib.util
import re
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

QUOTED = 200  # characters of a value that a sentence shows at most
LARGEST = 1 << 63  # numbers in the files of a run are smaller


class _Short(reprlib.Repr):
    """Looks at a few members of a container and at the beginning of a text, never at all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 4, 12, 12, 12
        self.maxstring, self.maxlong, self.maxother = QUOTED, QUOTED, QUOTED

    def repr_str(self, x: str, level: int) -> str:
        return repr(x) if len(x) <= QUOTED else f"{x[:QUOTED]!r} and {len(x) - QUOTED:,} more"

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < LARGEST else f"a whole number of {x.bit_length():,} bits"


_SHORT = _Short()


def quoted(value: object, limit: int = QUOTED) -> str:
    """`repr(value)` cut to `limit` characters; what is cut is never formatted first."""
    text = _SHORT.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def words_of(error: BaseException, limit: int = QUOTED) -> str:
    """What an exception of a library says: one line of at most `limit` characters, never none."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def expect(condition: bool, name: str, value: object, expected: str) -> None:
    """ValueError "NAME is VALUE, expected ..." unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} is {quoted(value)}, expected {expected}")


def expect_each(
    settings: object, names: Iterable[str], holds: Callable[[Any], bool], expected: str
) -> None:
    """The same for several fields of a dataclass; one that is None is not asked for."""
    for name in names:
        value = getattr(settings, name)
        expect(value is None or holds(value), name, value, expected)


def expect_fields(table: Mapping[str, Any], where: str, fields: Mapping[str, Any]) -> None:
    """ValueError "WHERE: NAME is VALUE, expected ..." unless the fields are there and of their
    types.

    Types as in a dataclass: int, float | None, dict[str, float], list[str] ... A field that may be
    None may be missing."""
    for name, hint in fields.items():
        value = table.get(name)
        expect(holds(value, hint), f"{where}: {name}", value, describe(hint))


def holds(value: Any, hint: Any) -> bool:
    """Whether a value of JSON or TOML is of the declared type. A whole number is a float, a list a
    tuple; true is no number; numbers that no run writes (2^63 and more) are none."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(holds(value, option) for option in inner)
    if kind in (int, float):
        fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
        return fits or (kind is float and isinstance(value, float))
    if kind is dict:
        return isinstance(value, dict) and all(
            holds(one, inner[1]) for one in value.values() if inner
        )
    if kind is list:
        return isinstance(value, list) and all(holds(one, inner[0]) for one in value if inner)
    if kind is tuple:
        return isinstance(value, (list, tuple)) and _holds_each(value, inner)
    if kind is typing.Literal:
        return value in inner
    return isinstance(value, kind)


def _holds_each(values: Sequence[Any], hints: Sequence[Any]) -> bool:
    hints = hints[:1] * len(values) if hints[1:] == (...,) else hints
    return len(values) == len(hints) and all(map(holds, values, hints))


JSON_WORDS: Mapping[Any, str] = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a table",
    list: "a list", type(None): "null",
}  # fmt: skip


def describe(hint: Any, words: Mapping[Any, str] = JSON_WORDS) -> str:
    """A type in words that a person knows who wrote a value of it."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(describe(option, words) for option in inner)
    if kind is typing.Literal:
        return "one of " + ", ".join(map(repr, inner))
    if kind is tuple:
        return f"[{', '.join('...' if one is ... else describe(one, words) for one in inner)}]"
    if inner:
        return f"{words[kind]}, each value of it {describe(inner[-1], words)}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(repr(member.value) for member in kind)
    return words.get(kind, "a section" if dataclasses.is_dataclass(kind) else str(kind))


def nearest(name: str, names: Iterable[str]) -> str:
    """'; did you mean X?' or, when nothing is near, ''.

    Knows misspellings, initials (lr) and a name given without its section."""

    def likeness(other: str) -> float:
        (section, _, last), (its_section, _, its_last) = name.rpartition("."), other.rpartition(".")
        initials = "".join(part[0] for part in re.split("[_-]", its_last) if part)
        ratio = difflib.SequenceMatcher(None, last, its_last).ratio()
        near = 0.9 if last == initials else ratio
        return near + 0.2 * (section == its_section)

    best = max(names, key=likeness, default=None) if len(name) <= QUOTED else None
    return f"; did you mean {best}?" if best is not None and likeness(best) >= 0.75 else ""


def require(package: str, needed_for: str, extra: str = "tasks") -> None:
    """ValueError in one sentence where an optional package is missing; `extra` brings it."""
    if importlib.util.find_spec(package) is None:
        name = package.replace("_", "-")
        raise ValueError(
            f"{needed_for} needs the package {name!r}: pip install 'deepwright[{extra}]'"
        )


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"rl": {"steps": 3}} -> {"rl.steps": 3}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        inner = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted name, old value, new one) of every setting in which two nested tables differ.

    None stands where one of them lacks it."""
    old, new = flatten(before), flatten(now)
    names = sorted(old.keys() | new.keys())
    return [
        (name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    ]


def grew(old: object, new: object) -> bool:
    """Whether a count of the settings was raised: what was done up to the old one still stands."""
    return holds(old, int) and holds(new, int) and new > old
