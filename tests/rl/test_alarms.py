"""Each alarm rings on a made-up series that has its fault, and none on series like those of runs that went well."""

from __future__ import annotations

import json
import math
import random

import pytest

from deepwright.rl.alarms import RULES, AlarmConfig, Alarms
from deepwright.rl.config import R1_ZERO, GRPOConfig

ROUNDS = 60
USUAL = AlarmConfig()
# Every tenth round of three runs on Countdown (docs/r1.md, seed 1): accuracy, format, length, entropy, share of cut completions.
HEALTHY = [
    (0.06, 0.37, 39, 0.401), (0.62, 0.73, 113, 0.313), (0.74, 0.83, 111, 0.303), (0.72, 0.76, 124, 0.303), (0.76, 0.84, 102, 0.285),
    (0.77, 0.85, 101, 0.284), (0.81, 0.85, 95, 0.281), (0.83, 0.88, 95, 0.279), (0.88, 0.90, 91, 0.284), (0.86, 0.88, 99, 0.281),
]  # fmt: skip


def healthy(rounds: int = 100, swing: float = 0.0, seed: int = 0) -> list[dict[str, float]]:
    """Records along HEALTHY; `swing`: single rounds go up and down by as much, as with a dozen prompts."""
    draw, records = random.Random(seed), []
    for step in range(1, rounds + 1):
        low = min(int((step - 1) * 10 / rounds), 8)
        part = min(1.0, (step - 1) * 10 / rounds - low)
        accuracy, form, length, entropy = (
            a + (b - a) * part for a, b in zip(HEALTHY[low], HEALTHY[low + 1], strict=True)
        )
        held_out = accuracy + draw.uniform(-0.08, 0.08)  # on 100 problems
        accuracy, easy, hard = (
            min(1.0, max(0.0, v + draw.uniform(-swing, swing)))
            for v in (accuracy, accuracy + 0.05, accuracy - 0.1)
        )
        records.append({
            "accuracy": accuracy, "accuracy/easy": easy, "accuracy/hard": hard, "format_rate": form, "reward": accuracy + 0.1 * form,
            "entropy": entropy * draw.uniform(0.8, 1.2), "mean_length": length * draw.uniform(0.8, 1.2), "repetition": 0.08,
            "verifier_failures": 0, "completions": 384, "loss": draw.uniform(-0.1, 0.1), "grad_norm": draw.uniform(0.05, 2.0),
            "skipped_steps": 0, "log_prob_gap_mean": 1e-6, "temperature": 1.0,
        } | ({"pass_at_1": held_out} if step % 20 == 0 else {}))  # fmt: skip
    return records


def rung(records: list[dict[str, float]], config: AlarmConfig = USUAL) -> dict[str, int]:
    """Name -> the round in which it first rang."""
    alarms, first = Alarms(config), {}
    for number, record in enumerate(records, 1):
        for name in alarms.step(record):
            first.setdefault(name, number)
    return first


def with_fault(**changes) -> list[dict[str, float]]:
    """Flat records in which each named value is a function of the round."""
    flat = healthy(1)[0] | {
        "accuracy": 0.5,
        "accuracy/easy": 0.6,
        "accuracy/hard": 0.4,
        "reward": 0.5,
        "entropy": 0.4,
    }
    flat |= {"mean_length": 100.0, "grad_norm": 0.1, "loss": 0.0}
    return [
        flat | {name.replace("_of_", "/"): change(step) for name, change in changes.items()}
        for step in range(1, ROUNDS + 1)
    ]


def from_round(start: int, before: float, after: float):
    return lambda step: before if step < start else after


def sloping(start: float, end: float):
    return lambda step: start + (end - start) * step / ROUNDS


FAULTS = {
    "not_finite": with_fault(grad_norm=from_round(30, 0.1, math.nan)),
    "entropy_collapse": with_fault(entropy=sloping(0.4, 0.0)),
    "entropy_explosion": with_fault(entropy=from_round(30, 0.4, 1.6)),
    "length_collapse": with_fault(mean_length=sloping(120, 4)),
    "repetition": with_fault(repetition=sloping(0.05, 0.95)),
    "reward_without_gain": [
        record | ({"pass_at_1": 0.31 - step / 10_000} if step % 10 == 0 else {})
        for step, record in enumerate(with_fault(reward=sloping(0.2, 0.9)), 1)
    ],
    # The reward model pays ever more, a judge prefers the policy ever less, and problems with rules are solved no better and no worse.
    "over_optimised": [
        record | ({"win_rate": 0.6 - step / 300} if step % 10 == 0 else {})
        for step, record in enumerate(
            with_fault(reward=sloping(0.6, 0.9), reward_helpful=sloping(0.2, 0.9)), 1
        )
    ],
    # A model that learns to add always: the mean rises from 0.3 to 0.5, sums from 0.2 to 0.8, differences from 0.4 to 0.
    "kind_falls": with_fault(
        accuracy=sloping(0.3, 0.5),
        accuracy_of_easy=sloping(0.2, 0.8),
        accuracy_of_hard=sloping(0.4, 0.0),
    ),
    "verifier_failures": with_fault(verifier_failures=from_round(30, 0, 40)),
    "sampler_gap": with_fault(log_prob_gap_mean=from_round(30, 0.01, 0.6)),
}


@pytest.mark.parametrize("name", RULES)
def test_each_alarm_rings_on_its_fault_and_alone(name):
    assert set(rung(FAULTS[name])) == {name}


def test_every_rule_has_a_fault():
    assert FAULTS.keys() == RULES.keys()


def test_a_healthy_run_is_left_in_peace():
    """Length triples, entropy falls by a third, single rounds swing by 20 points. One run in 20 may ring by the noise of its held-out figures."""
    assert not any(rung(healthy(100, 0.0, seed)) for seed in range(5))
    loud = [found for seed in range(20) if (found := rung(healthy(100, 0.2, seed)))]
    assert len(loud) <= 1 and all(found.keys() == {"reward_without_gain"} for found in loud)


def test_windows_keep_single_rounds_from_ringing():
    single = with_fault(
        entropy=lambda step: 3.0 if step == 30 else 0.4,
        repetition=lambda step: 0.9 if step == 30 else 0.1,
    )
    assert rung(single) == {}
    # a third of the window at 0.6 makes 0.2
    assert rung(FAULTS["sampler_gap"])["sampler_gap"] in range(31, 40)
    assert rung(FAULTS["not_finite"])["not_finite"] == 30  # this one needs no second look


def test_a_change_of_temperature_is_no_explosion_and_a_solved_task_no_collapse():
    assert (
        rung(with_fault(entropy=from_round(30, 0.4, 1.6), temperature=from_round(30, 1.0, 1.3)))
        == {}
    )
    assert rung(with_fault(entropy=sloping(0.4, 0.0), accuracy=from_round(1, 0.5, 0.97))) == {}


def test_shorter_and_righter_answers_are_no_length_collapse():
    assert rung(with_fault(mean_length=sloping(120, 4), accuracy=sloping(0.2, 0.8))) == {}


def test_a_held_out_gain_answers_the_rise_of_the_reward():
    gaining = [
        record | ({"pass_at_1": 0.3 + step / 200} if step % 10 == 0 else {})
        for step, record in enumerate(with_fault(reward=sloping(0.2, 0.9)), 1)
    ]
    assert rung(gaining) == {}


def test_held_out_figures_that_swing_about_a_level_ring_too():
    """As in a run of SmolLM2 whose reward pays for the number of equations."""
    figures = {10: 0.18, 20: 0.15, 30: 0.17, 40: 0.15}
    records = [
        record | ({"pass_at_1": figures[n]} if n in figures else {})
        for n, record in enumerate(with_fault(reward=sloping(0.2, 0.9)), 1)
    ]
    assert rung(records) == {"reward_without_gain": 40}


def judged(win_rate, **changes) -> list[dict[str, float]]:
    records = enumerate(with_fault(**changes), 1)
    return [
        record | ({"win_rate": win_rate(step)} if step % 10 == 0 else {})
        for step, record in records
    ]


def test_over_optimisation_needs_a_rise_of_the_models_own_reward_and_a_fall_of_the_judges():
    up, down, flat = sloping(0.2, 0.9), sloping(0.6, 0.4), from_round(1, 0.5, 0.5)
    # no part of the reward is recorded: all of it counts
    assert list(rung(judged(down, reward=up))) == ["over_optimised"]
    assert rung(judged(up, reward=up, reward_helpful=up)) == {}
    assert rung(judged(flat, reward=up, reward_helpful=up)) == {}
    assert rung(judged(down, reward=down, reward_helpful=down)) == {}
    # the rules pay more: that is no fault of the reward model
    assert rung(judged(down, reward=up, reward_helpful=flat)) == {}
    # one evaluation above the one before
    assert rung(judged(lambda step: 0.6 - step / 300 + 0.2 * (step == 40), reward=up)) == {}
    assert list(rung(judged(down, reward=up), AlarmConfig(win_rate_fall=0.2))) == []
    assert rung(judged(down, reward=up))["over_optimised"] == 40  # the fourth evaluation: 0.1 down


def test_rounds_before_a_preference_was_paid_do_not_count():
    """R1 adds the preference reward in the last quarter of its second stage."""
    records = judged(sloping(0.6, 0.4), reward=sloping(0.2, 0.9), reward_helpful=sloping(0.0, 0.9))
    late = [
        record if step > 25 else {k: v for k, v in record.items() if k != "reward_helpful"}
        for step, record in enumerate(records, 1)
    ]
    # of the evaluations at 30, 40, 50, 60
    assert rung([record | {"reward": 0.5} for record in late]) == {"over_optimised": 60}


def test_all_kinds_falling_with_the_mean_is_no_trade_of_one_for_another():
    assert (
        rung(
            with_fault(
                accuracy=sloping(0.5, 0.2),
                accuracy_of_easy=sloping(0.6, 0.3),
                accuracy_of_hard=sloping(0.4, 0.1),
            )
        )
        == {}
    )


def test_a_skipped_update_rings_and_an_alarm_is_said_once_while_it_goes_on():
    alarms = Alarms(AlarmConfig())
    said = [alarms.step({"skipped_steps": skipped}) for skipped in (0, 1, 1, 2, 3)]
    assert [bool(s) for s in said] == [False, True, False, True, False]
    assert "gradient was not finite" in said[1]["not_finite"]


def test_off_keeps_the_records_and_says_nothing():
    alarms = Alarms(AlarmConfig(policy="off"))
    assert alarms.step({"loss": math.nan, "step_seconds": 3.0}) == {} and alarms.records == [
        {"loss": None}
    ]


def test_records_survive_json_and_ring_at_the_same_round():
    whole = rung(FAULTS["kind_falls"])
    alarms, first = Alarms(AlarmConfig()), {}
    for number, record in enumerate(FAULTS["kind_falls"], 1):
        # killed after every round
        alarms = Alarms(AlarmConfig(), **json.loads(json.dumps(alarms.state())))
        for name in alarms.step(record):
            first.setdefault(name, number)
    assert first == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": "panic"}, "policy is 'panic', expected 'off', 'warn', 'pause' or 'roll_back'"),
        ({"window": 1}, "window of the alarms is 1, expected at least 2"),
        ({"kind_fall": -0.1}, "kind_fall of the alarms is -0.1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        AlarmConfig(**change)


def test_roll_back_needs_a_checkpoint_that_is_old_enough():
    rolling = AlarmConfig("roll_back", window=10)
    GRPOConfig(alarms=rolling, checkpoint_every=10, keep=2)
    with pytest.raises(
        ValueError,
        match="a checkpoint older than its window of 10 steps, but the oldest kept may be 5 old",
    ):
        GRPOConfig(alarms=rolling, checkpoint_every=5, keep=2)
    assert R1_ZERO.alarms.policy == "warn"
