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


class Progress:
    """Counts `total` units of work and shows rate, time left and a short text. Use as a context manager."""

    def __init__(
        self,
        total: int,
        label: str,
        unit: str = "tokens",
        *,
        stream: TextIO | None = None,
        seconds: float = 10.0,
    ) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.stream = _Patient(stream or sys.stderr)
        self.seconds = seconds  # between two plain lines
        self.done = self._begun_at = 0
        self._begun = self._shown = time.monotonic()
        self._bar = _make_bar(self.stream) if self.stream.isatty() else None
        self._task = self._bar.add_task(label, total=total, rate="", text="") if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def start_at(self, done: int) -> None:
        """Work that an earlier process did: it counts as done, not towards the rate."""
        self.done = self._begun_at = done
        self._begun = self._shown = time.monotonic()

    def advance(self, amount: int, text: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        last = self.done >= self.total
        if self._bar:
            self._bar.update(
                self._task,
                completed=self.done,
                rate=f"{self._rate(now):,.0f} {self.unit}/s",
                text=text,
            )
        elif last or now - self._shown >= self.seconds:
            self._shown = now
            self.say(
                f"{self.label} {self.done:,}/{self.total:,} {self.unit} | {self._rate(now):,.0f}/s | {self._left(now)} left | {text}"
            )

    def say(self, sentence: str) -> None:
        """A line that stays."""
        if self._bar:
            self._bar.console.print(sentence, highlight=False, markup=False)
        else:
            print(sentence, file=self.stream, flush=True)

    def _rate(self, now: float) -> float:
        return (self.done - self._begun_at) / max(now - self._begun, 1e-9)

    def _left(self, now: float) -> str:
        if self.done == self._begun_at:
            return "?"
        seconds = round(max(0, self.total - self.done) / max(self._rate(now), 1e-9))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _make_bar(stream: TextIO):
    from rich import progress  # only where there is a terminal
    from rich.console import Console

    name, numbers = (
        progress.TextColumn("{task.description}"),
        progress.TextColumn("{task.fields[rate]} {task.fields[text]}"),
    )
    columns = (
        name,
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        numbers,
    )
    return progress.Progress(*columns, console=Console(file=stream))


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
