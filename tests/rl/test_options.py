"""The loop's options: later temperature, masked truncation, further batches, routing replay, and what an alarm does to a run."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from deepwright.files import read_records
from deepwright.metrics import JsonlTracker
from deepwright.model import Transformer
from deepwright.rl import PRESETS, AlarmConfig, GRPOConfig, Learner, train_grpo
from deepwright.rl import alarms as rules
from deepwright.rl.losses import VARIANTS
from deepwright.rl.rollout import admitted, mini_batches, score_rollouts, training_rows
from deepwright.rl.types import pad_rows
from deepwright.rl.update import (
    accumulate_gradient,
    policy_log_probs,
    replayed,
    with_old,
    with_reference,
)
from deepwright.sampler import Completion, StopReason
from deepwright.verify.cases import CASES, random_model
from tests.rl.fakes import ONE_UPDATE, TOKENIZER, WITH_KL, FakeSampler, SayYes, make_model, run
from tests.rl.test_grpo import curve, same, weights
from tests.rl.test_update import ragged_rows

EOS = TOKENIZER.eos_id


# --- temperature


def at(config: GRPOConfig, *entropies: float | None, temperature: float = 1.0) -> float:
    learner = Learner(config, make_model())
    for entropy in entropies:
        learner.alarms.step(
            {"temperature": temperature} | ({} if entropy is None else {"entropy": entropy})
        )
    return learner.now.temperature


def test_the_temperature_holds_the_entropy_between_its_target_and_twice_that():
    config = replace(ONE_UPDATE, entropy_target=0.2, hottest=1.5)
    # never below the first temperature
    assert at(config) == at(config, 0.3, 0.3) == at(config, 0.9, 0.9) == 1.0
    assert (
        at(config, 0.1) == pytest.approx(1.05)
        and at(config, 0.9, 0.1, 0.1) == 1.0
        and at(config, 9.0, 0.3, 0.1, 0.1) == pytest.approx(1.05)
    )
    assert at(config, 0.3, temperature=1.3) == 1.3 and at(
        config, 0.5, temperature=1.3
    ) == pytest.approx(1.3 / 1.05)
    assert (
        at(config, None, temperature=1.4) == pytest.approx(1.47)
        and at(config, None, temperature=1.49) == 1.5
    )
    assert at(ONE_UPDATE, 0.0, 0.0, 0.0) == 1.0


HOTTER = replace(ONE_UPDATE, steps=9, entropy_target=10.0)


def test_sampler_and_loss_follow_the_schedule_and_a_kill_changes_nothing(tmp_path):
    whole = run(tmp_path / "whole", HOTTER)
    temperatures = [record["temperature"] for record in curve(tmp_path / "whole")]
    assert temperatures == pytest.approx([1.05**n for n in range(9)])
    # the trainer divides by the same T
    assert all(record.get("log_prob_gap_max", 0) <= 1e-5 for record in curve(tmp_path / "whole"))

    def interrupt(step: int, model: torch.nn.Module) -> None:
        if step in (2, 5, 7):
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(3):
        with pytest.raises(SystemExit):
            run(tmp_path / "broken", replace(HOTTER, evaluate_every=1), evaluate=interrupt)
    assert same(weights(run(tmp_path / "broken", HOTTER).model), weights(whole.model))
    assert [r["temperature"] for r in curve(tmp_path / "broken")] == temperatures


# --- what reaches the update


def groups_of(*groups: list[tuple[str, StopReason]]):
    task = SayYes()

    def completion(text: str, stop: StopReason) -> Completion:
        ids = (*TOKENIZER.encode(text), *[EOS] * (stop is StopReason.STOP))
        return Completion(ids, (-0.5,) * len(ids), stop)

    made = [[completion(*one) for one in group] for group in groups]
    problems = [task.problem(i, "train") for i in range(len(groups))]
    return score_rollouts(task, TOKENIZER, problems, [[0]] * len(groups), made)


STOP, CUT = StopReason.STOP, StopReason.LENGTH


def test_masked_truncation_leaves_sum_normaliser_and_group_mean():
    groups = groups_of(
        [("yes", STOP), ("no", STOP), ("yes yes yes", CUT)], [("yes", CUT), ("no", CUT)]
    )
    wrong = training_rows(admitted(groups, ONE_UPDATE), VARIANTS["grpo"], drop_zero_variance=True)
    assert len(wrong) == 3 and wrong[2].advantage < 0  # rewards 1.5, 0.5, 0
    kept = admitted(groups, replace(ONE_UPDATE, truncated="mask"))
    masked = training_rows(kept, VARIANTS["grpo"], drop_zero_variance=True)
    # relative to 1.5 and 0.5 alone
    assert [row.advantage for row in masked] == pytest.approx([1, -1], rel=1e-5)
    [weighted] = mini_batches(masked, 1, VARIANTS["grpo_token_mean"], 0, 0)
    assert sum(row.weight * len(row.completion_ids) for row in weighted) == pytest.approx(1)
    # everything cut: nothing, no NaN
    assert training_rows(kept[1:], VARIANTS["grpo"], drop_zero_variance=False) == []


def test_a_round_in_which_all_is_masked_moves_nothing(tmp_path):
    before = weights(make_model())
    learner = run(
        tmp_path,
        replace(
            ONE_UPDATE,
            steps=1,
            max_tokens=1,
            truncated="mask",
            zero_variance="keep",
            checkpoint_every=1,
        ),
    )
    [record] = curve(tmp_path)
    if record["truncated_rate"] == 1:
        assert same(before, weights(learner.model)) and "loss" not in record


class Unequal(SayYes):
    """Only every fourth problem can be answered rightly: the others' groups have no variance, as every completion earns the same."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "asked", [])

    def problem(self, i, split):
        self.asked.append(i)
        return super().problem(i, split)

    def size(self, split):
        return 1000

    def score(self, problem, completion):
        found = super().score(problem, completion)
        return found if problem.index % 4 == 0 else replace(found, value=0.0)


def trained(folder: Path, config: GRPOConfig) -> tuple[list[dict], list[int]]:
    model, task = make_model(), Unequal()
    train_grpo(
        config,
        model,
        TOKENIZER,
        task,
        FakeSampler(model),
        folder / "zero",
        JsonlTracker(folder / "metrics.jsonl"),
    )
    # the first one was only looked at: are prompts conversations?
    return read_records(folder / "metrics.jsonl"), task.asked[1:]


def test_further_batches_are_asked_until_enough_groups_have_variance(tmp_path):
    config = replace(ONE_UPDATE, steps=3, prompts=4, samples=8)
    [plain, *_], asked = trained(tmp_path / "a", config)
    assert plain["groups"] < 4 and plain["completions"] == 32 and len(asked) == 12
    records, more = trained(tmp_path / "b", replace(config, resample=9))
    assert [record["groups"] for record in records] == [4, 4, 4]
    # metrics are over everything sampled, not over the chosen groups
    assert all(record["completions"] > 32 for record in records)
    assert len(set(more)) == len(more) > 12  # no round asks what another one asks
    limited, _ = trained(tmp_path / "c", replace(config, resample=1))
    assert all(record["completions"] <= 64 and record["groups"] <= 4 for record in limited)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_improves_a_bandit(tmp_path, name):
    """Two updates a round, so that ratios matter; dr_grpo's constant normaliser and rloo's plain sums need no other learning rate here."""
    config = replace(
        ONE_UPDATE,
        variant=name,
        steps=40,
        prompts=8,
        samples=8,
        mini_batches=2,
        clip=0.2,
        clip_high=0.28,
        checkpoint_every=40,
    )
    run(tmp_path, config)
    accuracies = [record["accuracy"] for record in curve(tmp_path)]
    assert sum(accuracies[-4:]) / 4 > accuracies[0] + 0.4


# --- routing replay


def moved(model: Transformer) -> Transformer:
    """The same model after updates that change whom the routers choose."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "router" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def chosen(model: Transformer, batch) -> torch.Tensor:
    routing: list = []
    policy_log_probs(model, batch, 1.0, routing)
    return torch.stack(
        [
            record.ids_TK.reshape(*batch.tokens_BS[:, 1:].shape, -1)[batch.valid_BS[:, 1:]]
            for record in routing
        ]
    )


@pytest.mark.parametrize("case", ["v3", "v3 one group, top-3", "v2", "v2-lite"])
def test_replay_sends_every_token_to_the_experts_of_pi_old_with_todays_weights(case):
    model = random_model(CASES[case])
    rows = with_old(model, ragged_rows(), 1.0, 18, keep_experts=True)
    plain = with_old(model, ragged_rows(), 1.0, 18)
    whole = pad_rows(rows, 0)
    before = chosen(model, pad_rows(plain, 0))
    assert torch.equal(chosen(model, whole), before)
    # Before anything moved, replaying changes no bit: the ratio starts at exactly 1.
    assert torch.equal(
        policy_log_probs(model, whole, 1.0)[0], policy_log_probs(model, pad_rows(plain, 0), 1.0)[0]
    )
    moved(model)
    assert not torch.equal(chosen(model, pad_rows(plain, 0)), before)
    assert torch.equal(chosen(model, whole), before)
    routing: list = []
    policy_log_probs(model, whole, 1.0, routing)
    c = model.config
    for record in routing:  # weights are those of today's affinities of the replayed experts
        expected = record.scores_TE.gather(1, record.ids_TK)
        expected = (
            expected / (expected.sum(-1, keepdim=True) + 1e-20) if c.norm_topk_prob else expected
        )
        assert (
            torch.equal(record.weights_TK, expected * c.routed_scaling_factor)
            and record.weights_TK.requires_grad
        )


def test_a_reference_chooses_its_own_experts():
    """Those of pi_old are for updates of the policy; the KL term is to the reference as it is."""
    config = replace(WITH_KL, replay_routing=True)
    learner = Learner(config, random_model(CASES["v3"]))
    moved(learner.model)
    found = learner._with_fixed_log_probs(ragged_rows())
    expected = with_reference(learner.reference, ragged_rows(), 1.0, config.micro_batch_tokens)
    assert [row.reference_log_probs for row in found] == [
        row.reference_log_probs for row in expected
    ]
    assert all(row.experts_LSK is not None for row in found)


def test_replay_leaves_the_biases_as_they_were_and_any_split_gives_the_same_gradient():
    model = random_model(CASES["v3"])
    rows = with_old(model, ragged_rows(), 1.0, 18, keep_experts=True)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    moved(model)
    found = []
    for budget in (10_000, 18, 1):
        accumulate_gradient(
            model, rows, VARIANTS["grpo"], WITH_KL.coefficients.__class__(0.2, 0.0), 1.0, budget, {}
        )
        found.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
        model.zero_grad()
    for gradient in found[1:]:
        assert (gradient - found[0]).abs().max() <= 2e-5 * found[0].abs().max()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    with pytest.raises(RuntimeError), replayed(model, pad_rows(rows, 0).experts_LTK):
        raise RuntimeError
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_a_run_with_replay_starts_each_round_at_ratio_one_and_differs_later(tmp_path):
    config = replace(WITH_KL, learning_rate=0.1, bias_speed=0.0, micro_batch_tokens=64)
    still = replace(config, learning_rate=0.0, steps=4)
    run(tmp_path / "still", replace(still, replay_routing=True))
    assert all(
        record["ratio_max"] == record["ratio_mean"] == 1.0 for record in curve(tmp_path / "still")
    )
    run(tmp_path / "a", config)
    run(tmp_path / "b", replace(config, replay_routing=True))
    assert curve(tmp_path / "a")[0]["ratio_mean"] != curve(tmp_path / "b")[0]["ratio_mean"]


# --- alarms


ALARMED = replace(ONE_UPDATE, steps=12, checkpoint_every=3, keep=3, alarms=AlarmConfig(window=2))


@pytest.fixture
def at_step_seven(monkeypatch):
    """One rule, which rings in round 7."""
    monkeypatch.setattr(
        rules, "RULES", {"seven": lambda records, c: "round seven" if len(records) == 7 else None}
    )


def test_warning_changes_nothing_but_says_it(tmp_path, at_step_seven, capfd):
    plain = run(tmp_path / "a", replace(ALARMED, alarms=AlarmConfig("off", window=2)))
    warned = run(tmp_path / "b", ALARMED)
    assert same(weights(plain.model), weights(warned.model))
    assert "alarm at step 7 (seven): round seven" in capfd.readouterr().err
    [record] = read_records(tmp_path / "b/zero/alarms.jsonl")
    assert record == {
        "stage": "zero",
        "step": 7,
        "roll_backs": 0,
        "alarm": "seven",
        "sentence": "round seven",
    }
    assert not (tmp_path / "a/zero/alarms.jsonl").exists()


def test_a_paused_run_is_saved_and_goes_on_with_the_same_bits_where_its_user_says_so(
    tmp_path, at_step_seven, capfd
):
    # rings before anything is saved
    pausing = replace(ALARMED, checkpoint_every=100, alarms=AlarmConfig("pause", window=2))
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "a", pausing)
    assert (
        stopped.value.code == 3
        and "was paused by an alarm after step 7 and is saved" in capfd.readouterr().err
    )
    resumed = run(tmp_path / "a", ALARMED)  # another policy is no other run
    assert same(weights(resumed.model), weights(run(tmp_path / "b", ALARMED).model))
    assert [r["step"] for r in curve(tmp_path / "a")] == list(range(1, 13))


ROLLING = replace(ALARMED, alarms=AlarmConfig("roll_back", window=2, roll_backs=2))


def test_a_roll_back_goes_on_from_before_the_window_at_half_the_rate_with_other_samples(
    tmp_path, at_step_seven, capfd
):
    # it rings again after each of two roll-backs, then pauses
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, ROLLING)
    assert stopped.value.code == 3
    records = read_records(tmp_path / "zero/alarms.jsonl")
    assert [(r["roll_backs"], r["step"]) for r in records] == [(0, 7), (1, 7), (2, 7)]
    metrics = curve(tmp_path)
    assert [r["step"] for r in metrics] == list(range(1, 8))
    # steps 1 to 3 are those of the first way; from the checkpoint of step 3 (older than 7 - 2, not that of 6) at a quarter of the rate
    plain = curve_of(tmp_path / "plain")
    assert metrics[:3] == plain[:3] and metrics[3]["reward"] != plain[3]["reward"]
    assert [
        m["learning_rate"] / p["learning_rate"] for m, p in zip(metrics, plain, strict=False)
    ] == pytest.approx([1, 1, 1, *[0.25] * 4])
    assert capfd.readouterr().err.count("continues after step 3") == 2


def curve_of(folder: Path) -> list[dict]:
    run(folder, replace(ALARMED, alarms=AlarmConfig("off", window=2)))
    return curve(folder)


def ring_once(records, c):
    """Rings in round 7 unless the first roll-back has happened: its samples are others."""
    return "once" if len(records) == 7 and records[4]["reward"] == ring_once.first else None


@pytest.mark.parametrize(
    ("kill_at", "after_the_alarm"),
    [(None, False), (2, False), (4, True), (5, True), (8, True), (11, True)],
)
def test_a_run_that_rolled_back_ends_with_the_same_bits_however_it_was_killed(
    tmp_path, monkeypatch, kill_at, after_the_alarm
):
    ring_once.first = round_five(tmp_path / "plain")
    monkeypatch.setattr(rules, "RULES", {"once": ring_once})
    whole, broken = run(tmp_path / "whole", ROLLING), tmp_path / "broken"
    assert whole.finished and whole.alarms.roll_backs == 1

    def die(step: int, model: torch.nn.Module) -> None:
        """In the middle of a round, without a save: what is on disk is all that is left."""
        if step == kill_at and (broken / "zero/alarms.jsonl").exists() == after_the_alarm:
            raise KeyboardInterrupt

    if kill_at is not None:
        with pytest.raises(KeyboardInterrupt):
            run(broken, replace(ROLLING, evaluate_every=1), evaluate=die)
    again = run(broken, ROLLING)
    assert same(weights(again.model), weights(whole.model))
    found = [
        {name: value for name, value in record.items() if name != "evaluation_seconds"}
        for record in curve(broken)
    ]
    assert found == curve(tmp_path / "whole")
    assert (broken / "zero/alarms.jsonl").read_text() == (
        tmp_path / "whole/zero/alarms.jsonl"
    ).read_text()


def round_five(folder: Path) -> float:
    return curve_of(folder)[4]["reward"]


def test_the_start_itself_is_somewhere_to_go_back_to(tmp_path, monkeypatch):
    monkeypatch.setattr(
        rules, "RULES", {"two": lambda records, c: "round two" if len(records) == 2 else None}
    )
    with pytest.raises(SystemExit):
        run(tmp_path, ROLLING)
    assert [(r["roll_backs"], r["step"]) for r in read_records(tmp_path / "zero/alarms.jsonl")] == [
        (0, 2),
        (1, 2),
        (2, 2),
    ]


def test_a_real_fault_is_caught_in_the_loop(tmp_path, capfd):
    """A reward for one word whatever it says: reward and form rise, what is right does not, and the entropy goes to nothing."""

    class AnyWord(SayYes):
        def score(self, problem, completion):
            found = super().score(problem, completion)
            return replace(found, value=1.0 if completion == "no" else 0.0)

    config = replace(
        ONE_UPDATE,
        steps=40,
        prompts=8,
        samples=8,
        learning_rate=0.05,
        checkpoint_every=40,
        zero_variance="keep",
    )
    config = replace(config, evaluate_every=5, alarms=AlarmConfig("pause", window=4))
    model = make_model()
    with pytest.raises(SystemExit) as stopped:
        train_grpo(config, model, TOKENIZER, AnyWord(), FakeSampler(model), tmp_path / "zero", JsonlTracker(tmp_path / "metrics.jsonl"),
                   evaluate=lambda step, model: {"pass_at_1": 0.0})  # fmt: skip
    assert stopped.value.code == 3
    assert {r["alarm"] for r in read_records(tmp_path / "zero/alarms.jsonl")} & {
        "reward_without_gain",
        "entropy_collapse",
    }
    assert "alarm at step" in capfd.readouterr().err


# --- settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"entropy_target": 0.0}, "entropy_target is 0.0"),
        (
            {"entropy_target": 0.1, "hottest": 0.9},
            "hottest is 0.9, expected at least the temperature",
        ),
        ({"truncated": "ignore"}, "truncated is 'ignore', expected 'wrong' or 'mask'"),
        ({"resample": 2, "zero_variance": "keep"}, "resample is 2, but with zero_variance 'keep'"),
        ({"resample": -1}, "resample is -1"),
        ({"clip_high": 0.3}, "clip_high is 0.3, but without clip"),
        ({"importance_cap": 0.0}, "importance_cap is 0.0"),
        ({"replay_routing": True}, "replay_routing is on, but with mini_batches 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(GRPOConfig(), **change)


def test_presets_hold_the_published_figures():
    math_, dapo = PRESETS["deepseek_math"], PRESETS["dapo"]
    assert (
        math_.beta,
        math_.samples,
        math_.prompts * math_.samples,
        math_.max_tokens,
        math_.learning_rate,
    ) == (0.04, 64, 1024, 1024, 1e-6)
    assert (math_.variant, math_.mini_batches, PRESETS["r1_zero"].variant) == ("grpo", 1, "grpo")
    assert (
        dapo.clip,
        dapo.clip_high,
        dapo.beta,
        dapo.prompts,
        dapo.samples,
        dapo.mini_batches,
    ) == (0.2, 0.28, 0.0, 512, 16, 16)
    assert (dapo.max_tokens, dapo.learning_rate, dapo.variant, dapo.zero_variance) == (
        20_480,
        1e-6,
        "dapo",
        "drop",
    ) and dapo.resample > 0
    assert json.loads(json.dumps(asdict(dapo)))["alarms"]["policy"] == "warn"
