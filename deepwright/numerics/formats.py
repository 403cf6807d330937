"""Which number format trains faster here: both are timed once per machine, and the answer is kept.

What a processor says of itself is no answer. Of those with instructions for bfloat16 one multiplies
in it 2.3 times as fast as in float32 (AMD's Zen 4), another half as fast (Intel's without AMX). So
the number work of the laptop model's layers (attention, dense, experts; forward and backward, on as
many tokens as it trains on) is timed in both formats in turn. bfloat16 must win clearly: float32 is
the more exact. Processor seconds of all threads are counted, not the clock's: other programs on the
machine disturb them little, and the answer is kept for long.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from deepwright.files import read_json, write_json
from deepwright.numerics import cache, compiled
from deepwright.numerics.attention import expanded_attention
from deepwright.numerics.build import processor_flags, processor_name
from deepwright.numerics.experts import expert_mlp
from deepwright.numerics.pointwise import feed_forward, linear
from deepwright.numerics.precision import NAMES
from deepwright.refusals import expect

S = TypeVar("S")
AUTO, FIELDS = "auto", ("compute", "muon_dtype")  # of settings, wherever they stand in a tree
ROUNDS = 5  # of each format; fewer where two of them say the same by a factor of CLEAR
MARGIN, CLEAR = 1.1, 1.5  # how much faster bfloat16 must be
ROWS, LENGTH = 16, 256  # of tokens; the widths are those of the preset `laptop`
_WIDTH, _INNER, _DENSE, _EXPERTS, _CHOSEN, _HEADS, _VALUES, _ROTARY = 128, 96, 384, 8, 2, 4, 32, 16


@dataclass(frozen=True)
class Race:
    """Processor seconds of a round in each format, the middle ones, and where they were taken."""

    float32: float
    bfloat16: float
    processor: str
    threads: int

    @property
    def winner(self) -> str:
        return "bfloat16" if self.float32 >= MARGIN * self.bfloat16 else "float32"

    @property
    def reason(self) -> str:
        """In a phrase."""
        times = f"{1e3 * self.float32:.0f} ms in float32, {1e3 * self.bfloat16:.0f} in bfloat16"
        where = f"{self.processor}, {self.threads} thread{'s' * (self.threads > 1)}"
        return f"layers of the laptop model take {times} ({where})"


def check_format(name: str, setting: str = "compute") -> None:
    """ValueError for what is no number format; `setting` names it. Nothing is timed."""
    names = f"'{AUTO}', {' or '.join(map(repr, NAMES))}"
    expect(name == AUTO or name in NAMES, setting, name, names)


def compute_dtype(name: str) -> tuple[torch.dtype, str]:
    """'float32', 'bfloat16', or 'auto': what trains faster on this machine. -> (dtype, reason)."""
    check_format(name)
    if name in NAMES:
        return NAMES[name], "asked for"
    if torch.cuda.is_available():
        return torch.bfloat16, "an accelerator is present"
    race = held()
    return NAMES[race.winner], race.reason


def race_held() -> dict[str, Any] | None:
    """What decided 'auto' in this process, for the records of a run; None where nothing asked."""
    race = held() if _held.cache_info().currsize else None
    return None if race is None else {"chosen": race.winner, **dataclasses.asdict(race)}


def settled(settings: S, kept: Mapping[str, Any] | None = None) -> S:
    """A dataclass, and all those in it, with every format decided that is 'auto': as in `kept`, the
    table of the settings that a run began with, else by what is faster here."""
    kept, changed = kept or {}, {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value, before = getattr(settings, field.name), kept.get(field.name)
        if dataclasses.is_dataclass(value):
            new = settled(value, before if isinstance(before, Mapping) else None)
        elif field.name in FIELDS and value == AUTO:
            new = before if before in (AUTO, *NAMES) else _faster()
        else:
            continue
        changed |= {field.name: new} if new != value else {}
    return dataclasses.replace(settings, **changed) if changed else settings  # type: ignore


def _faster() -> str:
    return str(compute_dtype(AUTO)[0]).removeprefix("torch.")


def held() -> Race:
    """The race of this machine with as many threads as now: remembered, read, or held now."""
    return _held(torch.get_num_threads())


@functools.cache
def _held(threads: int) -> Race:
    known = {"processor": processor_name(), "threads": threads}
    race = _read(known)
    if race is None:
        race = Race(*_times(), **known)
        with contextlib.suppress(OSError):  # then the next process holds it again
            write_json(path := _file(known), dataclasses.asdict(race))
            path.chmod(0o600)
    return race


def _file(known: Mapping[str, Any]) -> Path:
    """Where the race is kept: under a digest of all that decides it."""
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")]
    own = Path(__file__).read_text()
    parts = [known, processor_flags(), torch.__version__, limits, compiled.reason()[0], own]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return cache.folder() / f"formats-{digest}.json"


def _read(known: Mapping[str, Any]) -> Race | None:
    """What was kept, if it is whole, of this machine, and this user's own."""
    try:
        path = _file(known)
        table = read_json(path) if cache.not_trusted(path) is None else {}
        race = Race(**table)
    except (OSError, ValueError, TypeError):
        return None
    times = (race.float32, race.bfloat16)
    whole = all(isinstance(seconds, float) and 0 < seconds < 3600 for seconds in times)
    ours = known == {"processor": race.processor, "threads": race.threads}
    return race if whole and ours else None


@torch.inference_mode(False)
@torch.enable_grad()
def _times() -> tuple[float, float]:
    """Of a round in float32 and in bfloat16: the middle one of several, taken in turn."""
    work, rounds = _work(), []
    for _ in range(ROUNDS + 1):
        rounds.append([_seconds(work, dtype) for dtype in NAMES.values()])
        ratios = [float32 / bfloat16 for float32, bfloat16 in rounds[1:]]  # the first warms up
        if len(ratios) > 1 and (min(ratios) > CLEAR or max(ratios) < 1 / CLEAR):
            break
    float32, bfloat16 = (statistics.median(seconds) for seconds in zip(*rounds[1:], strict=True))
    return float32, bfloat16


def _seconds(work: Callable[[torch.dtype], None], dtype: torch.dtype) -> float:
    begun = time.process_time()
    work(dtype)
    return time.process_time() - begun


def _work() -> Callable[[torch.dtype], None]:
    """Attention, a dense layer and experts, one after the other, forward and backward."""
    draw, tokens = torch.Generator().manual_seed(0), ROWS * LENGTH
    shapes = (
        (_HEADS * (_VALUES + _ROTARY), _WIDTH),
        (_HEADS * 2 * _VALUES, _WIDTH),
        (_ROTARY, _WIDTH),
        (_WIDTH, _HEADS * _VALUES),
        (2 * _DENSE, _WIDTH),
        (_WIDTH, _DENSE),
        (_EXPERTS, 2 * _INNER, _WIDTH),
        (_EXPERTS, _WIDTH, _INNER),
    )
    leaves = [(torch.randn(*s, generator=draw) * s[-1] ** -0.5).requires_grad_() for s in shapes]
    query, key_value, key, out, dense_up, dense_down, gate_up, down = leaves
    x_TD = torch.randn(tokens, _WIDTH, generator=draw)
    ids_TK = torch.rand(tokens, _EXPERTS, generator=draw).topk(_CHOSEN).indices
    weights_TK = torch.rand(tokens, _CHOSEN, generator=draw)

    def work(dtype: torch.dtype) -> None:
        x, place = x_TD.to(dtype), (ROWS, LENGTH, _HEADS, -1)
        heads = [linear(x, weight).view(place) for weight in (query, key_value)]
        seen = expanded_attention(*heads, linear(x, key).view(ROWS, LENGTH, -1), 0.1, None)
        x = feed_forward(linear(seen.reshape(tokens, -1), out), dense_up, dense_down)
        y = expert_mlp(x, ids_TK, weights_TK, gate_up, down)
        torch.autograd.grad(y.float().sum(), leaves)

    return work
