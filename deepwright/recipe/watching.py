"""What a person sees of sampling and judging: bars over answers, whoever samples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from deepwright.evaluate import Budgeted
from deepwright.sampler import Sampler, Watchable
from deepwright.train.progress import Progress


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
