"""Verifiers in processes that can be killed: a check that hangs, crashes or eats memory costs its deadline and a process, never the run.

Workers are fresh interpreters (`worker.py`), never forks of a process that holds torch, confined like submitted code where the machine
allows (verifiers parse what a model wrote) and limited in memory and CPU everywhere. Deadlines are the parent's clock: no signals, so any
thread may ask. Jobs and answers are JSON lines, all jobs of a batch made before a worker is given
the first; a worker of which anything is unclear is replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import selectors
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepwright.tasks.sandbox import PYTHON, Job, Limits, Started, confinement, kill

START_SECONDS = 120.0  # imports on a busy machine
MAX_LINE = 16 << 20  # bytes of an answer
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Outcome:
    """`value` is what the worker answered; where `error` is not empty the check itself broke, and it says how."""

    value: Any = None
    error: str = ""


@dataclass
class _Worker:
    """`close` ends the process; `why` says what its confinement made of it, where it has one."""

    process: subprocess.Popen
    jobs: int  # file descriptors
    answers: int
    close: Callable[[], None]
    why: Callable[[], str]
    deadline: float
    seconds: float = START_SECONDS
    said: bytearray = field(default_factory=bytearray)
    job: int | None = None  # None: starting or idle
    ready: bool = False
    spent: bool = False  # of no further use

    @property
    def busy(self) -> bool:
        return self.job is not None or not self.ready


class Pool:
    """`workers` processes for one kind of job, started when first needed. Thread-safe; one batch at a time."""

    def __init__(
        self,
        kind: str,
        workers: int = 2,
        seconds: float = 5.0,
        memory: int = 2 << 30,
        *,
        trusted: bool = False,
    ) -> None:
        """`seconds`: deadline of a job. `trusted`: the user's own code, which gets their environment, files and network, and no limit on memory."""
        self.kind, self.workers, self.seconds = kind, workers, seconds
        self.memory, self.trusted = memory, trusted
        self._alive: list[_Worker] = []
        self._lock = threading.Lock()
        atexit.register(self.close)

    def run(self, jobs: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """One outcome for each job, in order. Returns within about (jobs / workers) deadlines, whatever the verifiers do."""
        with self._lock:
            try:
                return self._run(jobs)
            except BaseException:  # Ctrl-C: what those at work answer belongs to no job any more
                self._drop([worker for worker in self._alive if worker.busy])
                raise

    def _run(self, jobs: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        lines = [self._line(job) for job in jobs]
        outcomes = {i: line for i, line in enumerate(lines) if isinstance(line, Outcome)}
        waiting = deque(i for i in range(len(jobs)) if i not in outcomes)
        self._drop([worker for worker in self._alive if worker.process.poll() is not None])
        while len(outcomes) < len(jobs):
            while len(self._alive) < min(self.workers, len(jobs) - len(outcomes)):
                self._alive.append(self._start())
            for worker in self._alive:
                if waiting and not worker.busy:
                    i = waiting.popleft()
                    self._give(worker, i, jobs[i], lines[i])
            for worker, outcome in self._heard():
                if worker.job is not None:
                    outcomes[worker.job], worker.job = outcome, None
                elif waiting and outcome.error:
                    # it never came up: the job that it would have got fails, so that this ends
                    outcomes[waiting.popleft()] = outcome
                if worker.spent:
                    self._drop([worker])
        return [outcomes[i] for i in range(len(jobs))]

    def close(self) -> None:
        self._drop(list(self._alive))

    def _line(self, job: Mapping[str, Any]) -> bytes | Outcome:
        """What a worker reads; a job may have a deadline of its own."""
        try:
            return json.dumps({"seconds": self.seconds, **job}).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            return Outcome(error=f"its job is no plain data: {error}")

    def _start(self) -> _Worker:
        (stdin, jobs), (answers, stdout) = os.pipe(), os.pipe()
        try:
            begin = self._trusted if self.trusted else self._confined
            process, close, why = begin(stdin, stdout)
        except BaseException:
            os.close(jobs)
            os.close(answers)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        os.set_blocking(answers, False)
        deadline = time.monotonic() + START_SECONDS
        return _Worker(process, jobs, answers, close, why, deadline)

    def _trusted(self, stdin: int, stdout: int) -> tuple[Any, ...]:
        argv = [sys.executable, "-P", str(WORKER), self.kind]  # -P: our folder is none of its path
        process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, start_new_session=True)
        return process, functools.partial(kill, process), str

    def _confined(self, stdin: int, stdout: int) -> tuple[Any, ...]:
        limits = Limits(0, cpu_seconds=0, memory=self.memory, file_bytes=1 << 20, processes=64)
        library = (sysconfig.get_path(name) for name in ("purelib", "platlib"))
        shown = (sys.prefix, *library, str(WORKER))
        argv = (PYTHON, "-s", "-P", str(WORKER), self.kind)
        job = Job(argv, limits, readable=shown)
        started = Started(job, confinement(), stdin, stdout, subprocess.DEVNULL)
        return started.process, started.close, functools.partial(_failure, started)

    def _give(self, worker: _Worker, i: int, job: Mapping[str, Any], line: bytes) -> None:
        worker.job, worker.seconds = i, job.get("seconds", self.seconds)
        worker.deadline = time.monotonic() + worker.seconds
        with contextlib.suppress(BrokenPipeError):  # it died while idle: its silence is heard next
            while line:
                line = line[os.write(worker.jobs, line) :]

    def _heard(self) -> list[tuple[_Worker, Outcome]]:
        """Waits for the next event among busy workers: answers, deaths, deadlines. A worker that became ready only changes its state."""
        busy = [worker for worker in self._alive if worker.busy]
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.answers, selectors.EVENT_READ, worker)
            events = selector.select(
                max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            )
        heard = [(key.data, self._read(key.data)) for key, _ in events]
        spoke = [worker for worker, _ in heard]
        for worker in busy:
            if worker not in spoke and time.monotonic() > worker.deadline:
                worker.spent = True
                why = f"no verdict within {worker.seconds:g} s; its process was killed"
                heard.append((worker, Outcome(error=why)))
        return [(worker, outcome) for worker, outcome in heard if outcome is not None]

    def _read(self, worker: _Worker) -> Outcome | None:
        piece = os.read(worker.answers, 1 << 20)
        worker.said += piece
        if not piece or len(worker.said) > MAX_LINE:
            worker.spent = True
            how = "talks too much" if piece else "died"
            when = "" if worker.ready else f" before it was ready. {worker.why()}".rstrip(". ")
            return Outcome(error=f"its process {how}{when}")
        if not worker.said.endswith(b"\n"):
            return None
        said, worker.said = bytes(worker.said), bytearray()
        if not worker.ready:
            worker.ready = True
            return None
        return self._understood(worker, said)

    def _understood(self, worker: _Worker, said: bytes) -> Outcome:
        try:
            answer = json.loads(said)
            worker.spent = answer.get("spent", False)
            if "error" in answer:
                return Outcome(error=f"raised {answer['error']}")
            return Outcome(answer["value"])
        except (ValueError, LookupError, AttributeError, RecursionError):
            worker.spent = True  # something else wrote there
            return Outcome(error="its process answered with what no verifier says")

    def _drop(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            self._alive.remove(worker)
            worker.close()
            os.close(worker.answers)
            os.close(worker.jobs)


def _failure(started: Started) -> str:
    started.ended(1.0)  # its report is on its way
    return started.told("", "").failed


@functools.cache
def shared_pool(kind: str, seconds: float, trusted: bool = False, about: str = "") -> Pool:
    """The pool that all tasks of this process share; one for each `about` that is trusted."""
    return Pool(kind, 1 if trusted else min(4, os.cpu_count() or 1), seconds, trusted=trusted)
