"""Hundreds of random schedules (arrivals, aborts, pool sizes, block and chunk sizes, preemption) give what each request gives alone."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch

from deepwright.inference.engine import Engine
from deepwright.sampler import Completion, Sampling, StopReason
from tests.inference.tiny import VOCAB, same, tiny_dense, tiny_model

# In fp64 the cached and the uncached forward agree to about 1e-13; the log-probability is then computed from logits rounded to fp32,
# which falls on the other side of a rounding border for few of them: one unit in the last place of a number below 64 is 4e-6.
TOLERANCE = 1e-5


@cache
def model(dense: bool):
    torch.set_num_threads(1)
    return (tiny_dense if dense else tiny_model)(dtype=torch.float64)


@cache
def reference(
    dense: bool, prompt: tuple[int, ...], sampling: Sampling, prompt_index: int
) -> list[Completion]:
    """The same request in an engine of its own, with room for everything and the prompt in one piece."""
    engine, ended = Engine(model(dense)), {}
    engine.add(prompt, sampling, prompt_index)
    while engine.has_work:
        ended |= {f.sample: f.completion for f in engine.step()}
    return [ended[sample] for sample in range(sampling.n)]


def pick_requests(draw: random.Random) -> list[tuple[tuple[int, ...], Sampling, int]]:
    """A few requests from a small set, so that references are reused and prompts repeat."""
    chosen = []
    for _ in range(draw.randint(1, 6)):
        which = random.Random(draw.randrange(12))
        prompt = tuple(which.randrange(VOCAB) for _ in range(which.choice([1, 3, 8, 9, 17])))
        rule = draw.choice(
            [
                {"temperature": 0.0},
                {"temperature": 1.0},
                {"temperature": 0.6, "top_k": 4},
                {"temperature": 1.3, "top_p": 0.8},
            ]
        )
        sampling = Sampling(
            max_tokens=draw.choice([1, 4, 11]),
            n=draw.choice([1, 2, 5]),
            stop_ids=draw.choice([(), (5, 6)]),
            **rule,
        )
        chosen.append((prompt, sampling, draw.randrange(2)))
    return chosen


def run(seed: int, dense: bool = False) -> int:
    """One random schedule; returns how many preemptions it took."""
    draw = random.Random(seed)
    requests, block = pick_requests(draw), draw.choice([1, 2, 4, 16])
    # one sequence alone must fit
    least = max(-(-(len(p) + s.max_tokens - 1) // block) * block for p, s, _ in requests)
    cache_tokens = draw.choice([None, least, least + block, least + 2 * block])
    engine = Engine(
        model(dense),
        max_batch=draw.choice([1, 3, 64, 64]),
        cache_tokens=cache_tokens,
        block=block,
        prefill_chunk=draw.choice([1, 3, 8, 100]),
    )
    engine.interleave = draw.random() < 0.5
    numbers: dict[int, int] = {}
    aborted: set[int] = set()
    ended: dict[tuple[int, int], Completion] = {}
    steps = 0
    while len(numbers) < len(requests) or engine.has_work:
        while len(numbers) < len(requests) and (draw.random() < 0.4 or not engine.has_work):
            numbers[engine.add(*requests[len(numbers)])] = len(numbers)
        done = engine.step() if engine.has_work else []
        if draw.random() < 0.03:
            number = draw.choice(list(numbers))
            aborted.add(number)
            done += engine.abort(number)
        for finished in done:
            key = finished.request, finished.sample
            assert key not in ended, "a sample ended twice"
            ended[key] = finished.completion
        steps += 1
        assert steps < 5000, "no progress"
    for number, index in numbers.items():
        expected = reference(dense, *requests[index])
        for sample, whole in enumerate(expected):
            got = ended[number, sample]
            if got.stop is StopReason.ABORT:
                assert number in aborted
                whole = Completion(
                    whole.token_ids[: len(got.token_ids)],
                    whole.log_probs[: len(got.log_probs)],
                    StopReason.ABORT,
                )
            assert same(got, whole, TOLERANCE), (seed, number, sample, got, whole)
    assert engine.pool.total == 0, (
        "an idle engine holds no cache (drop() has checked that every block came back)"
    )
    return engine.scheduler.preemptions


@pytest.mark.invariant
@pytest.mark.parametrize(
    ("part", "dense"), [(0, False), (1, False), (2, False), (3, False), (4, True)]
)
def test_any_schedule_gives_what_each_request_gives_alone(part, dense):
    preemptions = sum(run(seed, dense) for seed in range(part * 60, part * 60 + 60))
    assert preemptions > 20, f"only {preemptions} preemptions: the schedules do not test them"
