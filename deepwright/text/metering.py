"""What a rendering costs, counted, so that a template that nobody vouches for comes to an end.

jinja2's own sandbox keeps a template away from everything but its variables; it does not keep it
from running or growing without end. Here all work is paid for from one allowance (`Meter`), so that
a hostile template ends in an error after the same number of units on every machine:

1. A turn of a loop, a call, a filter, a comparison costs what it runs through.
2. Every text, list or object that is made costs its size, all its members included, so nothing is
   ever large that was not paid for. What may become much larger than what it is made from
   ('x' * n, replace, join, widths in formats) is predicted before it is made.

`metered_jinja.py` is the sandbox that pays. Left out: a clock, by which results would depend on the
machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MappingView
from typing import Any

from jinja2.sandbox import SecurityError

# A unit is a character of a text that is made, or some 20 nanoseconds of work. A message costs a
# thousand or so; long conversations are allowed more, by their size, up to the last figure.
UNITS, UNITS_PER_SIZE, MOST_UNITS = 20_000_000, 400, 80_000_000
CALL, LONG_CALL, MEMBER = 40, 200, 8  # units of a filter or a text's method, a macro, a member
LONGEST_TEXT = 16_000_000  # characters
MOST_BITS = 4_000  # of a whole number

_HELD = (list, tuple, dict, set)  # what a template may make that holds other values
SMALL = (bool, int, float, type(None))


class Meter:
    """The allowance of one rendering, and what it notes on the way."""

    def __init__(self, given: Any) -> None:
        self.left, self._given = UNITS, given
        self.pieces: list[str] = []  # of the text so far
        self._seen = self._characters = 0  # of these
        self.spans: list[tuple[int, int]] = []  # that the template marks as generated

    def spend(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            self.ask_for_more()

    def ask_for_more(self) -> None:
        """What the variables' size allows is added when needed: looking at them takes time."""
        if self._given is not None:
            self.left += min(UNITS_PER_SIZE * size(self._given), MOST_UNITS)
            self._given = None
        if self.left < 0:
            raise SecurityError("it does or writes more than any conversation needs")

    def scan(self, value: Any) -> None:
        """Pays for looking at every member once: a comparison, a search."""
        self.spend(len(value) >> 6 if isinstance(value, str) else size(value, self.left))

    def made(self, value: Any) -> Any:
        """Pays for a value that is new, and gives it back."""
        kind = type(value)
        if kind is str:
            self.left -= len(value)
            if self.left < 0:
                self.ask_for_more()
            if len(value) > LONGEST_TEXT:
                raise SecurityError(f"a text of {len(value):,} characters")
        elif kind in SMALL:
            pass
        elif kind in _HELD or isinstance(value, str):
            self.spend(size(value, self.left))
        elif isinstance(value, Iterator):
            return self.each(value)
        return value

    def each(self, items: Iterator[Any], units: int = MEMBER) -> Iterator[Any]:
        for item in items:
            self.spend(units)
            yield item

    def written(self) -> int:
        """How many characters."""
        self._characters += sum(map(len, self.pieces[self._seen :]))
        self._seen = len(self.pieces)
        return self._characters


def size(value: Any, most: int | None = None) -> int:
    """Characters and members in a value, those shared counted wherever they stand; stops looking
    once it is over `most`."""
    total, waiting = MEMBER, [value]
    while waiting and (most is None or total <= most):
        value = waiting.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict):
            total += 2 * MEMBER * len(value)
            waiting += value
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, range, MappingView)):
            total += MEMBER * len(value)
            waiting += value
        elif isinstance(value, int):
            total += value.bit_length() >> 3
    return total


# ---- predictions: how large the result may be


def formatted(text: str, values: Any) -> int:
    """Widths that come from values are refused: they cannot be seen in the text."""
    plain = text.replace("{{", "").replace("}}", "")
    if re.search(r"%[^%a-zA-Z]*\*|\{[^{}]*\{", plain):
        raise SecurityError("widths of a format taken from values")
    widths = sum(map(int, re.findall(r"\d+", text)))
    steps = text.count(".") + text.count("[")  # of ways into values
    marks = 1 + text.count("%") + text.count("{")
    return 2 * len(text) + widths + steps * CALL + marks * size(values)


def _replaced(text: str, old: str, new: str, *rest: Any, **more: Any) -> int:
    return str(text).count(str(old)) * len(str(new))


def _joined(between: str, items: Any = ()) -> int:
    return len(between) * len(items) + size(items)


METHODS: dict[str, Callable[..., int]] = {
    "center": lambda text, width, *fill: abs(width),
    "ljust": lambda text, width, *fill: abs(width),
    "rjust": lambda text, width, *fill: abs(width),
    "zfill": lambda text, width: abs(width),
    "expandtabs": lambda text, tabsize=8: text.count("\t") * abs(tabsize),
    "translate": lambda text, table: (1 + len(text)) * size(table),
    "replace": _replaced,
    "join": _joined,
    "format": lambda text, *args, **named: formatted(text, [args, named]),
    "format_map": lambda text, named: formatted(text, named),
}
FILTERS: dict[str, Callable[..., int]] = {
    "center": lambda text, width=80: abs(width),
    "batch": lambda items, linecount, fill_with=None: abs(linecount),
    "slice": lambda items, slices, fill_with=None: abs(slices),
    "round": lambda number, precision=0, method="common": 4000 * abs(precision),
    "replace": _replaced,
    "join": lambda items, d="", attribute=None: _joined(str(d), items),
    "format": lambda text, *args, **named: formatted(str(text), [args, named]),
    "sum": lambda items, attribute=None, start=0: (
        0 if isinstance(start, (int, float)) else len(items) * size(items)
    ),
    "indent": lambda text, width=4, first=False, blank=False: (
        (str(text).count("\n") + 1) * (len(width) if isinstance(width, str) else abs(width))
    ),
    "wordwrap": lambda text, width=79, break_long_words=True, wrapstring=None, *rest, **more: (
        len(text) * (50 + len(wrapstring or ""))
    ),
}
FILTERS |= dict.fromkeys(
    ("dictsort", "groupby", "max", "min", "sort", "unique"), lambda value, *_, **__: 8 * size(value)
)
FILTERS |= dict.fromkeys(
    ("pprint", "striptags", "title", "urlize", "wordcount"),
    lambda value, *_, **__: 100 * size(value),
)
