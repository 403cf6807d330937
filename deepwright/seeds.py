"""Random numbers as a function of (seed, purpose, item), so that item i of anything can be made without making the items before it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def stream(seed: int, purpose: int, i: int) -> random.Random:
    """The random numbers of item i for one purpose (0..255). Use `.random()` alone: Python keeps that sequence for good."""
    if seed < 0 or i < 0:
        raise ValueError(f"seed {seed}, item {i}: expected whole numbers >= 0")
    assert i < 1 << 64 and 0 <= purpose < 256
    return random.Random((seed << 72) | (purpose << 64) | i)


def pick(rng: random.Random, items: Sequence[T]) -> T:
    return items[int(rng.random() * len(items))]


def shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    """The items in a uniformly random order (Fisher-Yates)."""
    items = list(items)
    for last in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items
