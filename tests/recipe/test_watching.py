"""Who watches sampling sees what takes long, and nothing flickers by."""

from __future__ import annotations

import io

import pytest

from deepwright.recipe.watching import PATIENCE, rounds


class Sampler:
    """Tells of its answers; each takes so many seconds of a clock that is moved by hand."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 100.0
        self.watch = self.before = lambda ended, running: None

    def clock(self) -> float:
        return self.now

    def sample(self, answers: int) -> None:
        for left in reversed(range(answers)):
            self.now += self.seconds
            self.watch(1, left)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seconds", "shown"), [(PATIENCE / 20, False), (PATIENCE / 2, True)])
def test_a_round_that_takes_long_has_a_bar(monkeypatch, seconds, shown):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    sampler = Sampler(seconds)
    with rounds(sampler, 8, sampler.clock):
        for _ in range(3):
            sampler.sample(8)
    assert ("sampling" in screen.getvalue()) == shown
    assert sampler.watch is sampler.before


def test_a_round_that_was_broken_off_leaves_nothing(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    sampler = Sampler(PATIENCE)
    with pytest.raises(KeyboardInterrupt), rounds(sampler, 8, sampler.clock):
        sampler.sample(5)
        raise KeyboardInterrupt
    assert sampler.watch is sampler.before
    from deepwright.train import progress

    assert progress._SHOWN == []


def test_a_sampler_that_tells_nothing_is_left_alone():
    with rounds(object(), 8):
        pass
