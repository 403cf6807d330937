"""Seeded damage to files: bytes that flip, files that are cut, values of another kind, extreme
numbers, deep nesting."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

DEEP = 900  # levels: more than a reader of records expects, fewer than Python's own bound
STRANGE: list[Any] = [
    None, True, -1, 0, 1e308, -1e308, 10**30, 10**400, math.nan, math.inf, "", "x" * 100_000,
    "\ud800", [], {}, [[]], {"": None}, [None] * 1000, "../../x", "/dev/zero", "\0",
]  # fmt: skip


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def damaged(rng: Random, content: bytes) -> bytes:
    """One blow to a file of whatever kind."""
    kinds = [flipped, cut, filled, doubled]
    return rng.choice(kinds)(rng, content)


def flipped(rng: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 4, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def filled(rng: Random, content: bytes) -> bytes:
    start, size = rng.randrange(len(content)), rng.choice([1, 8, 512])
    return (
        content[:start] + rng.choice([b"\0", b"\xff", b"9", b"["]) * size + content[start + size :]
    )


def doubled(rng: Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start // 2 :]


def strange_json(rng: Random, value: Any) -> Any:
    """A copy in which one place holds something else, or is missing. What is outermost changes
    rarely."""
    value = json.loads(json.dumps(value))
    parent, key = _place(rng, value)
    if parent is None:
        return _strange(rng)
    if rng.random() < 0.25:
        del parent[key]
    else:
        parent[key] = _strange(rng)
    return value


def _strange(rng: Random) -> Any:
    return nested(DEEP) if rng.random() < 0.06 else rng.choice(STRANGE)


def _place(rng: Random, value: Any) -> tuple[Any, Any]:
    parent, key = None, None
    while isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        parent, key = (
            value,
            rng.choice(list(value) if isinstance(value, dict) else range(len(value))),
        )
        value = value[key]
    return parent, key


def strange_text(rng: Random, content: bytes) -> bytes:
    """JSON or JSON lines with one strange value, written as Python writes it (NaN, half
    characters)."""
    lines = content.decode().splitlines()
    try:
        return json.dumps(strange_json(rng, json.loads(content))).encode()
    except ValueError:
        place = rng.randrange(len(lines))
        lines[place] = json.dumps(strange_json(rng, json.loads(lines[place])))
        return ("\n".join(lines) + "\n").encode()
