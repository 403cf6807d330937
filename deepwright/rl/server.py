"""Questions in JSON to a server that nobody vouches for, many at once.

An answer has a deadline over all of it and a largest size, is not compressed, and comes from the
address that was asked: no redirects. What passes by itself (a connection that is refused or breaks
off, a server that says it is busy) is tried again a few times; everything else, and that in the
end, is a ValueError of one sentence that names the address.
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from deepwright.refusals import quoted, words_of

T = TypeVar("T")
BUSY = (429, 502, 503, 504)
PAUSES = (1.0, 4.0)  # seconds before the second try and the third
SLACK = 10.0  # seconds beyond the deadline until a thread that never came back is given up
PIECE = 1 << 16  # bytes read at once
SHOWN = 300  # bytes of an error page


class _Passing(Exception):
    """What another try may not meet."""


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None  # so that the redirect itself is the answer


_OPENER = urllib.request.build_opener(_StayHere)


@dataclass(frozen=True)
class Server:
    """`headers` go with every question; `seconds` is what one may take, all tries together."""

    headers: Mapping[str, str]
    seconds: float

    def ask(self, url: str, body: Mapping[str, Any], most: int) -> bytes:
        """The answer, of at most `most` bytes."""
        end = time.monotonic() + self.seconds
        for number, pause in enumerate((*PAUSES, None), 1):
            try:
                return self._ask(url, body, most, end)
            except _Passing as fault:
                if pause is None or time.monotonic() + pause > end:
                    raise ValueError(f"{url} {fault} (asked {number} times)") from None
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _ask(self, url: str, body: Mapping[str, Any], most: int, end: float) -> bytes:
        left = max(0.001, end - time.monotonic())
        try:
            question = urllib.request.Request(url, json.dumps(body).encode(), dict(self.headers))
            with _OPENER.open(question, timeout=left) as answer:
                return _whole(answer, url, most, end)
        except urllib.error.HTTPError as error:
            raise _said(error, url, end) from None
        except TimeoutError:
            raise self._late(url) from None
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            cause = getattr(error, "reason", error)  # what urllib wraps
            if isinstance(cause, TimeoutError):
                raise self._late(url) from None
            why = f"did not answer: {words_of(error, SHOWN)}"
            if isinstance(cause, (ConnectionError, http.client.IncompleteRead)):
                raise _Passing(why) from None
            raise ValueError(f"{url} {why}") from None

    def _late(self, url: str) -> ValueError:
        return ValueError(f"{url} did not answer in full within {self.seconds:g} s")


def _whole(answer: http.client.HTTPResponse, url: str, most: int, end: float) -> bytes:
    coding = answer.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise ValueError(f"{url} answered with {quoted(coding)} coding, expected none")
    said = _read(answer, most, end)
    if len(said) > most:
        raise ValueError(f"{url} answered with more than {most:,} bytes")
    if answer.length:  # the server said how many there would be
        raise http.client.IncompleteRead(b"", answer.length)
    return said


def _read(answer: Any, most: int, end: float) -> bytes:
    """Up to one byte more than `most`. The clock is looked at between pieces: bytes that drip come
    one by one, and a timeout of the socket begins anew with each."""
    said = bytearray()
    while len(said) <= most and (piece := answer.read1(min(PIECE, most + 1 - len(said)))):
        said += piece
        if time.monotonic() > end:
            raise TimeoutError
    return bytes(said)


def _said(error: urllib.error.HTTPError, url: str, end: float) -> Exception:
    """What an answer other than 200 is raised as."""
    with error:
        if 300 <= error.code < 400:
            there = quoted(error.headers.get("Location"))
            return ValueError(
                f"{url} answered {error.code} and points to {there}: give that address"
            )
        try:
            text = _read(error, SHOWN, end)[:SHOWN].decode(errors="replace")
        except (OSError, http.client.HTTPException):
            text = "without a text"
        why = f"answered {error.code}: {' '.join(text.split())}"
        return _Passing(why) if error.code in BUSY else ValueError(f"{url} {why}")


def ask_each(
    ask: Callable[[int], T], count: int, parallel: int, seconds: float, url: str
) -> Iterator[tuple[int, T]]:
    """(i, ask(i)) for each i below `count` as they come, `parallel` at once. The first that raises
    ends all; none is waited for after that, nor after Ctrl-C: the threads die with the process.
    `seconds`: the deadline of one. That none arrives for so long (a name that never resolves, a
    header that drips) is a ValueError about `url`."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
    over = threading.Event()
    for i in range(count):
        waiting.put(i)
    for _ in range(min(parallel, count)):
        threading.Thread(target=_work, args=(ask, waiting, ended, over), daemon=True).start()
    try:
        for _ in range(count):
            i, value, error = ended.get(timeout=seconds + SLACK)
            if error is not None:
                raise error
            yield i, value
    except queue.Empty:
        raise ValueError(f"{url} did not answer in full within {seconds:g} s") from None
    finally:
        over.set()


def _work(
    ask: Callable[[int], T],
    waiting: queue.SimpleQueue[int],
    ended: queue.SimpleQueue[tuple[int, Any, BaseException | None]],
    over: threading.Event,
) -> None:
    while not over.is_set():
        try:
            i = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            ended.put((i, ask(i), None))
        except BaseException as error:
            ended.put((i, None, error))
