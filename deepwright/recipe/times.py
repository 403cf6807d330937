"""On what the wall time of a run is spent: at every moment one part of one stage is charged, or none, so that the parts and the rest add up.

For a reader alone: nothing that is computed looks at it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

TRAINING, EVALUATION, SAMPLING = "training", "evaluation", "sampling"
REWARD_MODELS = "reward models"
Table = dict[str, dict[str, float]]  # stage -> part -> seconds


class Times:
    """Seconds by stage and part, those of an earlier process of the run among them."""

    def __init__(
        self,
        before: Mapping[str, Mapping[str, float]] = {},
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spent: Table = {stage: dict(parts) for stage, parts in before.items()}
        self._open: list[tuple[str, str]] = []  # the innermost last, which is charged
        self._clock = clock
        self._since = clock()

    @contextlib.contextmanager
    def of(self, stage: str, part: str) -> Iterator[None]:
        """What is done inside is charged to a part of a stage; what is opened inside that, to the inner one alone."""
        self._charge()
        self._open.append((stage, part))
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def table(self) -> Table:
        """Up to now, rounded to a tenth of a second."""
        self._charge()
        return {
            stage: {part: round(seconds, 1) for part, seconds in parts.items()}
            for stage, parts in self._spent.items()
        }

    def _charge(self) -> None:
        now = self._clock()
        if self._open:
            stage, part = self._open[-1]
            parts = self._spent.setdefault(stage, {})
            parts[part] = parts.get(part, 0.0) + now - self._since
        self._since = now
