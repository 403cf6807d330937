"""Random numbers, inversion, truncation: against Python integers, chi-square, and a plain sort."""

from __future__ import annotations

import pytest
import torch

from deepwright.inference.sampling import draw, invert, stream_keys, truncate, uniform
from deepwright.sampler import NotFinite

MASK = 2**64 - 1


def plain_mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def plain_uniform(seed: int, prompt: int, sample: int, position: int) -> float:
    golden, key = 0x9E3779B97F4A7C15, 0
    for number in (seed, prompt, sample):
        key = plain_mix(((key ^ (number & MASK)) + golden) & MASK)
    return (plain_mix((key + (position + 1) * golden) & MASK) >> 11) / 2**53


def test_uniform_is_the_same_in_whole_numbers_of_any_size():
    """The wrap-around and the logical shifts on int64 are those of unsigned arithmetic, for any seed."""
    counters = [(0, 0, 0, 0), (2**64 - 1, 5, 7, 3), (-1, 2**40, 1, 10**6), (12345, 1, 2, 3)]
    seeds, prompts, samples, positions = (list(column) for column in zip(*counters))
    got = uniform(stream_keys(seeds, prompts, samples), torch.tensor(positions))
    assert got.tolist() == [plain_uniform(*row) for row in counters]


def test_streams_are_even_and_unrelated():
    """Over 4 neighbouring axes of counters: mean, and correlation with the next counter, within 4 standard errors."""
    n = 20000
    same, index = [0] * n, list(range(n))
    for seeds, prompts, samples, positions in (
        [index, same, same, same],
        [same, index, same, same],
        [same, same, index, same],
        [same, same, same, index],
    ):
        u = uniform(stream_keys(seeds, prompts, samples), torch.tensor(positions))
        assert u.min() >= 0 and u.max() < 1
        assert abs(float(u.mean()) - 0.5) < 4 * (1 / 12) ** 0.5 / n**0.5
        assert abs(float(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1])) < 4 / n**0.5


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chi_square(temperature):
    """100,000 draws from 20 tokens: chi-square with 19 degrees of freedom stays under 43.8 (p = 0.001); zero weight is never drawn."""
    draws, vocab = 100_000, 20
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(1))
    logits[4] = -float("inf")
    u = uniform(stream_keys([9], [0], [0]), torch.arange(draws))
    ids, log_probs = draw(logits.repeat(draws, 1), u, temperature)
    expected = (logits / temperature).double().softmax(-1)
    count = torch.bincount(ids, minlength=vocab).double()
    assert count[4] == 0
    seen = expected > 0
    statistic = float(((count - draws * expected)[seen] ** 2 / (draws * expected[seen])).sum())
    assert statistic < 43.8, statistic
    # a few fp32 roundings (6e-8) of numbers below 10
    assert torch.allclose(log_probs.double(), expected.log()[ids], atol=1e-5)


def test_extreme_random_numbers():
    """u = 0 and u = 1 - 2**-53 (rounds to 1 in fp32) give the first and the last token that has weight, at any vocabulary size."""
    u = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    for vocab in (3, 1000, 130_000):
        weights = torch.rand(2, vocab, generator=torch.Generator().manual_seed(vocab)) + 0.1
        weights[:, 0] = weights[:, -1] = 0
        ids = invert(weights, u)
        assert ids[0] == 1 and weights[1, ids[1]] > 0
        # the last fp32 steps of the running sum may cover several tokens
        assert ids[1] > vocab - 2 - vocab * 1e-3
    tiny = torch.full((1, 4), 1e-30)
    assert 0 <= int(invert(tiny, u[1:])) < 4


def test_extreme_temperature_and_logits():
    logits = torch.tensor([[1e4, 0.0, -1e4, 9.999e3]])
    for temperature in (1e-6, 1e-30, 1.0, 1e6, torch.tensor([1e-30])):
        ids, log_probs = draw(logits.clone(), torch.tensor([0.5], dtype=torch.float64), temperature)
        assert torch.isfinite(log_probs).all() and 0 <= int(ids) < 4
    assert draw(logits.clone(), torch.tensor([0.9], dtype=torch.float64), 1e-30)[0] == 0


def sorted_truncation(weights: list[float], k: int, p: float) -> list[float]:
    """The rule in words: keep the k largest (and ties of the k-th); of those the fewest, from the top, that reach mass p (and ties)."""
    if k:
        least = sorted(weights, reverse=True)[min(k, len(weights)) - 1]
        weights = [w if w >= least else 0.0 for w in weights]
    if p < 1:
        mass = 0.0
        for w in sorted(weights, reverse=True):
            mass += w
            if mass >= p * sum(weights):
                weights = [x if x >= w else 0.0 for x in weights]
                break
    return weights


@pytest.mark.parametrize("vocab", [5, 64, 700])
def test_truncation_against_a_sort(vocab):
    generator = torch.Generator().manual_seed(vocab)
    # weights are whole multiples of 1/1024, so every sum is exact, and many weights are equal
    rows, exact = (60, 1024)
    sharp = torch.rand(rows, 1, generator=generator) * 4
    weights = (
        (torch.randn(rows, vocab, generator=generator) * sharp).softmax(-1) * exact
    ).round().add(1) / exact
    top_k = torch.randint(0, vocab + 3, (rows,), generator=generator)
    top_p = torch.rand(rows, generator=generator).mul(64).round().add(1).div(65).clamp(max=1)
    top_k[::3], top_p[1::3] = 0, 1.0
    got = truncate(weights.clone(), top_k, top_p)
    for row in range(rows):
        assert got[row].tolist() == sorted_truncation(
            weights[row].tolist(), int(top_k[row]), float(top_p[row])
        ), row
    alone = torch.cat(
        [
            truncate(weights[i : i + 1].clone(), top_k[i : i + 1], top_p[i : i + 1])
            for i in range(rows)
        ]
    )
    assert torch.equal(got, alone), "a neighbour's rule changed a row"


def test_rows_with_different_rules_draw_as_they_would_alone():
    generator = torch.Generator().manual_seed(0)
    logits, u = (
        torch.randn(6, 300, generator=generator),
        torch.rand(6, dtype=torch.float64, generator=generator),
    )
    temperature = torch.tensor([0.0, 1.0, 0.6, 1.0, 2.0, 0.0])
    top_k, top_p = torch.tensor([0, 0, 3, 0, 50, 2]), torch.tensor([1.0, 1.0, 1.0, 0.5, 0.9, 0.3])
    ids, log_probs = draw(logits.clone(), u, temperature, top_k, top_p)
    for i in range(6):
        rules = (
            (None, None)
            if top_k[i] == 0 and top_p[i] == 1
            else (top_k[i : i + 1], top_p[i : i + 1])
        )
        one_id, one_log_prob = draw(
            logits[i : i + 1].clone(), u[i : i + 1], float(temperature[i]), *rules
        )
        assert int(one_id) == int(ids[i]) and abs(float(one_log_prob - log_probs[i])) < 1e-5
    assert ids[0] == logits[0].argmax() and ids[5] == logits[5].argmax()


def check_two_steps_find_what_one_sum_finds():
    """Against a running sum in float64 over vocabularies around the length of a stretch, with most weights 0."""
    draw = torch.Generator().manual_seed(0)
    for vocab in (1, 63, 64, 65, 1000):
        weights = torch.rand(200, vocab, generator=draw) * (
            torch.rand(200, vocab, generator=draw) < 0.1
        )
        weights[torch.arange(200), torch.randint(vocab, (200,), generator=draw)] = 0.5
        u = torch.rand(200, dtype=torch.float64, generator=draw)
        u[0], u[1] = 0.0, 1 - 2.0**-53
        ids, sums = invert(weights, u), weights.double().cumsum(1)
        expected = torch.searchsorted(
            sums,
            torch.minimum(u * sums[:, -1], sums[:, -1].nextafter(torch.zeros(200).double()))[
                :, None
            ],
            right=True,
        )[:, 0]
        assert (weights.gather(1, ids[:, None]) > 0).all()
        assert torch.equal(ids, expected)


def test_two_steps_find_what_one_sum_finds():
    check_two_steps_find_what_one_sum_finds()


def refused(logits, temperature, **rules) -> int | None:
    """The row that `draw` says has no numbers, None where it draws; -1 where it breaks down."""
    try:
        draw(logits.clone(), torch.full((len(logits),), 0.3), temperature, **rules)
    except NotFinite as error:
        return error.row
    except (IndexError, RuntimeError):
        return -1
    return None


def check_logits_that_are_no_numbers_are_refused():
    """In any one row and place, greedy, warm, by row, truncated. -infinity beside numbers is a
    token that never comes."""
    rules = dict(top_k_R=torch.tensor([3, 0, 5]), top_p_R=torch.tensor([1.0, 0.9, 0.5]))
    mixed = torch.tensor([0.0, 1.0, 0.7])
    ways = [(0, {}), (1.0, {}), (0.6, {}), (mixed, {}), (1.0, rules), (mixed, rules)]
    for value in (float("nan"), float("inf"), -float("inf")):
        for row, place in ((0, 0), (1, 64), (2, 99)):
            logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(row))
            assert [refused(logits, t, **more) for t, more in ways] == [None] * len(ways)
            logits[row, place if value != -float("inf") else slice(None)] = value
            assert [refused(logits, t, **more) for t, more in ways] == [row] * len(ways)
    logits = torch.full((3, 100), -float("inf"))
    logits[:, 7] = -1e30
    assert [refused(logits, t, **more) for t, more in ways] == [None] * len(ways)


def test_logits_that_are_no_numbers_are_refused():
    check_logits_that_are_no_numbers_are_refused()
