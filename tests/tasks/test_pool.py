"""Verifiers that hang, raise, die or eat memory cost a deadline and a process; the pool goes on, from any thread."""

import os
import textwrap
import threading
import time

import pytest

from deepwright.refusals import require
from deepwright.tasks import pool as pools
from deepwright.tasks.pool import Pool

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
    def talks(x, log_extra):
        for i in range(9000): log_extra(str(i), ["x" * 2000])
        return [0.0]
    def who(x): return [float(os.getpid())]
"""


@pytest.fixture
def verifiers(tmp_path):
    (tmp_path / "verifiers.py").write_text(textwrap.dedent(VERIFIERS))
    return lambda name, *x: {
        "path": str(tmp_path / "verifiers.py"),
        "name": name,
        "columns": {"x": list(x)},
        "given": {"completions": list(map(str, x))},
        "step": 0,
        "steps": 1,
    }


def paid(outcomes):
    """The rewards of each job; what went wrong where there are none."""
    return [outcome.error or outcome.value["rewards"] for outcome in outcomes]


@pytest.fixture
def pool():
    with_pool = Pool("function", workers=2, seconds=20, trusted=True)
    yield with_pool
    with_pool.close()


def test_answers_come_back_in_order(pool, verifiers):
    asked = [verifiers("fine", i) for i in range(20)]
    assert paid(pool.run(asked)) == [[float(i)] for i in range(20)]
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
    odd = verifiers(name, 2) | ({"seconds": 1.5} if name in ("hangs", "spins") else {})
    outcomes = pool.run([verifiers("fine", 1), odd, verifiers("fine", 3), verifiers("fine", 4)])
    one, broken, *others = paid(outcomes)
    assert one == [1.0] and others == [[3.0], [4.0]] and said in broken
    assert time.monotonic() - start < 20
    assert paid(pool.run([verifiers("fine", 5)])) == [[5.0]]


def test_a_verifier_cannot_write_or_read_the_pipes(pool, verifiers):
    asked = [verifiers("prints", 1), verifiers("reads", 1), verifiers("prints", 1)]
    assert paid(pool.run(asked)) == [[0.0]] * 3


def test_memory_is_limited(verifiers, monkeypatch):
    """Without confinement, so that the limits alone are seen."""
    monkeypatch.setattr(pools, "confinement", lambda: "")
    limited = Pool("function", workers=1, seconds=10, memory=300 << 20)
    assert "MemoryError" in limited.run([verifiers("eats", 1)])[0].error
    assert paid(limited.run([verifiers("fine", 1)])) == [[1.0]]
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
    assert {i: paid(outcomes)[0] for i, outcomes in found.items()} == {0: [0.0], 1: [1.0]}
    assert all("no verdict" in outcomes[1].error for outcomes in found.values())


def test_workers_stay_and_those_that_died_idle_are_replaced(pool, verifiers):
    (first,), (again,) = (paid(pool.run([verifiers("who", 1)]))[0] for _ in range(2))
    assert first == again != os.getpid()
    os.kill(int(first), 9)
    time.sleep(0.3)
    (again,) = paid(pool.run([verifiers("who", 1)]))
    assert again != [first] and isinstance(again[0], float)


def test_an_odd_job_fails_alone_and_poisons_nothing(pool, verifiers):
    """What JSON cannot hold is found before a worker is given anything."""
    odd = verifiers("fine", 2) | {"odd": object()}
    one, bad, three = pool.run([verifiers("fine", 1), odd, verifiers("fine", 3)])
    assert paid([one, three]) == [[1.0], [3.0]] and "no plain data" in bad.error
    assert paid(pool.run([verifiers("fine", n) for n in range(4)])) == [[0.0], [1.0], [2.0], [3.0]]


def test_a_batch_that_was_broken_off_poisons_nothing(pool, verifiers, monkeypatch):
    """Ctrl-C while workers are busy: their answers belong to no later job."""
    pool.run([verifiers("fine", 1)] * 2)
    heard = Pool._heard

    def interrupted(self):
        monkeypatch.setattr(Pool, "_heard", heard)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pool, "_heard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.run([verifiers("fine", 7), verifiers("fine", 8)])
    assert paid(pool.run([verifiers("fine", n) for n in range(3)])) == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    "written", ["nonsense", "[1]", "{}", '{"value": [9.0]}\\n{"value": [9.0]}']
)
def test_what_a_verifier_writes_to_the_pipe_itself_is_no_answer(pool, tmp_path, written):
    (tmp_path / "v.py").write_text(
        "import os\ndef f(completions):\n    for end in range(3, 20):\n"
        f"        try: os.write(end, b'{written}\\n')\n"
        "        except OSError: pass\n    return [1.0]\n"
        "def g(completions): return [2.0]\n"
    )
    job = {"path": str(tmp_path / "v.py"), "columns": {}, "given": {"completions": ["a"]}}
    job |= {"step": 0, "steps": 1}
    (outcome,) = pool.run([job | {"name": "f"}])
    assert "answered with what no verifier says" in outcome.error
    assert paid(pool.run([job | {"name": "g"}] * 3)) == [[2.0]] * 3


def test_a_worker_that_never_comes_up_fails_its_jobs(monkeypatch, tmp_path):
    monkeypatch.setattr(pools, "WORKER", tmp_path / "gone.py")
    assert all(
        "before it was ready" in outcome.error
        for outcome in Pool("math", trusted=True).run([{}] * 3)
    )


@pytest.mark.usefixtures("confined")
def test_a_confinement_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(pools, "PYTHON", "/no/such/python")
    (outcome,) = Pool("math").run([{}])
    assert "before it was ready. it could not be run: FileNotFoundError" in outcome.error


def test_closing_ends_the_processes(pool, verifiers):
    pid = int(paid(pool.run([verifiers("who", 1)]))[0][0])
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_missing_package():
    with pytest.raises(
        ValueError,
        match=r"maths needs the package 'no-such-thing': pip install 'deepwright\[tasks\]'",
    ):
        require("no_such_thing", "maths")
