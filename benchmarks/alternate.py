"""Two sides measured in turn: each lives in its own process, works only when told to, and says at the end how much memory it took.

Own processes keep peak memory apart and let no side profit from the other's settings; turns put both under the same noise.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

# prepares a side in its process; the result does one round and returns the units of work done
Make = Callable[[], Callable[[], int]]


@dataclass(frozen=True)
class Side:
    rate: float  # units per second, median over the rounds
    rates: tuple[float, ...]
    peak_mb: float


def alternate(
    sides: Mapping[str, Make], rounds: int, threads: int, warm_up: int = 1
) -> dict[str, Side]:
    """Runs every side `warm_up` + `rounds` times in turn."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name, make in sides.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, make, threads), daemon=True)
        process.start()
        there.close()  # so that a side that dies is noticed
        processes.append(process)
        assert here.recv() == "ready"
        pipes[name] = here
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(warm_up + rounds):
        for name, pipe in pipes.items():
            pipe.send("go")
            found[name].append(pipe.recv())
    peaks = {}
    for name, pipe in pipes.items():
        pipe.send("stop")
        peaks[name] = pipe.recv()
    for process in processes:
        process.join()
    rates = {name: tuple(values[warm_up:]) for name, values in found.items()}
    return {
        name: Side(statistics.median(values), values, peaks[name]) for name, values in rates.items()
    }


def _serve(pipe: Connection, make: Make, threads: int) -> None:
    torch.set_num_threads(threads)
    work = make()
    pipe.send("ready")
    while pipe.recv() == "go":
        begun = time.perf_counter()
        units = work()
        pipe.send(units / (time.perf_counter() - begun))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def gemm_rate(dtype: torch.dtype = torch.float32, size: int = 1024, seconds: float = 1.0) -> float:
    """FLOP/s of a square matrix product: the floor of everything that multiplies."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        for _ in range(4):
            torch.mm(a, b)
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - begun))
    return best


def read_rate(megabytes: int = 256) -> float:
    """Bytes per second of reading memory far larger than any cache."""
    data = torch.ones(megabytes << 18)
    best = 0.0
    for _ in range(8):
        begun = time.perf_counter()
        data.sum()
        best = max(best, (megabytes << 20) / (time.perf_counter() - begun))
    return best
