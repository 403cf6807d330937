"""Training that has lost its numbers ends in one sentence, leaves what it had saved, and saves
nothing that is not finite: pre-training, fine-tuning, reinforcement learning, reward models."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from deepwright.cli import main
from deepwright.files import read_records
from deepwright.inference.engine import Engine
from deepwright.metrics import JsonlTracker
from deepwright.model.finite import first_bad, source
from deepwright.rl import train_grpo
from deepwright.sampler import NotFinite, Sampling
from deepwright.train.checkpoint import CheckpointError, latest_checkpoint, save_checkpoint
from deepwright.train.optimizer import TrainingDiverged
from tests.rl import fakes, test_reward_model
from tests.train import test_sft, tiny


def pretraining(folder, rate, steps=2, base=tiny.CONFIG, **options):
    schedule = replace(
        tiny.SCHEDULE,
        learning_rate=rate,
        warmup_steps=0,
        batch_rows_start=0,
        total_tokens=steps * 4 * tiny.LENGTH,
    )
    tiny.run(folder, replace(base, schedule=schedule), **options)


def muon(folder, rate):
    pretraining(folder, rate, base=tiny.MUON)


def half_moments(folder, rate):
    optimizer = replace(tiny.CONFIG.optimizer, moments="bfloat16")
    pretraining(folder, rate, base=replace(tiny.CONFIG, optimizer=optimizer))


def fine_tuning(folder, rate):
    test_sft.run(folder, replace(test_sft.CONFIG, learning_rate=rate, warmup_steps=0))


def reinforcement(folder, rate, **changes):
    model = fakes.make_model()
    config = replace(fakes.ONE_UPDATE, learning_rate=rate, warmup_steps=0, steps=4, **changes)
    train_grpo(
        config, model, fakes.TOKENIZER, fakes.SayYes(), Engine(model, fakes.TOKENIZER),
        folder / "zero", JsonlTracker(folder / "metrics.jsonl"),
    )  # fmt: skip


def preferences(folder, rate):
    test_reward_model.run(folder, replace(test_reward_model.CONFIG, learning_rate=rate))


LOOPS = [pretraining, muon, half_moments, fine_tuning, reinforcement, preferences]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_a_learning_rate_beyond_all_bounds_ends_the_first_step(loop, rate, tmp_path):
    with pytest.raises(
        TrainingDiverged, match=r"^step 1: the largest weight of \S+ is (\d|nan|inf)"
    ):
        loop(tmp_path, rate)
    assert not list(tmp_path.rglob("step-*"))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_learning_rate_that_destroys_the_model_never_finishes(loop, tmp_path):
    """Weights of 1e10 are numbers; what the model makes of them is none."""
    with pytest.raises(TrainingDiverged, match=r"^step [1-5]: .*lower the learning rate"):
        loop(tmp_path, 1e10)
    assert not list(tmp_path.rglob("step-*"))


def test_the_sentence_names_the_first_module_whose_output_is_lost(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"layers\.0\.ffn is the first module whose output"):
        pretraining(tmp_path, 1e10)


def poisoned_at(step: int):
    """Finite weights from whose squares nothing finite comes."""

    def callback(reached, model):
        if reached == step:
            with torch.no_grad():
                model.layers[2].ffn_norm.weight.fill_(3e38)

    return callback


def test_a_loss_lost_in_the_last_step_is_no_end(tmp_path):
    """One update left out would not end the run; after the last one nothing shows it is well."""
    with pytest.raises(
        TrainingDiverged, match=r"^step 6: total_loss is nan; .*layers\.2\.ffn_norm"
    ):
        pretraining(tmp_path, 1e-3, steps=6, callback=poisoned_at(5))
    assert latest_checkpoint(tmp_path / "base").step == 5
    records = read_records(tmp_path / "metrics.jsonl")
    assert [record["skipped_steps"] for record in records][-2:] == [0, 1]


def test_checkpoints_wait_until_the_loss_is_a_number_again(tmp_path):
    before = {}

    def callback(step, model):
        weight = model.layers[2].ffn_norm.weight.data
        if step == 4:
            before["weight"] = weight.clone()
            weight.fill_(3e38)
        elif step == 5:  # whose loss was lost, and which would have been saved
            weight.copy_(before["weight"])

    pretraining(tmp_path, 1e-3, steps=7, callback=callback)
    saved = {path.name for path in (tmp_path / "base" / "checkpoints").iterdir()}
    assert saved == {"step-7"}


@pytest.mark.parametrize("what", ["weight", "moment", "buffer"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nothing_that_is_not_finite_is_saved(what, value, tmp_path):
    model, moments = tiny.make_model(), {"exp_avg.embed.weight": torch.zeros(3)}
    broken = {
        "weight": model.layers[1].ffn.experts.down.data.view(-1),
        "moment": moments["exp_avg.embed.weight"],
        "buffer": model.layers[1].ffn.router.bias,
    }[what]
    save_checkpoint(tmp_path, 1, model, None, moments, {})
    broken[1] = value
    with pytest.raises(CheckpointError, match=r"step 2 is not saved: \S+ is not finite"):
        save_checkpoint(tmp_path, 2, model, None, moments, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1"]


def test_a_policy_without_numbers_ends_its_run(tmp_path):
    """The engine names the parameter, the loop the step; the checkpoint from before stays."""
    model = fakes.make_model()

    def poison(step, model):
        if step == 4:
            model.layers[1].ffn.experts.down.data[:, 0] = math.nan

    config = replace(fakes.ONE_UPDATE, steps=6, checkpoint_every=3, evaluate_every=1)
    expected = (
        r"^step 5: the logits of \d+ of \d+ rows are not finite: layers\.1\.ffn\.experts\.down"
    )
    with pytest.raises(TrainingDiverged, match=expected):
        train_grpo(
            config, model, fakes.TOKENIZER, fakes.SayYes(), Engine(model, fakes.TOKENIZER),
            tmp_path / "zero", JsonlTracker(tmp_path / "metrics.jsonl"), evaluate=poison,
        )  # fmt: skip
    assert latest_checkpoint(tmp_path / "zero").step == 3


def test_an_engine_that_met_no_numbers_can_be_used_again():
    model = fakes.make_model()
    engine, sampling = Engine(model), Sampling(4, n=3)
    before, good = engine.sample([[1, 2], [3]], sampling), model.norm.weight.detach().clone()
    with torch.no_grad():
        model.norm.weight[0] = math.inf
    with pytest.raises(NotFinite, match=r"^the logits of . of . rows are not finite: norm\.weight"):
        engine.sample([[1, 2], [3]], sampling)
    assert not engine.has_work and not engine.pool.total
    with torch.no_grad():
        model.norm.weight.copy_(good)
    assert engine.sample([[1, 2], [3]], sampling) == before


def test_what_is_lost_inside_is_found_by_module():
    model = tiny.make_model()
    tokens = torch.tensor([[1, 2, 3]])
    assert first_bad(model.named_parameters()) is None and source(model, tokens) is None
    with torch.no_grad():
        model.layers[2].ffn_norm.weight.fill_(3e38)
    assert (
        source(model, tokens) == "layers.2.ffn_norm is the first module whose output is not finite"
    )
    with torch.no_grad():
        model.layers[1].ffn.router.weight[3, 2] = math.nan
    assert source(model, tokens) == "layers.1.ffn.router.weight is not finite"


def test_the_command_says_one_sentence_and_fails(tmp_path, capsys):
    words = f"""pretrain --config quick --run {tmp_path / "run"} --pretrain.length 32
        --pretrain.schedule.learning-rate 1e32 --pretrain.schedule.total-tokens 1024"""
    assert main(words.split()) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("deepwright: step 1: the largest weight of embed.weight is ")
    assert not list(tmp_path.rglob("step-*"))
