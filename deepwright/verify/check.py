"""The nouns of `deepwright verify`: a Check compares two computations of the same thing and yields a Result, an error and its bound."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """`error` is measured as the check says; `bound` was derived before measuring. `detail` names where the error was largest."""

    error: float
    bound: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= self.bound  # false for NaN


@dataclass(frozen=True)
class Check:
    name: str
    compares: str  # what is compared with what, and how the error is measured
    leaves_open: str  # what a pass does not establish
    run: Callable[[], Result]
    needs: tuple[
        str, ...
    ] = ()  # packages without which it is skipped, as "name" or "name>=major.minor"

    @property
    def part(self) -> str:
        """`rl` for what checks_rl.py holds."""
        return self.run.__module__.rpartition("checks_")[2]

    @property
    def missing(self) -> list[str]:
        return [need for need in self.needs if not _installed(need)]

    def reported(self, report: Callable[[str], None]) -> Result | None:
        """Runs it and says in three lines what came out; None, in one line, for want of a package."""
        if self.missing:
            report(f"skipped  {self.name}: {self.missing[0]} not installed")
            return None
        start, r = time.perf_counter(), self.run()
        seconds, word = time.perf_counter() - start, "ok      " if r.passed else "FAILED  "
        detail = f" ({r.detail})" if r.detail else ""
        report(
            f"{word} {self.name}: error {r.error:.2g}, bound {r.bound:.2g}{detail}, {seconds:.1f} s"
        )
        report(f"         {self.compares}")
        report(f"         Not established: {self.leaves_open}")
        return r


def _installed(need: str) -> bool:
    package, _, least = need.partition(">=")
    if importlib.util.find_spec(package) is None:
        return False
    return not least or _numbers(importlib.metadata.version(package)) >= _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


CHECKS: dict[str, Check] = {}


def check(
    compares: str, leaves_open: str, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[], Result]], Callable[[], Result]]:
    """Registers a plain function as the check of its own name."""

    def register(run: Callable[[], Result]) -> Callable[[], Result]:
        assert run.__name__ not in CHECKS, run.__name__
        CHECKS[run.__name__] = Check(run.__name__, compares, leaves_open, run, needs)
        return run

    return register


def require(name: str) -> None:
    """Runs one check; AssertionError when it fails."""
    result = CHECKS[name].run()
    assert result.passed, (
        f"{name}: error {result.error:.3g} exceeds {result.bound:.3g} {result.detail}"
    )


def largest(errors: dict[str, float], bound: float) -> Result:
    """The result of many comparisons under one bound: the worst, by name. A NaN is the worst of all."""
    worst = max(
        errors, key=lambda name: float("inf") if errors[name] != errors[name] else errors[name]
    )
    return Result(errors[worst], bound, f"largest at {worst}, of {len(errors)}")
