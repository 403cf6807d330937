"""What a user can get wrong, said in one sentence: a number out of range, a name that does not exist.

A sentence names the value and what was expected. Values come from files and people that nobody
vouches for, so a value is quoted by `quoted`: short, whatever it is.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

QUOTED = 200  # characters of a value that a sentence shows at most


class _Short(reprlib.Repr):
    """Looks at a few members of a container and at the beginning of a text, never at all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 4, 12, 12, 12
        self.maxstring, self.maxlong, self.maxother = QUOTED, QUOTED, QUOTED

    def repr_str(self, x: str, level: int) -> str:
        return repr(x) if len(x) <= QUOTED else f"{x[:QUOTED]!r} and {len(x) - QUOTED:,} more"


_SHORT = _Short()


def quoted(value: object, limit: int = QUOTED) -> str:
    """`repr(value)` cut to `limit` characters; what is cut is never formatted first."""
    text = _SHORT.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


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
