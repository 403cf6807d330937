"""Verifiers that hang, raise, die or eat memory cost a deadline and a process; the pool goes on, from any thread."""

import os
import textwrap
import threading
import time

import pytest

from deepwright.refusals import require
from deepwright.tasks import pool as pools
from deepwright.tasks.pool import Outcome, Pool

VERIFIERS = """
    import os, sys, time
    def fine(x): return [float(v) for v in x]
    def hangs(x): time.sleep(3600)
    def spins(x):
        while True: pass
    def raises(x): raise KeyError("no such thing")
    def exits(x): sys.exit(0)
    def dies(x): os.kill(os.getpid(), 9)
    def recurses(x): return recurses(x)
    def eats(x): return [len(bytearray(100 << 30))]
    def prints(x):
        print('{"value": [1.0]}', flush=True); os.write(1, b'{"value": [1.0]}\\n'); return [0.0]
    def reads(x): return [float(len(sys.stdin.read()))]
    def talks(x): return ["x" * 40] * 30_000
    def who(x): return [float(os.getpid())]
"""


@pytest.fixture
def verifiers(tmp_path):
    (tmp_path / "verifiers.py").write_text(textwrap.dedent(VERIFIERS))
    return lambda name, *x: {
        "path": str(tmp_path / "verifiers.py"),
        "name": name,
        "columns": {"x": list(x)},
    }


@pytest.fixture
def pool():
    with_pool = Pool("function", workers=2, seconds=1.5, trusted=True)
    yield with_pool
    with_pool.close()


def test_answers_come_back_in_order(pool, verifiers):
    assert pool.run([verifiers("fine", i) for i in range(20)]) == [
        Outcome([float(i)]) for i in range(20)
    ]
    assert pool.run([]) == []


@pytest.mark.parametrize(
    "name, said",
    [
        ("hangs", "no verdict within 1.5 s"), ("spins", "no verdict within 1.5 s"),
        ("raises", "raised KeyError: 'no such thing'"), ("exits", "raised SystemExit"),
        ("dies", "died"), ("recurses", "raised RecursionError"), ("talks", "talks too much"), ("gone", "raised AttributeError"),
    ],
)  # fmt: skip
def test_a_broken_verifier_fails_alone_and_in_bounded_time(pool, verifiers, name, said):
    pool.run([verifiers("fine", 1)] * 4)  # processes are up
    start = time.monotonic()
    outcomes = pool.run(
        [verifiers("fine", 1), verifiers(name, 2), verifiers("fine", 3), verifiers("fine", 4)]
    )
    assert [outcome.value for outcome in outcomes] == [
        [1.0],
        None,
        [3.0],
        [4.0],
    ] and said in outcomes[1].error
    assert time.monotonic() - start < 20
    assert pool.run([verifiers("fine", 5)]) == [Outcome([5.0])]


def test_a_verifier_cannot_write_or_read_the_pipes(pool, verifiers):
    assert (
        pool.run([verifiers("prints", 1), verifiers("reads", 1), verifiers("prints", 1)])
        == [Outcome([0.0])] * 3
    )


def test_memory_is_limited(verifiers, monkeypatch):
    """Without confinement, so that the limits alone are seen."""
    monkeypatch.setattr(pools, "confinement", lambda: "")
    limited = Pool("function", workers=1, seconds=10, memory=300 << 20)
    assert "MemoryError" in limited.run([verifiers("eats")])[0].error
    assert limited.run([verifiers("fine", 1)]) == [Outcome([1.0])]
    limited.close()


def test_any_thread_may_ask(pool, verifiers):
    """Signals would work in the main thread alone."""
    found = {}
    threads = [
        threading.Thread(
            target=lambda i=i: found.update(
                {i: pool.run([verifiers("fine", i), verifiers("hangs", i)])}
            )
        )
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {i: (one.value, "no verdict" in two.error) for i, (one, two) in found.items()} == {
        0: ([0.0], True),
        1: ([1.0], True),
    }


def test_workers_stay_and_those_that_died_idle_are_replaced(pool, verifiers):
    (first,), (again,) = (pool.run([verifiers("who")])[0].value for _ in range(2))
    assert first == again != os.getpid()
    os.kill(int(first), 9)
    time.sleep(0.3)
    (outcome,) = pool.run([verifiers("who")])
    assert not outcome.error and outcome.value[0] != first


def test_a_worker_that_never_comes_up_fails_its_jobs(monkeypatch, tmp_path):
    monkeypatch.setattr(pools, "WORKER", tmp_path / "gone.py")
    assert all(
        "before it was ready" in outcome.error
        for outcome in Pool("math", trusted=True).run([{}] * 3)
    )


def test_closing_ends_the_processes(pool, verifiers):
    pid = int(pool.run([verifiers("who")])[0].value[0])
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_missing_package():
    with pytest.raises(
        ValueError,
        match=r"maths needs the package 'no-such-thing': pip install 'deepwright\[tasks\]'",
    ):
        require("no_such_thing", "maths")
