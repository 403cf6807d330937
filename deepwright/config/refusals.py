"""What a user can get wrong, said in one sentence: a number out of range, a name that does not exist, a damaged file; and which settings changed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def expect(condition: bool, name: str, value: object, expected: str) -> None:
    """ValueError "NAME is VALUE, expected ..." unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} is {value!r}, expected {expected}")


def expect_each(
    settings: object, names: Iterable[str], holds: Callable[[Any], bool], expected: str
) -> None:
    """The same for several fields of a dataclass; one that is None is not asked for."""
    for name in names:
        value = getattr(settings, name)
        expect(value is None or holds(value), name, value, expected)


def nearest(name: str, names: Iterable[str]) -> str:
    """'; did you mean X?' or, when nothing is near, ''. Knows misspellings, initials (lr) and a name given without its section."""

    def likeness(other: str) -> float:
        (section, _, last), (its_section, _, its_last) = name.rpartition("."), other.rpartition(".")
        initials = "".join(part[0] for part in re.split("[_-]", its_last) if part)
        near = 0.9 if last == initials else difflib.SequenceMatcher(None, last, its_last).ratio()
        return near + 0.2 * (section == its_section)

    best = max(names, key=likeness, default=None)
    return f"; did you mean {best}?" if best is not None and likeness(best) >= 0.75 else ""


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


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line of a JSONL file that is not blank. ValueError naming the line that is no JSON object."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                json.dumps(
                    row, ensure_ascii=False
                ).encode()  # refuses half characters ("\\ud800"), which no tokenizer takes
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(
                    f"{path}, line {number}: expected a JSON object, found {line[:60]!r}"
                )
            yield number, row


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"rl": {"steps": 3}} -> {"rl.steps": 3}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {prefix + key: value}
        )
    return flat


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted name, old value, new one) of every setting in which two nested tables differ; None where one lacks it."""
    old, new = flatten(before), flatten(now)
    return [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
