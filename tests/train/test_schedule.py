"""V3's published schedule, at V3's numbers, and the same shape at a laptop's."""

import math

import pytest

from deepwright.train.schedule import V3_TOKENS, Schedule
from tests.train.tiny import steps

V3 = Schedule()
TRILLION = 10**12


@pytest.mark.parametrize(
    ("step", "tokens", "expected"),
    [
        (0, 0, 0.0),
        (1000, 10**10, 1.1e-4),
        (2000, 2 * 10**10, 2.2e-4),
        (10**5, 10 * TRILLION, 2.2e-4),
        (10**5, 12_150 * 10**9, 1.21e-4),  # middle of the cosine
        (10**5, 14_300 * 10**9, 2.2e-5),
        (10**5, 14_632 * 10**9, 2.2e-5),
        (10**5, 14_633 * 10**9, 7.3e-6),
        (10**5, V3_TOKENS, 7.3e-6),
    ],
)
def test_learning_rate_of_v3(step, tokens, expected):
    # Products and one cosine in float64: a few units of 2e-16, far below 1e-12.
    assert V3.learning_rate_at(step, tokens) == pytest.approx(expected, rel=1e-12, abs=1e-30)


def test_stages_of_v3_begin_at_exact_tokens():
    assert V3.mtp_weight_at(10 * TRILLION - 1) == 0.3 and V3.mtp_weight_at(10 * TRILLION) == 0.1
    assert V3.bias_speed_at(14_300 * 10**9 - 1) == 0.001 and V3.bias_speed_at(14_300 * 10**9) == 0.0
    assert V3.learning_rate_at(10**5, 14_633 * 10**9 - 1) == pytest.approx(2.2e-5)


def test_bias_speed_can_fall_linearly_to_the_end():
    falling = Schedule(total_tokens=1000, constant_until=0.2, bias_speed=0.004, bias_decay=True)
    # By hand: constant up to 200 tokens, then a straight line through 0.002 at 600 to 0 at 1000.
    assert [falling.bias_speed_at(t) for t in (0, 200, 600, 900, 1000, 1100)] == pytest.approx(
        [0.004, 0.004, 0.002, 0.0005, 0.0, 0.0]
    )
    assert (
        Schedule(
            total_tokens=1000, constant_until=1.0, cosine_until=1.0, tail_until=1.0, bias_decay=True
        ).bias_speed_at(999)
        == 0.001
    )


def test_batch_ramp_of_v3():
    assert V3.rows_at(0) == 3072
    assert V3.rows_at(469 * 10**9 // 2) == (3072 + 15360) // 2
    assert V3.rows_at(469 * 10**9) == V3.rows_at(V3_TOKENS) == 15360


def test_step_count_of_v3():
    # About 227.8K steps after the ramp. In it rows rise linearly in tokens: it takes tokens / length / (log. mean of rows).
    ramp = 469e9 / 4096 / ((15360 - 3072) / math.log(5))
    assert len(steps(V3, 4096)) == pytest.approx(
        ramp + (V3_TOKENS - 469e9) / (15360 * 4096), rel=1e-3
    )


def test_laptop_schedule_counts_its_steps_and_ramps_in_multiples():
    laptop = Schedule(
        total_tokens=100_000,
        warmup_steps=10,
        batch_rows=40,
        batch_rows_start=8,
        batch_ramp=0.3,
        batch_multiple=8,
    )
    taken = steps(laptop, 100)
    assert {rows % 8 for _, rows in taken} == {0}
    assert [rows for _, rows in taken] == sorted(rows for _, rows in taken)
    last_tokens, last_rows = taken[-1]
    assert last_tokens < 100_000 <= last_tokens + last_rows * 100
    assert laptop.learning_rate_at(1, 0) == pytest.approx(2.2e-5)


def test_no_ramp():
    assert {
        rows for _, rows in steps(Schedule(total_tokens=1000, batch_rows=5, batch_rows_start=0), 10)
    } == {5}


@pytest.mark.parametrize(
    "bad",
    [
        {"total_tokens": 0}, {"constant_until": 0.99}, {"tail_until": 1.5}, {"batch_rows_start": 20000}, {"learning_rate": -1.0},
        {"batch_ramp": 2.0}, {"learning_rate": float("nan")},
    ],
)  # fmt: skip
def test_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Schedule(**bad)
