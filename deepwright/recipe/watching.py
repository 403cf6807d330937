"""What a person sees of sampling and judging: bars over answers, whoever samples."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from deepwright.evaluate import Budgeted
from deepwright.sampler import Sampler, Watchable
from deepwright.train.progress import Progress

PATIENCE = 3.0  # seconds that a round of sampling may take before it has a bar of its own
BETWEEN_LINES = 60.0  # seconds, where there is no terminal


@contextlib.contextmanager
def watched(
    sampler: Sampler, answers: int, label: str = "sampling", *, brief: bool = True
) -> Iterator[Callable[[int], None]]:
    """Shows how many answers are sampled, then how many are judged, of which what is yielded has to be told. `brief` as in Progress."""
    own, calls = (sampler.sampler, 2) if isinstance(sampler, Budgeted) else (sampler, 1)
    judging: list[Progress] = []
    with contextlib.ExitStack() as shown, telling(own) as tell:
        sampling = shown.enter_context(
            Progress(calls * answers, label, unit="answers", brief=brief)
        )
        tell(lambda ended, running: sampling.advance(ended, f"{running} running"))

        def judged(count: int) -> None:
            if not judging:
                shown.close()  # one bar at a time
                bar = Progress(answers, "judging", unit="answers", brief=brief)
                judging.append(shown.enter_context(bar))
            judging[0].advance(count)

        yield judged


@contextlib.contextmanager
def telling(sampler: Sampler) -> Iterator[Callable[[Callable[[int, int], None]], None]]:
    """Whom a sampler tells of its work is set by what is yielded, and is afterwards as it was."""
    if not isinstance(sampler, Watchable):
        yield lambda watch: None
        return
    before = sampler.watch

    def tell(watch: Callable[[int, int], None]) -> None:
        sampler.watch = watch

    try:
        yield tell
    finally:
        sampler.watch = before


@contextlib.contextmanager
def rounds(
    sampler: Sampler, answers: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """While a training goes on inside, each of its rounds of so many answers is shown, where it takes long."""
    now = _Round(answers, clock)
    with telling(sampler) as tell:
        tell(now.told)
        try:
            yield
        finally:
            now.end()


class _Round:
    def __init__(self, answers: int, clock: Callable[[], float]) -> None:
        self.answers, self.clock = answers, clock
        self.done, self.begun = 0, 0.0
        self.bar: Progress | None = None

    def told(self, ended: int, running: int) -> None:
        self.begun = self.begun or self.clock()
        self.done += ended
        if self.done >= self.answers:
            self.end()
        elif self.bar is None and self.clock() - self.begun > PATIENCE:
            bar = Progress(
                self.answers, "sampling", unit="answers", brief=True, seconds=BETWEEN_LINES
            )
            bar.start_at(self.done)
            self.bar = bar.__enter__()
            bar.advance(0, f"{running} running")
        elif self.bar is not None:
            self.bar.advance(ended, f"{running} running")

    def end(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
        self.done, self.begun, self.bar = 0, 0.0, None
