"""Wrong twins of the rewards and the sandbox: each makes one mistake that rewards have been gamed by elsewhere, and a named check must reject it."""

import dataclasses
import json

import pytest

from deepwright.tasks import attacks, calc3, code, files, make_task, sandbox, task, user_reward
from deepwright.tasks.attacks import report
from deepwright.tasks.completions import last_boxed
from deepwright.tasks.task import Score, Verdict
from tests.broken.patched import must_reject


def rewards_hold(tmp_path):
    """No attack on numbers, words or sums is paid in full."""
    rows = []
    for n in range(20):
        rows += [
            {"prompt": f"How many are {n} + {n + 1}?", "answer": str(2 * n + 1)},
            {"prompt": f"City {n}?", "answer": "Paris"},
        ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for reward in (
        make_task(f"file:{tmp_path / 'rows.jsonl'}", held_out_of=2),
        make_task("calc3"),
        make_task("countdown"),
    ):
        found = report(reward, 8)
        assert found.held and not found.odd, found.lines()


def deserts_are_told_apart(tmp_path):
    """What is paid for a right answer is no proof against a reward; what is paid for another one is."""
    kinds = {}
    for name, paid in {
        "anywhere": "float(a in text)",
        "nothing else": "float(set(re.sub(r'<[^>]*>|\\\\boxed|[{}]|\\bso\\b|</answer', ' ', text).split()) == {a})",
    }.items():
        path = tmp_path / f"{name}.py"
        path.write_text(
            "import re\ndef f(completions, answer, **columns):\n    texts = [c[0]['content'] for c in completions]\n"
            f"    return [{paid} for text, a in zip(texts, answer)]\n"
        )
        found = report(make_task("calc3", reward=f"{path}:f"), 1)
        kinds[name] = bool(found.undeserved), bool(found.odd), found.held
    assert kinds == {"anywhere": (True, True, False), "nothing else": (False, True, True)}


def sides_are_disjoint(tmp_path):
    """Questions that stand twice, and seeds, move nothing across."""
    rows = [{"prompt": f"{n % 51}?", "answer": str(n % 51)} for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for one, other in (
        (make_task(f"file:{tmp_path / 'rows.jsonl'}", held_out_of=2),) * 2,
        (make_task("calc3"), make_task("calc3", seed=1)),
    ):
        train, held_out = (
            {t.problem(i, split).prompt for i in range(t.size(split))}
            for t, split in ((one, "train"), (other, "held_out"))
        )
        assert train and held_out and not train & held_out


def failures_are_named(tmp_path):
    """A broken verifier says nothing about the answer."""
    (tmp_path / "r.py").write_text(
        "def f(completions, **columns):\n    return [float('nan')] * len(completions)\n"
    )
    broken = make_task("calc3", reward=f"{tmp_path / 'r.py'}:f")
    assert broken.score(broken.problem(0, "train"), "x").verdict is Verdict.FAILED
    assert task.scored(None, "hung", 0.1).verdict is Verdict.FAILED


def code_is_confined(tmp_path):
    """No network, no host files, no forged verdict, an end to processes."""
    if not sandbox.confinement():
        pytest.skip("neither bwrap nor unshare works on this machine")
    limits = sandbox.Limits(seconds=4, cpu_seconds=2)
    route = sandbox.run_code(
        "print(open('/proc/net/route').read().count('\\n'), len(open('/proc/net/dev').read().splitlines()))",
        "",
        limits,
    )
    routes, devices = map(
        int, route.output.split()
    )  # the heading of an empty table is not written by every kernel
    assert routes <= 1 and devices == 3, "more than the loopback device"
    many = sandbox.run_code(
        "import os, time\nn = 0\ntry:\n while n < 40:\n  if not os.fork(): time.sleep(9)\n  n += 1\nexcept OSError: pass\nprint(n)",
        "",
        limits,
    )
    assert int(many.output) < 20
    (tmp_path / "secret").write_text("1")
    assert (
        "1"
        not in sandbox.run_code(
            f"import os; print(int(os.path.exists({str(tmp_path / 'secret')!r})))", "", limits
        ).output
    )
    assert "PATH" in sandbox.run_code("import os; print(list(os.environ))", "", limits).output
    assert not code.judge_code(
        "import os\nos.write(1, b'\"3\"\\n')\nos._exit(0)",
        code.read_tests(["assert f(1) == 2"]),
        limits,
        False,
    )[0]
    assert not code.judge_code(
        "import os\nos._exit(0)", code.read_tests(["assert f(1) == 2"]), limits, False
    )[0]


# --- the mistakes


def everything_paid_is_undeserved(original):
    return lambda name, layout, right=False: original(name, layout, False)


def everything_paid_is_a_layout(original):
    return lambda name, layout, right=False: original(name, layout, True)


def any_box(original):
    def read(completion, *how):
        found = last_boxed(completion)
        return (completion, found) if found else original(completion, *how)

    return read


def contains(original):
    return lambda answer, wanted: (wanted in answer, "looked for it")


def tags_anywhere(original):
    def read(completion, *how):
        answer = completion.rpartition("<answer>")[2].partition("</answer>")[0].strip()
        return ("", answer) if answer else original(completion, *how)

    return read


def split_by_python_hash(_):
    from itertools import count

    counter = count()
    return lambda text: next(
        counter
    )  # by position, so a question that stands twice may fall on both sides


def failed_is_wrong(original):
    return lambda detail: Score(0.0, Verdict.WRONG, detail)


def with_the_hosts_network(original):
    return lambda *args: [
        word for word in original(*args) if word not in ("--unshare-net", "--net")
    ]


def without_a_count_of_processes(original):
    def packed(self, *rest):
        limits = dataclasses.replace(self.limits, processes=1000)
        return original(dataclasses.replace(self, limits=limits), *rest)

    return packed


def a_quiet_end_is_a_pass(original):
    def judge(*given):
        _, ended = code.call_results(*given)
        return ended.status == 0, "ended well"

    return judge


TWINS = [
    (rewards_hold, task, "read_completion", any_box),
    (rewards_hold, task, "read_completion", tags_anywhere),
    (rewards_hold, calc3, "_check", contains),
    (deserts_are_told_apart, attacks, "Attack", everything_paid_is_undeserved),
    (deserts_are_told_apart, attacks, "Attack", everything_paid_is_a_layout),
    (sides_are_disjoint, files, "digest", split_by_python_hash),
    (sides_are_disjoint, calc3, "digest", split_by_python_hash),
    (failures_are_named, user_reward, "failed", failed_is_wrong),
    (failures_are_named, task, "failed", failed_is_wrong),
    (code_is_confined, sandbox, "command", with_the_hosts_network),
    (code_is_confined, sandbox.Job, "packed", without_a_count_of_processes),
    (code_is_confined, code, "_judge_calls", a_quiet_end_is_a_pass),
]  # fmt: skip


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[twin[3].__name__ for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
