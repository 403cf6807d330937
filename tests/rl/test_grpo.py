"""The loop: it learns, it resumes bit-equal after kills, lr 0 leaves the policy where it was, and interrupts end in a sentence."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepwright.evaluate.scoring import prompt_ids
from deepwright.files import read_records
from deepwright.metrics import JsonlTracker
from deepwright.rl import grpo, train_grpo
from deepwright.rl.grpo import check_prompts
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.tasks import Calc3, Task
from tests.rl.fakes import (
    CLOCK,
    ONE_UPDATE,
    TOKENIZER,
    WITH_KL,
    FakeSampler,
    SayYes,
    make_model,
    run,
)

LOGGED = [
    "reward", "accuracy", "format_rate", "mean_length", "truncated_rate", "entropy", "kl", "ratio_mean", "ratio_max", "clip_fraction",
    "log_prob_gap_mean", "log_prob_gap_max", "zero_variance_rate", "grad_norm", "learning_rate", "rollout_seconds", "reward_seconds",
    "update_seconds", "rollout_tokens_per_second", "verifier_failures",
]  # fmt: skip


def curve(folder: Path) -> list[dict]:
    return [
        {name: value for name, value in record.items() if name not in CLOCK}
        for record in read_records(folder / "metrics.jsonl")
    ]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def readings_in_training(folder: Path, task: Task) -> list[str | None]:
    """How completions are read where `train_grpo` scores them."""
    seen = []

    def collect(config, asked, *rest):
        seen.append(asked.reading)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(grpo, "collect", collect)
        patch.setattr(grpo, "check_prompts", lambda *parts: None)
        model, tracker = make_model(), JsonlTracker(folder / "metrics.jsonl")
        train_grpo(ONE_UPDATE, model, TOKENIZER, task, FakeSampler(model), folder, tracker)
    return seen


def test_training_reads_strictly_unless_it_is_told_otherwise(tmp_path):
    assert readings_in_training(tmp_path, Calc3()) == ["strict"]
    assert readings_in_training(tmp_path, Calc3(reading="usual")) == ["usual"]


def test_a_bandit_is_solved_in_a_few_steps(tmp_path):
    learner = run(
        tmp_path, replace(ONE_UPDATE, steps=30, prompts=8, samples=8, checkpoint_every=30)
    )
    accuracies = [record["accuracy"] for record in curve(tmp_path)]
    assert accuracies[0] < 0.3  # guessing among 10 tokens
    assert sum(accuracies[-5:]) / 5 > 0.9
    assert learner.step == 30


def test_each_step_logs_what_a_reader_needs(tmp_path):
    run(tmp_path, replace(WITH_KL, steps=4))
    records = read_records(tmp_path / "metrics.jsonl")
    assert [(r["stage"], r["step"]) for r in records] == [("zero", 2), ("zero", 4)]
    for name in LOGGED:
        assert records[0][name] is not None, name
    samples = read_records(tmp_path / "zero/samples.jsonl")
    assert len(samples) == 6 and {
        "stage",
        "step",
        "prompt",
        "completion",
        "value",
        "verdict",
        "length",
    } <= set(samples[0])


def test_sampler_and_trainer_agree_on_log_probs_at_another_temperature(tmp_path):
    run(tmp_path, replace(ONE_UPDATE, steps=3, temperature=0.6))
    # Same weights, fp32, batch 1 against a padded batch: 40 operations of 6e-8 at magnitudes up to 3
    assert all(record["log_prob_gap_max"] <= 1e-5 for record in curve(tmp_path))


@pytest.mark.invariant
def test_learning_rate_zero_keeps_the_ratio_at_one_for_fifty_steps(tmp_path):
    config = replace(
        WITH_KL,
        steps=50,
        learning_rate=0.0,
        bias_speed=0.0,
        prompts=2,
        samples=4,
        reference_refresh=None,
        checkpoint_every=50,
    )
    before = weights(make_model())
    learner = run(tmp_path, config)
    assert same(before, weights(learner.model))
    for record in curve(tmp_path):
        # pi_old is computed in the update's own micro-batches: not merely close to 1
        assert (
            record["ratio_mean"] == record["ratio_max"] == 1.0
            and record["clip_fraction"] == 0.0
            and record["kl"] == 0.0
        )
        assert record["log_prob_gap_max"] <= 1e-5


def test_a_round_that_teaches_nothing_moves_nothing(tmp_path):
    """Every group at zero variance: no rows, no update, and metrics without made-up numbers."""
    before = weights(make_model())
    # cut at one token: all wrong
    learner = run(tmp_path, replace(ONE_UPDATE, steps=1, max_tokens=1, checkpoint_every=1))
    [record] = curve(tmp_path)
    assert (
        record["zero_variance_rate"] == 1 and record["truncated_rate"] > 0 and record["groups"] == 0
    )
    assert "entropy" not in record and "grad_norm" not in record
    assert same(before, weights(learner.model))


def test_bias_moves_only_when_asked_and_the_reference_is_refreshed_on_its_step(tmp_path):
    still = run(tmp_path / "a", replace(ONE_UPDATE, steps=2))
    assert float(still.model.layers[1].ffn.router.bias.abs().max()) == 0
    moving = run(tmp_path / "b", replace(WITH_KL, steps=4, reference_refresh=4))
    assert float(moving.model.layers[1].ffn.router.bias.abs().max()) > 0
    assert same(weights(moving.model), weights(moving.reference))
    apart = run(tmp_path / "c", replace(WITH_KL, steps=4, reference_refresh=None))
    assert same(weights(make_model()), weights(apart.reference))


@pytest.mark.invariant
def test_evaluating_in_between_changes_nothing(tmp_path):
    calls = []

    def evaluate(step: int, model: torch.nn.Module) -> dict[str, float]:
        calls.append(step)
        torch.rand(7)
        FakeSampler(model).sample([[0, 3]], Sampling(3))
        return {"pass_at_1": 0.5}

    config = replace(ONE_UPDATE, steps=4)
    plain = run(tmp_path / "a", config)
    observed = run(tmp_path / "b", replace(config, evaluate_every=2), evaluate=evaluate)
    assert calls == [2, 4]
    assert same(weights(plain.model), weights(observed.model))
    assert curve(tmp_path / "b")[1]["pass_at_1"] == 0.5


def killed(folder: Path, kind: list[str], seconds: float) -> bool:
    """Runs, or continues, in a process of its own that is killed after so many seconds. False if it finished before."""
    command = [sys.executable, "-m", "tests.rl.fakes", str(folder), str(seconds), *kind]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        ([], 2),
        (["kl"], 2),
        pytest.param([], 20, marks=pytest.mark.slow),
        pytest.param(["kl"], 20, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments_and_resumed_ends_bit_equal(tmp_path, kind, kills):
    """A run that finishes before its kill is compared with the unbroken one, and the next kills fall into a new run."""
    config, moments = WITH_KL if kind else ONE_UPDATE, random.Random(kills)
    whole = run(tmp_path / "whole", config)
    hits, attempt = 0, 0
    while hits < kills:
        broken = tmp_path / f"broken-{attempt}"
        while hits < kills and killed(broken, kind, moments.uniform(0.01, 0.6)):
            hits += 1
        again = run(broken, config)  # the rest, or nothing but loading the last checkpoint
        assert same(weights(whole.model), weights(again.model))
        assert curve(tmp_path / "whole") == curve(broken)
        assert (tmp_path / "whole/zero/samples.jsonl").read_text() == (
            broken / "zero/samples.jsonl"
        ).read_text()
        attempt += 1


def test_interrupt_finishes_the_round_saves_and_can_be_continued(tmp_path, capfd):
    def evaluate(step: int, model: torch.nn.Module) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    config = replace(ONE_UPDATE, evaluate_every=1)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "stopped", config, evaluate=evaluate)
    assert stopped.value.code == 130
    assert "interrupted after step 4 and is saved" in capfd.readouterr().err
    resumed, whole = run(tmp_path / "stopped", config), run(tmp_path / "whole", config)
    assert same(weights(resumed.model), weights(whole.model))
    assert [r["step"] for r in curve(tmp_path / "stopped")] == list(range(1, 13))


def test_resume_with_other_settings_is_refused_by_name(tmp_path):
    run(tmp_path, replace(ONE_UPDATE, steps=3))
    with pytest.raises(ValueError, match=r"was trained with learning_rate 0.02, now it is 0.5"):
        run(tmp_path, replace(ONE_UPDATE, steps=3, learning_rate=0.5))
    # results differ by rounding at most: allowed
    run(tmp_path, replace(ONE_UPDATE, steps=3, micro_batch_tokens=32))


class StopsAtOnce:
    """Every completion is the end token alone: nothing is cut, all of it reaches the verifier."""

    def sample(self, prompts, sampling):
        return [
            [Completion((TOKENIZER.eos_id,), (0.0,), StopReason.STOP)] * sampling.n for _ in prompts
        ]


class BrokenTask(SayYes):
    def score(self, problem, completion):
        raise RuntimeError("no compiler here")


def test_a_verifier_that_always_fails_ends_the_run_in_one_sentence(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    with pytest.raises(
        ValueError,
        match=r"the verifier of task 'say-yes' failed on all 24 completions: .*no compiler here",
    ):
        train_grpo(
            ONE_UPDATE, make_model(), TOKENIZER, BrokenTask(), StopsAtOnce(), tmp_path, tracker
        )


class Talk(SayYes):
    """A conversation each, of which the third is as long as the context."""

    def problem(self, i, split):
        words = " ".join(["yes"] * (300 if i == 2 else 3))
        return replace(super().problem(i, split), messages=({"role": "user", "content": words},))


def test_a_prompt_that_leaves_no_room_is_refused_before_any_step(tmp_path):
    task = Talk()
    tokens = len(prompt_ids(TOKENIZER, task.problem(2, "train")))
    check_prompts(task, TOKENIZER, tokens + 1)
    with pytest.raises(
        ValueError,
        match=f"training problem 2 has a prompt of {tokens} tokens, the context holds {tokens}: ",
    ):
        check_prompts(task, TOKENIZER, tokens)


def test_states_are_json(tmp_path):
    learner = run(tmp_path, replace(ONE_UPDATE, steps=1, checkpoint_every=1))
    assert json.loads(json.dumps(learner.state()))["counters"]["step"] == 1


def test_more_steps_go_on_and_fewer_are_another_run(tmp_path):
    """What was done stays; from there on rates are those of a run of the new length."""
    short, long = (replace(ONE_UPDATE, steps=n, checkpoint_every=1) for n in (3, 6))
    run(tmp_path, short)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert run(tmp_path, long).step == 6
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(before)
    rates = [record["learning_rate"] for record in curve(tmp_path)]
    wanted = [(short if step < 4 else long).learning_rate_at(step) for step in range(1, 7)]
    assert rates == pytest.approx(wanted)
    assert "was trained with steps 6, now it is 5" in refusal(tmp_path, replace(long, steps=5))


def refusal(folder: Path, config) -> str:
    try:
        run(folder, config)
    except ValueError as error:
        return str(error)
    raise AssertionError("it was taken")


# ---- a verifier that fails


class FailsFrom:
    """SayYes, whose check raises after its call number `first`, there at every `every`th."""

    name, problem, size = SayYes.name, SayYes().problem, SayYes().size

    def __init__(self, first: int, every: int = 1) -> None:
        self.first, self.every, self.asked = first, every, 0

    def score(self, problem, completion):
        self.asked += 1
        if self.asked > self.first and self.asked % self.every == 0:
            raise RuntimeError(f"no compiler here, at {self.asked}")
        return SayYes().score(problem, completion)


def trained(folder: Path, task: Task) -> None:
    model = make_model()
    tracker = JsonlTracker(folder / "metrics.jsonl")
    config = replace(ONE_UPDATE, steps=4, checkpoint_every=100)
    train_grpo(config, model, TOKENIZER, task, FakeSampler(model), folder / "zero", tracker)


def check_lost_rounds(folder: Path) -> None:
    """Some completions are cut and never judged: the round is lost all the same. What was done before is saved."""
    one, other = folder / "one", folder / "other"
    trained(one, counted := FailsFrom(10**9))
    assert 0 < counted.asked < 4 * 24  # some were cut
    records = read_records(one / "metrics.jsonl")
    cut = [round(24 * record["truncated_rate"]) for record in records]
    judged = sum(24 - n for n in cut[:2])  # of the first two rounds
    try:
        trained(other, FailsFrom(judged))
    except ValueError as error:
        said = str(error)
    else:
        raise AssertionError("the run went on to its end")
    assert said.startswith("zero stops after step 2, for nothing can be learned: the verifier of")
    assert f"all {24 - cut[2]} completions that were not cut, of 24: " in said
    assert f"no compiler here, at {judged + 1}" in said and f"saved in {other / 'zero'}" in said
    assert (other / "zero/checkpoints/step-2").is_dir()
    trained(other, SayYes())  # put right, it goes on to the same end
    assert [record["step"] for record in read_records(other / "metrics.jsonl")] == [1, 2, 3, 4]
    assert same(_saved(one), _saved(other))


def _saved(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "zero/checkpoints/step-4/model.safetensors")


def test_a_round_whose_every_check_fails_ends_the_run_where_it_stood(tmp_path):
    check_lost_rounds(tmp_path)


def test_the_first_failure_is_said_at_once_and_once(tmp_path, capsys):
    trained(tmp_path, FailsFrom(0, every=3))
    said = [line for line in capsys.readouterr().err.splitlines() if "verifier failed" in line]
    assert len(said) == 1 and said[0].startswith("zero, step 1: the verifier failed on ")
    assert said[0].endswith("RuntimeError: no compiler here, at 3")
