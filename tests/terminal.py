"""A command on a terminal of its own, typed at and read as a person would."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

CTRL_C, CTRL_D = "\x03", "\x04"


class Terminal:
    """`python -m deepwright WORDS` whose standard streams are a pseudo-terminal, which is its
    controlling one: Ctrl-C is a signal."""

    def __init__(self, words: list[str], **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.seen, self._place = "", 0

        def own() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        known = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deepwright", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=own,
            env={**known, "TERM": "xterm", "COLUMNS": "200", **environment},
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, seconds: float = 90) -> re.Match[str]:
        """What the screen shows next, behind what was expected before."""
        end = time.monotonic() + seconds
        while (found := re.compile(pattern, re.DOTALL).search(self.seen, self._place)) is None:
            left = end - time.monotonic()
            assert left > 0 and self._read(left), (
                f"no {pattern!r} after {self.seen[self._place :]!r}"
            )
        self._place = found.end()
        return found

    def interrupt(self, pattern: str) -> None:
        """Ctrl-C at a prompt. Python does not see one between the prompt and its wait for a key until
        there is a key, so it is pressed again where nothing comes of it, as a person does."""
        for _ in range(5):
            time.sleep(0.5)
            self.type(CTRL_C)
            with contextlib.suppress(AssertionError):
                self.expect(pattern, seconds=5)
                return
        raise AssertionError(f"no {pattern!r} after Ctrl-C")

    def ended(self, seconds: float = 30) -> int:
        """The exit status, with everything read."""
        end = time.monotonic() + seconds
        while self._read(max(0.0, end - time.monotonic())):
            pass
        return self.process.wait(max(1.0, end - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        """Whether there was something."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            read = os.read(self.master, 1 << 16)
        except OSError:  # nobody writes any more
            return False
        self.seen += read.decode(errors="replace")
        return bool(read)


@contextlib.contextmanager
def terminal(*words: str, **environment: str) -> Iterator[Terminal]:
    one = Terminal(list(words), **environment)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        os.close(one.master)
