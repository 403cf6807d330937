"""The agreement suite: every check compares this installation with something independent and says what that does not establish."""

from collections.abc import Callable

import torch

from deepwright.refusals import expect
from deepwright.verify import checks_model, checks_rl, checks_training, checks_weights
from deepwright.verify.check import CHECKS, Check, Result, require

__all__ = [
    "CHECKS",
    "Check",
    "Result",
    "checks_model",
    "checks_rl",
    "checks_training",
    "checks_weights",
    "require",
    "run",
]


def run(report: Callable[[str], None] = print, part: str | None = None) -> int:
    """Runs every check here, or those of one part (`rl` for checks_rl); 0 when none failed, else 1. On one thread: with tensors this small, threads
    mostly wait for each other."""
    parts = sorted({found.part for found in CHECKS.values()})
    expect(part is None or part in parts, "part", part, f"one of {', '.join(parts)}")
    chosen = [found for found in CHECKS.values() if part in (None, found.part)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = [found.reported(report) for found in chosen]
    finally:
        torch.set_num_threads(threads)
    failed = [
        found.name
        for found, result in zip(chosen, results)
        if result is not None and not result.passed
    ]
    skipped = results.count(None)
    report(
        f"{len(chosen)} checks: {len(chosen) - len(failed) - skipped} passed, {skipped} skipped, {len(failed)} failed {' '.join(failed)}"
    )
    return 1 if failed else 0
