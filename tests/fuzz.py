"""Damaged input on purpose: seeded mutations, tried in processes with a limit on time and on
memory.

A case is a number. A check is a function `check(draw, folder)`: it makes its own damaged input from
`draw` (a random.Random of the case) in the empty `folder`, and opens it. The case is survived if
the check returns, or raises one sentence: a ValueError of ours or an OSError of at most 800
characters that names a file of the folder. Everything else is bad: another exception, a sentence
too long, a signal, an exit, more than `seconds` of processor time, more than `memory` bytes beyond
what the process had before its first case.

    survive("tests.models.damage", ["config", "index"], range(300))

asserts that every case of every check in that module is survived, and counts them by outcome:
{("config", "opened"): 41, ("config", "refused"): 259, ...}. `try_one(module, check, case)` runs one
case in this process, for a debugger. `damaged_json` and `damaged_bytes` are the mutations.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import os
import random
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

Check = Callable[[random.Random, Path], Any]
ROOT = Path(__file__).parents[1]
LONGEST, SECONDS, MEMORY = 800, 10.0, 2 << 30
START_SECONDS, GRACE = 120.0, 6.0  # to import a check; times `seconds` on the clock before a kill


# ---- mutations

NUMBERS = (
    0, -1, 1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63),
    10**30, 10**400, 0.5, -0.0, 1e-320, 1e30, 1e308, -1e308,
)  # fmt: skip
VALUES = (
    None, True, False, "", "x", "../x", "/etc/passwd", "\u0000", "日本", [], {}, [None], [[]], {"a": 1}, [1, "a"],
    {"": None}, *NUMBERS,
)  # fmt: skip
# What no JSON writer writes: put into the text where a value was.
# DEEP: more levels than a reader expects, fewer than Python's own bound.
DEEP = "[" * 900 + "]" * 900
RAW = (
    "NaN", "-Infinity", "1e999", "9" * 5000, DEEP, "[" * 50_000, '{"a":' * 50_000, '"', "]", "",
    "\\ud800", '"\\ud800"', "0x1", "'a'",
)  # fmt: skip
_MARK = "\u2301mark\u2301"
HEAD = 4096  # bytes of a file that most damage falls into


def damaged_json(value: Any, draw: random.Random) -> bytes:
    """JSON text of `value` with one to three places damaged: another value, a key gone, renamed,
    given twice, nested deeply; and now and then the text itself cut, or its bytes changed."""
    value, raw = json.loads(json.dumps(value)), None
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        value, found = _damage_place(value, draw)
        raw = found or raw
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    if raw is not None:
        text = text.replace(json.dumps(_MARK), raw, 1).replace(
            json.dumps(_MARK, ensure_ascii=False), raw, 1
        )
    data = text.encode("utf-8", "surrogatepass")
    return damaged_bytes(data, draw) if draw.random() < 0.1 else data


def _damage_place(value: Any, draw: random.Random) -> tuple[Any, str | None]:
    """A random descent to one place."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.08:
        return _damaged_value(value, draw)
    key = draw.choice(sorted(value)) if isinstance(value, dict) else draw.randrange(len(value))
    if isinstance(value[key], (dict, list)) and value[key] and draw.random() < 0.7:
        value[key], raw = _damage_place(value[key], draw)
        return value, raw
    how = draw.choice(("value", "value", "value", "value", "gone", "renamed", "moved"))
    if how == "value":
        value[key], raw = _damaged_value(value[key], draw)
        return value, raw
    taken = value.pop(key)
    if how == "renamed" and isinstance(value, dict):
        value[draw.choice((key + "_", key.upper(), "", "x" * 10_000, "a\nb"))] = taken
    elif how == "moved" and isinstance(value, dict) and value:
        value[draw.choice(sorted(value))] = taken
    elif isinstance(value, list):
        value += [taken] * draw.choice((0, 2, 1000))
    return value, None


def _damaged_value(value: Any, draw: random.Random) -> tuple[Any, str | None]:
    how = draw.random()
    if how < 0.15:
        return _MARK, draw.choice(RAW)
    if how < 0.25:
        return draw.choice(([value], {"content": value}, [value] * 3)), None
    if how < 0.35:
        return draw.choice(("y" * 100_000, ["z"] * 5000, {str(n): n for n in range(3000)})), None
    if how < 0.5 and isinstance(value, (int, float)) and not isinstance(value, bool):
        return draw.choice(
            (value * 2, value + 1, -value, value * 1000, float(value), str(value))
        ), None
    return copy.deepcopy(draw.choice(VALUES)), None  # further damage must not reach the table


def damaged_lines(data: bytes, draw: random.Random) -> bytes:
    """A JSON text, or one line of several, damaged as `damaged_json` does."""
    try:
        return damaged_json(json.loads(data), draw)
    except ValueError:
        lines = data.splitlines()
        place = draw.randrange(len(lines))
        lines[place] = damaged_json(json.loads(lines[place]), draw)
        return b"\n".join(lines) + b"\n"


def damaged_bytes(data: bytes, draw: random.Random) -> bytes:
    """Bits flipped, numbers overwritten by extreme ones, bytes cut out, doubled, added; mostly
    near the beginning."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        reach = min(HEAD, len(out)) if draw.random() < 0.8 else len(out)
        at = draw.randrange(reach) if reach else 0
        how = draw.choice(
            ("flip", "flip", "number", "number", "cut", "out", "twice", "zero", "more")
        )
        if how == "flip" and out:
            out[at] ^= 1 << draw.randrange(8)
        elif how == "number":
            size = draw.choice((4, 8))
            number = draw.choice((0, 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)) % 256**size
            out[at : at + size] = number.to_bytes(size, "little")
        elif how == "cut":
            del out[at:]
        elif how == "out":
            del out[at : at + draw.choice((1, 4, 8, 100))]
        elif how == "twice":
            out[at:at] = out[at : at + draw.choice((1, 8, 100))]
        elif how == "zero":
            out[at : at + 16] = bytes(len(out[at : at + 16]))
        else:
            out += bytes(draw.choice((1, 64, 5000)))
    return bytes(out)


# ---- cases


def survive(
    module: str,
    checks: Iterable[str],
    cases: Iterable[int],
    *,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    workers: int = 2,
) -> Counter[tuple[str, str]]:
    """AssertionError with the first bad cases, where there are any."""
    queue: SimpleQueue[tuple[str, int]] = SimpleQueue()
    for pair in itertools.product(checks, cases):
        queue.put(pair)
    outcomes: list[dict[str, Any]] = []

    def work() -> None:
        worker = None
        while sum(outcome["is"] == "bad" for outcome in outcomes) < 5:
            try:
                check, case = queue.get_nowait()
            except Empty:
                break
            worker = worker or _Worker(module, memory)
            outcomes.append({"check": check, "case": case} | worker.ask(check, case, seconds))
            worker = None if worker.ended else worker
        if worker:
            worker.end()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bad = [f"{o['check']}, case {o['case']}: {o['why']}" for o in outcomes if o["is"] == "bad"]
    assert not bad, f"{module}:\n" + "\n".join(sorted(bad)[:5])
    return Counter((outcome["check"], outcome["is"]) for outcome in outcomes)


def try_one(module: str, check: str, case: int) -> str:
    """Runs one case in this process; what is bad is raised as it is."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            getattr(importlib.import_module(module), check)(random.Random(case), Path(folder))
        except (ValueError, OSError) as error:
            if why := _improper(error, Path(folder)):
                raise AssertionError(why) from error
            return f"refused: {error}"
    return "opened"


def _improper(error: BaseException, folder: Path) -> str | None:
    """Why an exception is not the one sentence of a refusal; None where it is."""
    own = type(error) is ValueError or type(error).__module__.startswith("deepwright")
    text = str(error)
    if not isinstance(error, OSError) and not (isinstance(error, ValueError) and own):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {text[:300]} ({last.filename}:{last.lineno})"
    if len(text) > LONGEST:
        return f"a sentence of {len(text)} characters: {text[:200]}"
    names = [str(folder), *(path.name for path in folder.rglob("*"))]
    return None if any(name in text for name in names) else f"names no file: {text[:300]}"


# ---- processes


class _Worker:
    """A process that is told cases one by one and answers each with a line."""

    def __init__(self, module: str, memory: int) -> None:
        command = [sys.executable, "-m", "tests.fuzz", module, str(memory)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        self.process = subprocess.Popen(command, **pipes, env=environment, cwd=ROOT, text=True)
        self.ended = False
        assert self._line(START_SECONDS) == "ready\n", f"{module} cannot be imported"

    def ask(self, check: str, case: int, seconds: float) -> dict[str, Any]:
        self.process.stdin.write(f"{check} {case} {seconds}\n")
        self.process.stdin.flush()
        line = self._line(seconds * GRACE)
        if line:
            return json.loads(line)
        hung = self.process.poll() is None and line is None
        self.end()
        code = self.process.returncode
        died = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return {"is": "bad", "why": "it hangs" if hung else f"it died: {died}"}

    def _line(self, seconds: float) -> str | None:
        """The next line; '' at the end of the process, None where none comes in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return self.process.stdout.readline() if selector.select(seconds) else None

    def end(self) -> None:
        self.ended = True
        self.process.kill()
        self.process.communicate()


def _serve(module: str, memory: int) -> None:
    """The other side: answers go to the real standard output, what a check prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    checks = importlib.import_module(module)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write("ready\n")
    for line in sys.stdin:
        check, case, seconds = line.split()
        answer = _answer(getattr(checks, check), int(case), float(seconds))
        answers.write(json.dumps(answer) + "\n")


def _answer(run: Check, case: int, seconds: float) -> dict[str, Any]:
    before, why, outcome = time.process_time(), None, "opened"
    with tempfile.TemporaryDirectory() as name:
        try:
            run(random.Random(case), Path(name))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            outcome, why = "refused", _improper(error, Path(name))
    spent = time.process_time() - before
    if why is None and spent > seconds:
        why = f"{outcome} after {spent:.0f} s"
    return {"is": "bad" if why else outcome, "why": why}


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
