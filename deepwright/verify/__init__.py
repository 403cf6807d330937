"""The agreement suite: every check compares this installation with something independent and says what that does not establish."""

from collections.abc import Callable

import torch

from deepwright.verify import checks_model, checks_training, checks_weights
from deepwright.verify.check import CHECKS, Check, Outcome, Result, require, run_all

__all__ = ["CHECKS", "Check", "Outcome", "Result", "checks_model", "checks_training", "checks_weights", "require", "run", "run_all"]


def run(report: Callable[[str], None] = print) -> int:
    """Runs every check here; 0 when none failed, else 1. On one thread: with tensors this small, threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        outcomes = run_all(report=report)
    finally:
        torch.set_num_threads(threads)
    failed = [outcome.check.name for outcome in outcomes if outcome.result is not None and not outcome.result.passed]
    skipped = sum(outcome.result is None for outcome in outcomes)
    report(
        f"{len(outcomes)} checks: {len(outcomes) - len(failed) - skipped} passed, {skipped} skipped, {len(failed)} failed {' '.join(failed)}"
    )
    return 1 if failed else 0
