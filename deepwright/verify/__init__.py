"""The agreement suite: every check compares this installation with something independent and says what that does not establish."""

from collections.abc import Callable

import torch

from deepwright.verify import checks_model, checks_rl, checks_training, checks_weights
from deepwright.verify.check import CHECKS, Check, Outcome, Result, require, run_all

__all__ = [
    "CHECKS", "Check", "Outcome", "Result", "checks_model", "checks_rl", "checks_training", "checks_weights", "require", "run",
    "run_all",
]  # fmt: skip


def part_of(found: Check) -> str:
    return found.run.__module__.rpartition("checks_")[2]


def run(report: Callable[[str], None] = print, part: str | None = None) -> int:
    """Runs every check here, or those of one part (`rl` for checks_rl); 0 when none failed, else 1. On one thread: with tensors this small, threads
    mostly wait for each other."""
    parts = sorted({part_of(found) for found in CHECKS.values()})
    if part is not None and part not in parts:
        raise ValueError(f"part is {part!r}, expected one of {', '.join(parts)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        outcomes = run_all((name for name, found in CHECKS.items() if part == part_of(found)), report)  # none: all
    finally:
        torch.set_num_threads(threads)
    failed = [outcome.check.name for outcome in outcomes if outcome.result is not None and not outcome.result.passed]
    skipped = sum(outcome.result is None for outcome in outcomes)
    report(
        f"{len(outcomes)} checks: {len(outcomes) - len(failed) - skipped} passed, {skipped} skipped, {len(failed)} failed {' '.join(failed)}"
    )
    return 1 if failed else 0
