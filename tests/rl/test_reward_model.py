"""Reward models: scores against one text at a time, losses by hand and by plain autograd, learning, the guard against chance, exact resume, folders.

Run as a script it trains in the folder given, in its own process: `python -m tests.rl.test_reward_model FOLDER SECONDS_BEFORE_SIGKILL`.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from deepwright import weights
from deepwright.files import read_records
from deepwright.metrics import GLOSSARY, JsonlTracker
from deepwright.model import Transformer
from deepwright.rl.reward_model import (
    HEAD,
    Labelled,
    Pair,
    RewardModel,
    RewardModelConfig,
    accumulate_gradient,
    load_reward_model,
    pairwise_loss,
    pointwise_loss,
    ranked_right,
    save_reward_model,
    train_reward_model,
)
from deepwright.verify.cases import ALL_CASES, random_model
from tests.rl.fakes import MODEL, TOKENIZER, make_model

EOS = TOKENIZER.eos_id
GOOD, BAD = (TOKENIZER.encode(word)[0] for word in ("yes", "no"))
CONFIG = RewardModelConfig(
    epochs=2, batch=8, learning_rate=0.02, micro_batch_tokens=96, checkpoint_every=3
)
ARCHITECTURES = (
    "v3 two MTP modules",
    "v3 tied embedding",
    "v2 yarn",
    "llama, llama3 stretching",
    "qwen3, biases",
)


def with_head(policy: Transformer, seed: int = 5) -> RewardModel:
    return RewardModel(
        policy,
        torch.randn(policy.config.hidden_size, generator=torch.Generator().manual_seed(seed)),
    )


def ragged(count: int = 7, vocabulary: int = 10, seed: int = 3) -> list[tuple[int, ...]]:
    draw = random.Random(seed)
    return [
        tuple(draw.randrange(vocabulary) for _ in range(length))
        for length in draw.sample(range(2, 2 + 3 * count), count)
    ]


def one_by_one(model: RewardModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The score written out: no padding, no batch, the state at the end of the text times the head."""
    return torch.stack(
        [
            (model.trunk.hidden(torch.tensor([ids]))[0, len(ids) - 1] * model.head_D).sum()
            for ids in rows
        ]
    )


def pairs(count: int = 44, seed: int = 1, truth: bool = True) -> list[Pair]:
    """Right where the completion says yes; without `truth` a coin decides."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        prompt = tuple(draw.randrange(3, 10) for _ in range(draw.randrange(1, 6)))
        sides = [
            (*(draw.randrange(3, 10) for _ in range(draw.randrange(4))), word, EOS)
            for word in (GOOD, BAD)
        ]
        made.append(Pair(prompt, *(sides if truth or draw.random() < 0.5 else sides[::-1])))
    return made


def labelled(count: int = 44, seed: int = 1) -> list[Labelled]:
    return [Labelled(*pair.texts()[turn % 2]) for turn, pair in enumerate(pairs(count, seed))]


def run(
    folder: Path,
    config: RewardModelConfig = CONFIG,
    examples=None,
    held_out=None,
    *,
    tracker=None,
    **options,
):
    """-> (model, accuracy)."""
    model = RewardModel(make_model())
    tracker = tracker or JsonlTracker(folder / "metrics.jsonl")
    held_out = pairs(30, seed=2) if held_out is None else held_out
    examples = pairs() if examples is None else examples
    return model, train_reward_model(
        config, model, examples, held_out, folder / "reward", tracker, TOKENIZER, **options
    )


def curve(folder: Path) -> list[dict]:
    return [
        {name: value for name, value in record.items() if name != "time"}
        for record in read_records(folder / "metrics.jsonl")
    ]


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


# --- scores


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_a_score_is_the_head_times_the_state_of_the_last_token(case):
    policy = random_model(ALL_CASES[case])
    model, rows = with_head(policy), ragged(vocabulary=61)
    found = model.scores(rows, 40)
    # fp32 products of other sizes may sum in another order: some 60 operations of 6e-8 at scores of about sqrt(32) times the largest, 5
    assert (found - one_by_one(model, rows)).abs().max() <= 60 * 6e-8 * 5 * math.sqrt(32)
    assert found.std() > 0.5 and not found.requires_grad


@pytest.mark.invariant
def test_neither_company_nor_order_nor_padding_moves_a_score():
    model, rows = with_head(make_model()), [*ragged(), (0, EOS), (3, EOS, EOS, EOS)]
    alone = torch.cat([model.scores([ids]) for ids in rows])
    for budget in (1, 9, 40, 10_000):
        assert (model.scores(rows, budget) - alone).abs().max() <= 2e-5  # as above, width 16
    assert (model.scores(rows[::-1], 40).flip(0) - alone).abs().max() <= 2e-5
    # 63 tokens: 61 of padding
    assert (model.scores([*rows, tuple(range(3, 10)) * 9], 10_000)[:-1] - alone).abs().max() <= 2e-5
    assert len(model.scores([])) == 0


def test_every_token_counts_and_what_was_never_said_does_not():
    model = with_head(make_model())
    base = (3, 4, 5, 6, 7)
    changed = [(*base[:place], 9, *base[place + 1 :]) for place in range(len(base))]
    apart = model.scores(changed) - model.scores([base])
    assert (apart.abs() > 1e-3).all()


def test_a_fresh_head_scores_zero_and_the_policy_is_copied():
    policy = make_model()
    model = RewardModel(policy.requires_grad_(False))
    assert model.scores(ragged()).tolist() == [0.0] * 7
    assert all(p.requires_grad for p in model.parameters()) and not any(
        p.requires_grad for p in policy.parameters()
    )
    with torch.no_grad():
        model.trunk.embed.weight.zero_()
    assert policy.embed.weight.abs().max() > 0


def test_a_text_without_a_completion_is_refused():
    with pytest.raises(ValueError, match="a text has 1 tokens, expected at least 2"):
        RewardModel(make_model()).scores([(3, 4), (3,)])


# --- losses


def test_pairwise_loss_by_hand():
    chosen, rejected = (
        torch.tensor([1.0, -2.0, 0.5, 300.0, -300.0], requires_grad=True),
        torch.tensor([0.0, 1.0, 0.5, 0.0, 0.0]),
    )
    loss = pairwise_loss(chosen, rejected)
    # log(1 + e^-1), log(1 + e^3), log 2; at a distance of 300 nothing overflows
    assert loss.tolist() == pytest.approx([0.3132617, 3.0485874, 0.6931472, 0.0, 300.0], abs=1e-6)
    loss.sum().backward()
    assert chosen.grad.tolist() == pytest.approx(
        [-0.2689414, -0.9525741, -0.5, 0.0, -1.0], abs=1e-6
    )  # sigmoid(r_c - r_r) - 1


def test_pointwise_loss_by_hand():
    scores, good = (
        torch.tensor([2.0, 2.0, 0.0, -300.0], requires_grad=True),
        torch.tensor([True, False, True, True]),
    )
    loss = pointwise_loss(scores, good)
    assert loss.tolist() == pytest.approx([0.1269280, 2.1269280, 0.6931472, 300.0], abs=1e-6)
    loss.sum().backward()
    # sigmoid(r) - y
    assert scores.grad.tolist() == pytest.approx([-0.1192029, 0.8807971, -0.5, -1.0], abs=1e-6)


def test_ranked_right_by_hand():
    scores, good = (
        torch.tensor([2.0, 1.0, 5.0, 5.0, 0.0, 3.0, 9.0]),
        torch.tensor([True, False, True, False, True, False, True]),
    )
    # 2 > 1, 5 = 5, 0 < 3; the last good one has no partner
    assert ranked_right(scores, good) == pytest.approx((1 + 0.5 + 0) / 3)
    assert math.isnan(ranked_right(scores, torch.ones(7, dtype=torch.bool)))


def plain_loss(model: RewardModel, examples) -> torch.Tensor:
    """The mean over examples, each text by itself, with the sigmoids written out."""
    parts = []
    for example in examples:
        scores = one_by_one(model, [ids for ids, _ in example.texts()])
        if isinstance(example, Pair):
            parts.append(-torch.log(1 / (1 + torch.exp(scores[1] - scores[0]))))
        else:
            chance = 1 / (1 + torch.exp(-scores[0]))
            parts.append(-torch.log(chance if example.good else 1 - chance))
    return torch.stack(parts).mean()


@pytest.mark.invariant
@pytest.mark.parametrize("kind", [pairs, labelled])
@pytest.mark.parametrize("budget", [1, 40, 10_000])  # one example at a time, some, all
def test_gradient_is_that_of_plain_autograd_for_any_micro_batches(kind, budget):
    examples = kind(9)
    model, plain = with_head(make_model()), with_head(make_model())
    values = accumulate_gradient(model, examples, budget)
    loss = plain_loss(plain, examples)
    loss.backward()
    assert values["reward_model_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            # The same gradients of 18 texts summed in another order, some 60 products deep: 60 * 6e-8 of the largest, with room of 5
            assert (p.grad - q.grad).abs().max() <= 2e-5 * max(float(q.grad.abs().max()), 0.1), name
    assert model.head_D.grad.abs().max() > 0 and model.trunk.embed.weight.grad.abs().max() > 0


def test_a_micro_batch_holds_whole_pairs_within_the_budget(monkeypatch):
    model, seen, forward = RewardModel(make_model()), [], RewardModel.forward
    monkeypatch.setattr(
        RewardModel, "forward", lambda self, rows: seen.append(rows) or forward(self, rows)
    )
    examples = pairs(20)
    accumulate_gradient(model, examples, 40)
    sizes = [len(rows) * max(map(len, rows)) for rows in seen]
    assert max(sizes) <= 40 and len(seen) < 20 and max(len(rows) for rows in seen) > 2
    found = [
        (chosen, rejected)
        for rows in seen
        for chosen, rejected in zip(rows[::2], rows[1::2], strict=True)
    ]
    assert sorted(found) == sorted(tuple(ids for ids, _ in pair.texts()) for pair in examples)


# --- training


@pytest.mark.parametrize("kind", [pairs, labelled])
def test_it_learns_what_is_preferred(tmp_path, kind):
    config = replace(CONFIG, epochs=4, batch=16, learning_rate=0.03, checkpoint_every=100)
    model, accuracy = run(tmp_path, config, kind(), kind(60, seed=2))
    # measured on three seeds: 0.97 to 1; chance is 0.5 with a standard error of 0.06 (pairs) and
    # 0.09 (labels)
    assert accuracy >= 0.9
    assert (
        ranked_right(model.scores([(3, GOOD, EOS), (3, BAD, EOS)]), torch.tensor([True, False]))
        == 1.0
    )
    records = read_records(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in records] == list(range(1, 12)) and {r["stage"] for r in records} == {
        "reward_model"
    }  # 176 by 16
    # a zero head: no text is better than another
    assert records[0]["reward_model_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert records[-1]["reward_model_loss"] < 0.5 and records[0]["preference_accuracy"] == 0.5
    assert {
        "grad_norm",
        "learning_rate",
        "skipped_steps",
        "reward_model_loss",
        "preference_accuracy",
    } <= records[0].keys() & GLOSSARY.keys()


def test_labels_by_a_coin_end_in_one_sentence(tmp_path):
    coin = pairs(60, seed=2, truth=False)
    with pytest.raises(
        ValueError,
        match=r"the reward model ranks at random: \d+.\d% of 60 held-out pairs, expected more than 62.9%",
    ):
        run(tmp_path, CONFIG, pairs(truth=False), coin)
    # nothing left to train: measured again
    model, accuracy = run(tmp_path, CONFIG, pairs(truth=False), coin, require_ranking=False)
    assert accuracy == ranked_right(
        model.scores([ids for pair in coin for ids, _ in pair.texts()]),
        torch.tensor([True, False] * 60),
    )


def test_what_takes_no_part_stays_as_the_policy_has_it(tmp_path):
    policy = make_model(config=replace(MODEL, num_nextn_predict_layers=1))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    model = RewardModel(policy)
    train_reward_model(
        CONFIG,
        model,
        pairs(),
        pairs(30, seed=2),
        tmp_path,
        JsonlTracker(tmp_path / "m.jsonl"),
        TOKENIZER,
        require_ranking=False,
    )
    after = model.trunk.state_dict()
    for name in before:
        still = name.startswith(("mtp.", "head.")) or name.endswith("router.bias")
        # the policy itself is not touched
        assert torch.equal(before[name], policy.state_dict()[name])
        assert torch.equal(before[name], after[name]) == still, name


def test_each_example_is_read_once_in_an_epoch_in_an_order_of_its_own(tmp_path, monkeypatch):
    read = []

    def spy(model, examples, budget):
        read.append(list(examples))
        return accumulate_gradient(model, examples, budget)

    monkeypatch.setattr("deepwright.rl.reward_model.accumulate_gradient", spy)
    examples = pairs(11)
    for seed in (0, 1):
        run(
            tmp_path / str(seed),
            replace(CONFIG, batch=4),
            examples,
            seed=seed,
            require_ranking=False,
        )
    assert [len(batch) for batch in read] == [4, 4, 4, 4, 4, 2] * 2  # 22, in either run
    flat = [example for batch in read for example in batch]
    epochs = [flat[start : start + 11] for start in (0, 11, 22, 33)]
    assert all(sorted(epoch, key=examples.index) == examples for epoch in epochs)
    assert len({tuple(map(examples.index, epoch)) for epoch in epochs}) == 4


class Falls(JsonlTracker):
    """Fails when it is asked to log the step given: a kill between the update and its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(path)
        self.last = step

    def log(self, stage, step, values):
        if step == self.last:
            raise RuntimeError("out of power")
        super().log(stage, step, values)


@pytest.mark.invariant
@pytest.mark.parametrize("kind", [pairs, labelled])
def test_stopped_anywhere_and_started_again_it_ends_bit_equal(tmp_path, kind):
    whole, accuracy = run(tmp_path / "whole", CONFIG, kind(), kind(40, seed=2), seed=4)
    for step in (1, 3, 4, 7, 11):
        with pytest.raises(RuntimeError, match="out of power"):
            run(
                tmp_path / "broken",
                CONFIG,
                kind(),
                kind(40, seed=2),
                seed=4,
                tracker=Falls(tmp_path / "broken/metrics.jsonl", step),
            )
    again, measured = run(
        tmp_path / "broken", replace(CONFIG, checkpoint_every=1), kind(), kind(40, seed=2), seed=4
    )
    assert same(whole, again) and accuracy == measured
    assert curve(tmp_path / "whole") == curve(tmp_path / "broken")


def test_killed_at_a_random_moment_and_resumed_ends_bit_equal(tmp_path):
    moments, (whole, accuracy) = random.Random(3), run(tmp_path / "whole")
    for attempt in range(9):
        broken = tmp_path / f"broken-{attempt}"
        command = [
            sys.executable,
            "-m",
            "tests.rl.test_reward_model",
            str(broken),
            str(moments.uniform(0.01, 0.6)),
        ]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
        again, measured = run(broken)  # the rest, or nothing but loading the last checkpoint
        assert (
            same(whole, again)
            and accuracy == measured
            and curve(tmp_path / "whole") == curve(broken)
        )
        if done.returncode:
            return
    pytest.fail("nine runs finished before they could be killed")


class Interrupts(JsonlTracker):
    def log(self, stage, step, values):
        super().log(stage, step, values)
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)


def test_interrupt_finishes_the_step_saves_and_can_be_continued(tmp_path, capfd):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "stopped", tracker=Interrupts(tmp_path / "stopped/metrics.jsonl"))
    assert (
        stopped.value.code == 130
        and "reward_model was interrupted after step 5 and is saved" in capfd.readouterr().err
    )
    assert (tmp_path / "stopped/reward/checkpoints/step-5").is_dir()
    assert same(run(tmp_path / "stopped")[0], run(tmp_path / "whole")[0])


def test_resume_with_anything_else_is_refused_by_name(tmp_path):
    run(tmp_path, require_ranking=False)
    for change, words in (
        (
            {"config": replace(CONFIG, learning_rate=0.1)},
            "was trained with learning_rate 0.02, now it is 0.1",
        ),
        ({"seed": 7}, "was trained with seed 0, now it is 7"),
        ({"examples": pairs(44, seed=9)}, "was trained with examples "),
    ):
        with pytest.raises(ValueError, match=words):
            run(tmp_path, **change)
    # rounding at most: allowed
    run(tmp_path, replace(CONFIG, micro_batch_tokens=10, checkpoint_every=9), require_ranking=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"examples": []}, "there are 0 kinds of examples"),
        ({"examples": [*pairs(3), *labelled(3)]}, "there are 2 kinds of examples"),
        ({"held_out": pairs(4)}, "4 held-out pairs, expected 1 kind and at least 5 pairs"),
        ({"held_out": [one for one in labelled(20) if one.good]}, "0 held-out pairs"),
        ({"examples": [Pair((3,), (4,), ())]}, "a text has 1 tokens"),
    ],
)
def test_examples_that_cannot_be_meant_are_refused(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        run(tmp_path, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch": 0},
        {"learning_rate": math.nan},
        {"learning_rate": -1e-6},
        {"checkpoint_every": -1},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change):
    with pytest.raises(
        ValueError,
        match=f"settings of the reward model are .*{next(iter(change))}.*, expected positive numbers",
    ):
        RewardModelConfig(**change)


def test_the_published_settings_are_the_defaults():
    assert (
        RewardModelConfig().epochs,
        RewardModelConfig().batch,
        RewardModelConfig().learning_rate,
    ) == (1, 256, 6e-6)


@pytest.mark.parametrize(
    ("right", "n", "passes"),
    [(5, 5, True), (18, 30, False), (21, 30, True), (59, 100, False), (61, 100, True)],
)
def test_chance_is_two_standard_errors_of_a_coin(tmp_path, monkeypatch, right, n, passes):
    """sqrt(1/4 / n): 5 of 5 are beyond (94.7%), 18 of 30 are not (68.3%), 60 of 100 are the border."""
    monkeypatch.setattr("deepwright.rl.reward_model.ranked_right", lambda scores, good: right / n)
    if passes:
        assert run(tmp_path, replace(CONFIG, epochs=1), pairs(8), pairs(n, seed=2))[1] == right / n
    else:
        with pytest.raises(
            ValueError, match=f"ranks at random: {right / n:.1%} of {n} held-out pairs"
        ):
            run(tmp_path, replace(CONFIG, epochs=1), pairs(8), pairs(n, seed=2))


# --- folders


def test_a_saved_reward_model_opens_again_and_its_trunk_as_any_model(tmp_path):
    model, rows = with_head(make_model(3)), ragged()
    for _ in range(2):  # the second replaces the first
        save_reward_model(model, TOKENIZER, tmp_path / "saved")
    again, tokenizer = load_reward_model(tmp_path / "saved")
    assert (
        same(model, again)
        and torch.equal(model.scores(rows), again.scores(rows))
        and tokenizer.vocab_size == TOKENIZER.vocab_size
    )
    assert all(p.requires_grad for p in again.parameters())
    trunk, _ = weights.load(tmp_path / "saved")
    assert same(trunk, model.trunk)


def test_a_folder_without_a_head_is_named(tmp_path):
    weights.save(make_model(), TOKENIZER, tmp_path / "policy")
    with pytest.raises(
        ValueError, match=r"policy has no reward_head.safetensors, so it holds no reward model"
    ):
        load_reward_model(tmp_path / "policy")
    with pytest.raises(ValueError, match="holds no reward model"):
        load_reward_model(tmp_path / "nowhere")


def test_the_head_in_the_folder_is_a_plain_vector(tmp_path):
    save_reward_model(with_head(make_model()), TOKENIZER, tmp_path / "saved")
    [(name, head)] = safetensors.torch.load_file(tmp_path / f"saved/{HEAD}.safetensors").items()
    assert name == HEAD and head.shape == (16,)


if __name__ == "__main__":
    torch.set_num_threads(1)
    killer = threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    killer.daemon = True
    killer.start()  # after the imports: all kills fall into the run itself
    run(Path(sys.argv[1]))
