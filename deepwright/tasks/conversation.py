"""A job in a sandbox that is talked to, a line at a time."""

from __future__ import annotations

import os
import selectors
import time
from dataclasses import replace

from deepwright.tasks.sandbox import PATIENCE, STARTING, Ended, Job, Started, text_of

MOST = 16 << 20  # bytes of a line


class Conversation:
    """`with Conversation(job, kind) as it`: the job runs until the block is left, or it ends."""

    def __init__(self, job: Job, kind: str) -> None:
        self._limits = job.limits
        stdin, self._to = os.pipe()
        self._from, stdout = os.pipe()
        self._errors = os.memfd_create("err")
        try:
            self._started = Started(job, kind, stdin, stdout, self._errors)
        except BaseException:
            for file in (self._to, self._from, self._errors):
                os.close(file)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        self._heard, self._said_all, self._ended = bytearray(), False, None
        self.waited = 0.0  # seconds for its lines

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tell(self, line: bytes) -> None:
        """Sends a line; where nobody reads it any more, the silence that follows says so."""
        rest = memoryview(line.rstrip(b"\n") + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._to, rest) :]
        except BrokenPipeError:
            pass

    def hear(self) -> bytes | None:
        """The next line; None where the job has ended, or says too much, or nothing in time."""
        begun = time.monotonic()
        while b"\n" not in self._heard:
            going_on = self._read(begun + STARTING + PATIENCE * self._limits.seconds)
            if not going_on:
                break
        self.waited += time.monotonic() - begun
        line, end, rest = self._heard.partition(b"\n")
        if not end:
            return None
        self._heard = rest
        return bytes(line)

    def _read(self, deadline: float) -> bool:
        """One piece more of what it says; False where there is none, or too much already."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return False
        piece = os.read(self._from, 1 << 16)
        self._heard += piece
        self._said_all = not piece
        return bool(piece) and len(self._heard) <= MOST

    def close(self) -> Ended:
        """Ends the job, and says how it ended where it did so by itself."""
        if self._ended is None:
            self._started.ended(STARTING if self._said_all else 0.0)  # its report is on its way
            self._started.close()
            self._ended = self._started.told("", text_of(self._errors, self._limits.file_bytes))
            if len(self._heard) > MOST:
                self._ended = replace(self._ended, failed="", stopped=f"more than {MOST >> 20} MB")
            for file in (self._to, self._from, self._errors):
                os.close(file)
        return self._ended
