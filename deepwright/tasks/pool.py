"""Verifiers in processes that can be killed: a check that hangs, crashes or eats memory costs its deadline and a process, never the run.

Workers are fresh interpreters (`worker.py`), never forks of a process that holds torch, confined like submitted code where the machine
allows (verifiers parse what a model wrote) and limited in memory and CPU everywhere. Deadlines are the parent's clock: no signals, so any
thread may ask. Jobs and answers are JSON lines.
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
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepwright.tasks.sandbox import Limits, command, confinement, environment, kill

START_SECONDS = 120.0  # imports on a busy machine
MAX_LINE = 1 << 20  # bytes of an answer
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Outcome:
    """`value` is what the worker answered; where `error` is not empty the check itself broke, and it says how."""

    value: Any = None
    error: str = ""


@dataclass
class _Worker:
    process: subprocess.Popen
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
        self.kind, self.workers, self.seconds, self.memory, self.trusted = (
            kind,
            workers,
            seconds,
            memory,
            trusted,
        )
        self._alive: list[_Worker] = []
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="deepwright-")
        atexit.register(self.close)

    def run(self, jobs: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """One outcome for each job, in order. Returns within about (jobs / workers) deadlines, whatever the verifiers do."""
        with self._lock:
            outcomes: dict[int, Outcome] = {}
            waiting = deque(range(len(jobs)))
            self._drop([worker for worker in self._alive if worker.process.poll() is not None])
            while len(outcomes) < len(jobs):
                while len(self._alive) < min(self.workers, len(jobs) - len(outcomes)):
                    self._alive.append(self._start())
                for worker in self._alive:
                    if waiting and not worker.busy:
                        self._give(worker, jobs, waiting.popleft())
                for worker, outcome in self._heard():
                    if worker.job is not None:
                        outcomes[worker.job], worker.job = outcome, None
                    elif (
                        waiting and outcome.error
                    ):  # it never came up: the job that it would have got fails, so that this ends
                        outcomes[waiting.popleft()] = outcome
                    if worker.spent:
                        self._drop([worker])
            return [outcomes[i] for i in range(len(jobs))]

    def close(self) -> None:
        self._drop(list(self._alive))

    def _start(self) -> _Worker:
        argv, env, pipe = [sys.executable, str(WORKER), self.kind], None, subprocess.PIPE
        if not self.trusted:
            argv[1:1], env = ["-s", "-P"], environment()
            limits = Limits(cpu_seconds=0, memory=self.memory, file_bytes=1 << 20, processes=64)
            readable = (
                sys.prefix,
                sysconfig.get_path("purelib"),
                sysconfig.get_path("platlib"),
                str(WORKER),
            )
            argv = command(argv, limits, self._folder.name, readable, confinement())
        quiet = None if self.trusted else subprocess.DEVNULL
        process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=quiet, env=env, start_new_session=True
        )
        os.set_blocking(process.stdout.fileno(), False)
        return _Worker(process, time.monotonic() + START_SECONDS)

    def _give(self, worker: _Worker, jobs: Sequence[Mapping[str, Any]], i: int) -> None:
        job = {"seconds": self.seconds, **jobs[i]}  # a job may have a deadline of its own
        worker.job, worker.seconds, worker.deadline = (
            i,
            job["seconds"],
            time.monotonic() + job["seconds"],
        )
        with contextlib.suppress(BrokenPipeError):  # it died while idle: its silence is heard next
            worker.process.stdin.write(json.dumps(job).encode() + b"\n")
            worker.process.stdin.flush()

    def _heard(self) -> list[tuple[_Worker, Outcome]]:
        """Waits for the next event among busy workers: answers, deaths, deadlines. A worker that became ready only changes its state."""
        busy = [worker for worker in self._alive if worker.busy]
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            events = selector.select(
                max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            )
        heard = [(key.data, self._read(key.data)) for key, _ in events]
        spoke = [worker for worker, _ in heard]
        for worker in busy:
            if worker not in spoke and time.monotonic() > worker.deadline:
                worker.spent = True
                heard.append(
                    (
                        worker,
                        Outcome(
                            error=f"no verdict within {worker.seconds:g} s; its process was killed"
                        ),
                    )
                )
        return [(worker, outcome) for worker, outcome in heard if outcome is not None]

    def _read(self, worker: _Worker) -> Outcome | None:
        piece = os.read(worker.process.stdout.fileno(), MAX_LINE)
        worker.said += piece
        if not piece or len(worker.said) > MAX_LINE:
            worker.spent = True
            return Outcome(
                error=f"its process {'died' if not piece else 'talks too much'}{'' if worker.ready else ' before it was ready'}"
            )
        if not worker.said.endswith(b"\n"):
            return None
        answer, worker.said = json.loads(bytes(worker.said)), bytearray()
        if not worker.ready:
            worker.ready = True
            return None
        worker.spent = answer.get("spent", False)
        return (
            Outcome(error=f"raised {answer['error']}")
            if "error" in answer
            else Outcome(answer["value"])
        )

    def _drop(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            self._alive.remove(worker)
            kill(worker.process)
            worker.process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()


@functools.cache
def shared_pool(kind: str, seconds: float, trusted: bool = False) -> Pool:
    """The pool that all tasks of this process share."""
    return Pool(kind, 1 if trusted else min(4, os.cpu_count() or 1), seconds, trusted=trusted)
