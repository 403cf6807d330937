"""What is chosen where nothing is named: rates of a model's size, work that fits the machine, names that win and are followed, and always settings that run."""

import tomllib
from dataclasses import replace
from itertools import product

import pytest

from deepwright.config import ModelConfig, preset
from deepwright.recipe.choices import (
    RL_RATES,
    SFT_RATES,
    DataFacts,
    Machine,
    TaskFacts,
    rate_of,
    rl_choices,
    sft_choices,
)
from deepwright.recipe.resolve import fill, nested, to_table, written
from deepwright.recipe.settings import EvaluationSettings, RLSettings
from deepwright.recipe.sft import SFTSettings
from deepwright.rl.config import GRPOConfig

SMOLLM2 = ModelConfig(
    model_type="llama", vocab_size=49152, hidden_size=576, intermediate_size=1536,
    num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64,
    tie_word_embeddings=True, max_position_embeddings=8192,
)  # fmt: skip
LARGE = replace(SMOLLM2, hidden_size=4096, intermediate_size=11008, head_dim=128, num_attention_heads=32,
                num_key_value_heads=8, num_hidden_layers=32)  # fmt: skip
LAPTOP = preset("laptop")
# A worked example before each question, as of reasoning_gym:chain_sum; a file of word problems; Countdown.
SHOWN = TaskFacts(140, 180, 33, 11, True, False, 2000, 200)
ASKED = TaskFacts(90, 200, 60, 8, False, False, 700, 80)
THOUGHT = TaskFacts(12, 14, 9, 15, False, True, 4000, 300)
TWO_CORES = Machine(2, 24 << 30)
RL, SFT = RLSettings(start="m"), SFTSettings(model="m", data="d")


def chosen(choose, asked, named, *facts) -> dict:
    found = choose(asked, named, *facts)
    assert len({one.setting for one in found}) == len(found) and all(one.reason for one in found)
    return {one.setting: one.value for one in found}


def laid(asked, found: dict):
    """The choices as settings, which refuse what cannot be."""
    return fill(asked, nested(found), "the choices")


def test_a_language_model_gets_what_its_own_config_found(tmp_path):
    """configs/smollm2.toml, made by hand for the same model on two cores."""
    got = laid(RL, chosen(rl_choices, RL, (), SMOLLM2, SHOWN, TWO_CORES))
    assert got.rl.learning_rate == 2e-5 and got.rl.compute == "auto" and got.rl.pack_groups
    assert (got.rl.prompts, got.rl.samples, got.rl.micro_batch_tokens) == (12, 16, 4096)
    assert (got.rl.entropy_target, got.rl.hottest, got.rl.final_ratio) == (0.1, 1.3, 0.1)
    assert got.evaluation.also == (0.0,) and got.evaluation.problems * got.evaluation.samples <= 800


def test_a_small_model_gets_what_the_laptop_s_recipe_has():
    got = laid(RL, chosen(rl_choices, RL, (), LAPTOP, THOUGHT, TWO_CORES))
    usual = GRPOConfig()
    assert got.rl.learning_rate == pytest.approx(usual.learning_rate, rel=0.05)  # two digits
    same = ("prompts", "samples", "pack_groups", "entropy_target", "constant_until", "final_ratio")
    assert all(getattr(got.rl, name) == getattr(usual, name) for name in same)
    assert got.rl.steps == 100 and 192 < got.rl.max_tokens <= 256
    assert (got.evaluation.samples, got.evaluation.problems) == (EvaluationSettings().samples, 200)


def test_rates_meet_the_anchors_and_fall_between_them():
    for anchors in (RL_RATES, SFT_RATES):
        sizes = [10**power for power in (5, 6, 7, 8, 9, 10, 11, 12)]
        rates = [rate_of(_sized(size), anchors) for size in sizes]
        assert rates == sorted(rates, reverse=True)
        assert (rates[0], rates[-1]) == (anchors[0][1], anchors[-1][1])
        for size, rate in anchors:
            assert rate_of(_sized(size), anchors) == pytest.approx(rate, rel=0.06)  # two digits


class _sized:
    """As much of a model as a rate looks at."""

    def __init__(self, parameters: float) -> None:
        self.parameters = parameters


def test_room_to_think_follows_the_task():
    tokens = {
        name: chosen(rl_choices, RL, (), SMOLLM2, facts, TWO_CORES)["rl.max_tokens"]
        for name, facts in {"shown": SHOWN, "asked": ASKED, "thought": THOUGHT}.items()
    }
    # the reference, and 2, 4 or 8 times the question, in eights
    assert tokens == {"shown": 80, "asked": 248, "thought": 208}
    narrow = replace(SMOLLM2, max_position_embeddings=200)
    assert chosen(rl_choices, RL, (), narrow, SHOWN, TWO_CORES)["rl.max_tokens"] == 20


def named(asked: RLSettings, **settings) -> tuple[RLSettings, set[str]]:
    return replace(asked, rl=replace(asked.rl, **settings)), {f"rl.{name}" for name in settings}


def test_what_is_named_wins_and_the_rest_follows():
    asked, names = named(RL, samples=30, temperature=2.0, constant_until=1.0, final_ratio=1.0)
    names.discard("rl.final_ratio")  # the default beside it would be refused
    found = chosen(rl_choices, asked, names, SMOLLM2, SHOWN, TWO_CORES)
    assert not names & found.keys()
    # more completions of a problem: fewer problems; a rate that falls no more
    assert found["rl.prompts"] < 12 and found["rl.hottest"] == 2.6 and found["rl.final_ratio"] == 1
    replayed, names = named(RL, mini_batches=5, clip=0.2, replay_routing=True)
    found = chosen(rl_choices, replayed, names, SMOLLM2, SHOWN, TWO_CORES)
    assert not found["rl.pack_groups"] and found["rl.steps"] % 5 == 0
    laid(replayed, found)


def test_a_smaller_machine_is_asked_less_and_never_too_little():
    one, many = (
        chosen(rl_choices, RL, (), SMOLLM2, SHOWN, Machine(cores, 24 << 30)) for cores in (1, 16)
    )
    assert one["rl.prompts"] < many["rl.prompts"] <= 32
    assert 40 <= one["evaluation.problems"] < many["evaluation.problems"] <= 200
    assert one["rl.steps"] == 40 and many["rl.steps"] > 40
    poor = chosen(rl_choices, RL, (), LARGE, SHOWN, Machine(2, 64 << 30))
    assert (poor["rl.optimizer.moments"], poor["rl.micro_batch_tokens"]) == ("bfloat16", 512)
    assert poor["rl.prompts"] == 8 and poor["rl.learning_rate"] < 2e-6


@pytest.mark.parametrize("settings", [
    {}, {"samples": 2}, {"prompts": 1}, {"steps": 1}, {"mini_batches": 7, "clip": 0.2}, {"temperature": 0.1},
    {"entropy_target": None}, {"constant_until": 0.0}, {"zero_variance": "keep", "beta": 0.1}, {"resample": 3},
])  # fmt: skip
def test_every_answer_is_settings_that_run(settings):
    models, tasks = (
        (LAPTOP, SMOLLM2, LARGE),
        (SHOWN, ASKED, THOUGHT, TaskFacts(5, 9, 1, 1, True, True, 1, 1)),
    )
    machines = (Machine(1, 1 << 30), TWO_CORES, Machine(64, 1 << 40, accelerator=True))
    asked, names = RLSettings(start="m"), {f"rl.{name}" for name in settings}
    whole = {"steps": 14, "evaluate_every": 0, "checkpoint_every": 14} if "clip" in settings else {}
    asked = replace(asked, rl=replace(asked.rl, **whole, **settings))
    if "clip" in settings:  # 25 steps between checkpoints are no multiple of seven
        names.add("rl.checkpoint_every")
    for model, task, machine in product(models, tasks, machines):
        found = chosen(rl_choices, asked, names, model, task, machine)
        got = laid(asked, found)
        assert got.rl.prompts <= max(task.train, asked.rl.prompts * ("rl.prompts" in names))
        assert got.evaluation.problems <= task.held_out and got.rl.max_tokens >= 1
        assert found == chosen(rl_choices, asked, names, model, task, machine)  # nothing is drawn


def test_fine_tuning_goes_by_documents_and_size():
    few, some, many = (
        laid(SFT, chosen(sft_choices, SFT, (), SMOLLM2, DataFacts(n, 300), TWO_CORES)).sft
        for n in (3, 400, 50_000)
    )
    assert (few.batch_rows, some.batch_rows, many.batch_rows) == (3, 16, 128)
    assert (few.epochs, some.epochs, many.epochs) == (3, 3, 2)
    assert few.learning_rate < some.learning_rate < many.learning_rate < 3e-4
    assert (some.micro_rows, some.compute, some.warmup_steps) == (13, "auto", 3)
    small = laid(SFT, chosen(sft_choices, SFT, (), LAPTOP, DataFacts(4000, 300), TWO_CORES)).sft
    assert small.learning_rate == pytest.approx(1e-3, rel=0.02) and small.micro_rows == 6
    rows = replace(SFT, sft=replace(SFT.sft, batch_rows=64))
    found = chosen(sft_choices, rows, {"sft.batch_rows"}, SMOLLM2, DataFacts(400, 300), TWO_CORES)
    assert "sft.batch_rows" not in found and found["sft.learning_rate"] == 2 * some.learning_rate
    assert chosen(sft_choices, SFT, (), LARGE, DataFacts(9, 9999), TWO_CORES)["sft.micro_rows"] == 1


def test_a_choice_is_written_on_one_line_that_toml_reads():
    found = rl_choices(RL, (), SMOLLM2, SHOWN, TWO_CORES)
    for one in [*found, *sft_choices(SFT, (), SMOLLM2, DataFacts(9, 99), TWO_CORES)]:
        line = f"it = {written(one.value)}"
        assert "\n" not in line and tomllib.loads(line)["it"] == to_table(one.value)
