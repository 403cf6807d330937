"""What a user can get wrong, said in one sentence: a number out of range, a name that does not exist, a file that is damaged."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def expect(condition: bool, name: str, value: object, expected: str) -> None:
    """ValueError "NAME is VALUE, expected ..." unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} is {value!r}, expected {expected}")


def expect_each(settings: object, names: Iterable[str], holds: Callable[[Any], bool], expected: str) -> None:
    """The same for several fields of a dataclass; one that is None is not asked for."""
    for name in names:
        value = getattr(settings, name)
        expect(value is None or holds(value), name, value, expected)


def nearest(word: str, words: Iterable[str]) -> str:
    """ "; did you mean ..?", or '' where nothing is near."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. ValueError where it is missing, damaged or something else."""
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, expected an object")
    return values
