"""What a person sees of long work (a progress bar on a terminal, plain lines elsewhere), and a
polite answer to Ctrl-C, `kill` and a closed terminal.

The clock is read for display only; nothing that is computed depends on it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

INTERRUPTED = 130  # exit code, by the shell's custom: 128 + SIGINT
WIDTH = 16  # columns of a bar
AROUND = WIDTH + 10  # of a line, those of its bar, its percentage and the blanks between
SLOW = 1.0  # seconds a step from which on they are shown instead of a rate
Whole = Callable[[float, float], float | None]


class Progress:
    """Counts `total` units of work and shows rate, time left and a short text. Use as a context manager; one inside another is shown
    below it while it lasts.

    brief: what is over within `seconds` leaves no trace, neither a bar nor a line. whole: of the seconds that this work still takes, and the share of it
    that is done, it makes the seconds that everything takes, None where that is not known."""

    def __init__(
        self,
        total: int,
        label: str,
        unit: str = "tokens",
        *,
        stream: TextIO | None = None,
        seconds: float = 10.0,
        brief: bool = False,
        whole: Whole = lambda left, done: None,
    ) -> None:
        self.total, self.label, self.unit = total, label, unit
        # while a bar is shown, rich has put something of its own in the place of sys.stderr
        outer = next((one.stream for one in reversed(_SHOWN) if one.usual), None)
        self.usual = stream is None
        self.stream = outer if self.usual and outer else _Patient(stream or sys.stderr)
        self.seconds = seconds  # between two plain lines
        self.brief, self.whole = brief, whole
        self.done = self._begun_at = self._calls = 0
        self._begun = self._shown = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self.stream.isatty():
            outer = next((one for one in reversed(_SHOWN) if one.stream.is_of(self.stream)), None)
            self._bar = outer._bar if outer else _make_bar(self.stream, transient=self.brief)
            fields = {"left": "", "rate": "", "text": ""}
            self._task = self._bar.add_task(
                self.label, total=self.total, completed=self.done, **fields
            )
            if not outer:
                self._bar.start()
            _SHOWN.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            _SHOWN.remove(self)
            if any(one._bar is self._bar for one in _SHOWN):
                self._bar.remove_task(self._task)
            else:
                self._bar.stop()
            self._bar = None

    def start_at(self, done: int) -> None:
        """Work that an earlier process did: it counts as done, not towards the rate."""
        self.done = self._begun_at = done
        self._begun = self._shown = time.monotonic()

    def advance(self, amount: int, text: str = "") -> None:
        self.done += amount
        self._calls += 1
        now = time.monotonic()
        last = self.done >= self.total and not self.brief
        if self._bar:
            done = self.done >= self.total
            left = f"in {clock(now - self._begun)}" if done else self._left(now)
            self._draw(left, self._pace(now), text)
        elif last or now - self._shown >= self.seconds:
            self._shown = now
            self.say(
                f"{self.label} {self.done:,}/{self.total:,} {self.unit} | {self._pace(now)} | {self._left(now)} | {text}"
            )

    def _draw(self, left: str, rate: str, text: str) -> None:
        """The line of a bar, its text cut to what the terminal leaves beside the widest of all lines."""
        others = [one for one in self._bar.tasks if one.id != self._task]
        wide = sum(
            max(map(len, (own, *theirs)))
            for own, theirs in (
                (self.label, [one.description for one in others]),
                (left, [one.fields["left"] for one in others]),
                (rate, ()),
            )
        )
        room = max(0, self._bar.console.width - AROUND - wide)
        self._bar.update(
            self._task, completed=self.done, left=left, rate=rate, text=text[:room].rstrip()
        )

    def say(self, sentence: str) -> None:
        """A line that stays."""
        if self._bar:
            self._bar.console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        else:
            print(sentence, file=self.stream, flush=True)

    def _rate(self, now: float) -> float:
        return (self.done - self._begun_at) / max(now - self._begun, 1e-9)

    def _pace(self, now: float) -> str:
        """Units a second; where a step takes longer than SLOW, how long."""
        steps = {"steps": self.done - self._begun_at, "tokens": self._calls}.get(self.unit, 0)
        each = (now - self._begun) / steps if steps else 0.0
        if each > SLOW:
            return f"{each:.1f} s a step"
        rate = self._rate(now)
        few = self.unit != "tokens" and 0 < rate < 10
        return f"{rate:.1f} {self.unit}/s" if few else f"{rate:,.0f} {self.unit}/s"

    def _left(self, now: float) -> str:
        """Time left of this work, and of the whole where that is known."""
        if self.done == self._begun_at:
            return "? left"
        seconds = max(0, self.total - self.done) / max(self._rate(now), 1e-9)
        whole = self.whole(seconds, self.done / max(self.total, 1))
        return f"{clock(seconds)} left" + ("" if whole is None else f" (all: {clock(whole)})")


_SHOWN: list[Progress] = []  # bars on terminals, the innermost last


def clock(seconds: float) -> str:
    """1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def say(sentence: str) -> None:
    """A line for who watches a run: above the bars, where there are some."""
    if _SHOWN:
        _SHOWN[-1].say(sentence)
    else:
        print(sentence, file=_Patient(sys.stderr), flush=True)


class _Patient:
    """A stream whose reader may go away: a closed terminal or pipe hears nothing, and the work goes
    on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def is_of(self, other: _Patient) -> bool:
        return self._stream is other._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _make_bar(stream: TextIO, transient: bool):
    from rich import progress  # only where there is a terminal
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=WIDTH),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[left]}", style="progress.remaining"),
        progress.TextColumn("{task.fields[rate]} {task.fields[text]}"),
    )
    return progress.Progress(*columns, console=Console(file=stream), transient=transient)


# Ctrl-C, `kill`, a terminal that is closed; the last is left ignored where it is (nohup).
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], object]


def _handle(handler: Handler) -> dict[int, object]:
    """Sets the handler of STOPS; returns the handlers before. Python delivers signals to the main
    thread only."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heard = [number for number in STOPS if number != signal.SIGHUP or not nohup]
    return {number: signal.signal(number, handler) for number in heard}


def _restore(before: dict[int, object]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Inside the block every signal of STOPS is a KeyboardInterrupt, as Ctrl-C is: what was begun
    is left in order, and the command ends with INTERRUPTED."""
    before = _handle(signal.default_int_handler)
    try:
        yield
    finally:
        _restore(before)


class StopRequest:
    """Inside the `with` block the first signal of STOPS only sets `asked`, so that a step can
    finish; a second one acts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._before = _handle(self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._release()

    def _release(self) -> None:
        _restore(self._before)
        self._before = {}
