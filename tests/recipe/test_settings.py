"""The settings of the three training commands: the configs that ship resolve, and nothing is accepted that would change nothing."""

import dataclasses
import shlex
import tomllib
from pathlib import Path

import pytest

from deepwright.cli import main
from deepwright.config import preset
from deepwright.data import CountdownCorpus
from deepwright.recipe.r1 import check
from deepwright.recipe.resolve import fill, split_words, to_toml
from deepwright.recipe.settings import (
    COMMANDS,
    STAGES,
    CorpusSettings,
    R1Settings,
    RLSettings,
    resolve_for,
)
from deepwright.tasks import Calc3

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


def resolved(command: str, line: str = ""):
    return resolve_for(command, split_words(line.split()))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_serves_every_command(command, config):
    settings = resolved(command, f"--config {config}")
    assert fill(COMMANDS[command](), tomllib.loads(to_toml(settings)), "x") == settings


ONLY_PRETRAIN = ("needle", "text")  # what of these files is for another stage has its default


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_leaves_room_for_prompts_thoughts_and_answers(config):
    s, prompt = resolved("r1", f"--config {config}"), 64
    large, small = (
        1 << 20 if s.start else model.max_position_embeddings
        for model in (s.model, s.distill.model)
    )
    wanted = [
        (large, n + prompt)
        for n in (
            *s.evaluation.budgets,
            s.rl.max_tokens,
            s.reasoning_rl.rl.max_tokens,
            s.align.rl.max_tokens,
        )
    ]
    if "distill" in s.stages:
        wanted += [(small, s.distill.rl.max_tokens + prompt)] + (
            [] if s.start else [(small, s.distill.pretrain.length)]
        )
    if config.stem in ONLY_PRETRAIN:
        wanted = []
    assert [(context, tokens) for context, tokens in wanted if tokens > context] == [] and (
        s.start or s.pretrain.length <= large
    )


def test_the_workstation_s_recipe_resolves_without_a_run(tmp_path, monkeypatch, capsys):
    settings = resolved("r1", "--config workstation")
    assert settings.stages == STAGES and 100e6 < settings.model.parameters < 200e6
    assert settings.distill.model.parameters < settings.model.active_parameters
    monkeypatch.chdir(tmp_path)
    assert main(["r1", "--config", "workstation", "--dry-run"]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert (
        shown["model"]["hidden_size"] == 768
        and shown["evaluation"]["votes"] == 64
        and not list(tmp_path.iterdir())
    )


@pytest.mark.parametrize("config", ["laptop", "workstation"])
def test_the_alarm_on_preferences_has_enough_evaluations_to_ring(config):
    for rl in (
        resolved("r1", f"--config {config}").align.rl,
        resolved("r1", f"--config {config}").reasoning_rl.rl,
    ):
        assert (rl.steps - 1) // rl.evaluate_every >= rl.alarms.evaluations  # none at the last step


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_no_config_takes_its_own_task_for_one_that_nothing_is_trained_on(config):
    task, variants = (s := resolved("r1", f"--config {config}")).task, s.evaluation.transfer
    assert task.judge() not in task.variants(variants).values()


def test_a_variant_that_is_the_run_s_own_task_is_refused():
    with pytest.raises(
        ValueError, match="evaluation.transfer has 'count=3', which makes the run's own task"
    ):
        check(resolved("r1", "--evaluation.transfer count=4 count=3"))


@pytest.mark.parametrize("section", ["", "distill."])
def test_rows_beyond_the_context_are_refused_before_anything_is_made(section):
    check(resolved("r1", f"--{section}pretrain.length 512"))
    with pytest.raises(ValueError) as caught:
        check(resolved("r1", f"--{section}pretrain.length 513"))
    least = 2 if section else 3  # the large model also predicts the token after the next
    said = f"{section}pretrain.length is 513, expected {least} to 512, the model's context"
    assert str(caught.value).startswith(said)


def test_usual_config_is_the_laptop():
    assert resolved("r1") == resolved("r1", "--config laptop")
    assert resolved("rl") == resolved("rl", "--config laptop-zero")
    assert resolved("pretrain") == resolved("pretrain", "--config laptop-zero")
    assert (
        resolved("r1", "--quick") == resolved("r1", "--config quick")
        and resolved("r1", "--quick").quick
    )


def test_another_task_does_not_inherit_the_options_and_variants_of_the_file_s_own():
    got = resolved("r1", "--task calc3 --start somewhere")
    assert got.task.options == () == got.evaluation.transfer and resolved(
        "r1"
    ).evaluation.transfer == ("count=4",)
    assert resolved(
        "r1", "--task calc3 --start somewhere --evaluation.transfer terms=4"
    ).evaluation.transfer == ("terms=4",)


def test_options_win_over_files_and_files_over_the_preset(tmp_path):
    (tmp_path / "my.toml").write_text("[model]\nhidden_size = 512\n")
    got = resolved(
        "r1", f"--preset workstation --config {tmp_path / 'my.toml'} --model.num-hidden-layers 2"
    ).model
    assert got == dataclasses.replace(preset("workstation"), hidden_size=512, num_hidden_layers=2)


@pytest.mark.parametrize(
    ("command", "line", "said"),
    [
        ("r1", "--preset v4", "preset is 'v4', expected one of laptop"),
        ("rl", "--preset laptop", "rl takes the one that it is given"),
        ("r1", "--rl.seed 3", "rl.seed is 3: set seed"),
        ("r1", "--threads -1", "threads is -1, expected 0 (torch decides) or a number up to "),
        ("r1", "--resum", "unknown option --resum; did you mean --resume?"),
        ("pretrain", "--rl.steps 3", "unknown option --rl.steps"),
        ("rl", "--evaluation.problems 0", "problems is 0, expected at least 1"),
        ("r1", "--rl.samples 1", "rl: samples is 1"),
        ("r1", "--rl.seed 3", "rl.seed is 3: set seed"),
        ("r1", "--align.rl.seed 3", "align.rl.seed is 3: set seed"),
    ],
)
def test_what_a_command_refuses(command, line, said):
    with pytest.raises(ValueError) as caught:
        resolved(command, line)
    assert said in str(caught.value)


def test_any_task_by_name():
    choice = resolved("rl", "--task calc3 --task.options terms=4 layout=tags --task.seed 3").task
    assert choice.make() == Calc3(seed=3, terms=4, layout="tags", reading="strict")
    assert resolved("rl", "--config smollm2").task.make() == Calc3(reading="strict")
    with pytest.raises(ValueError, match="task option is 'terms', expected NAME=VALUE"):
        resolved("rl", "--task calc3 --task.options terms").task.make()


def test_run_is_a_name_or_a_path():
    assert R1Settings(run="a").folder == Path("runs/a")
    assert R1Settings(run="/tmp/a").folder == Path("/tmp/a")
    with pytest.raises(ValueError, match="run is ' ', expected the name of a folder"):
        RLSettings(run=" ")


def test_corpus_settings_are_those_of_the_corpus():
    kept = {
        f.name: f.default
        for f in dataclasses.fields(CountdownCorpus)
        if f.name not in ("task", "seed")
    }
    assert {
        f.name: f.default for f in dataclasses.fields(CorpusSettings) if f.name != "requests"
    } == kept


# ---- settings that no run survives: refused before a folder is made

TRAINING = "--stages base zero"


def refused(line: str, command: str = "r1") -> str:
    """What is said of a command line, by its settings or by the checks before the run folder."""
    try:
        check(resolve_for(command, split_words(shlex.split(line))))
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{line} was taken")


def check_a_row_of_one_token() -> None:
    said = "pretrain.length is 1, expected 3 to 512, the model's context"
    assert refused(f"{TRAINING} --pretrain.length 1") == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--pretrain.length 2", "expected 3 to 512"),
        ("--pretrain.length 513", "expected 3 to 512"),
        ("--distill.pretrain.length 1", "distill.pretrain.length is 1, expected 2 to 512"),
        ("--distill.pretrain.length 513", "expected 2 to 512, the model's context"),
        ("--rl.max-tokens 512", "rl.max_tokens is 512, expected less than the model's context"),
        ("--align.rl.max-tokens 512", "align.rl.max_tokens is 512"),
        ("--distill.rl.max-tokens 600", "distill.rl.max_tokens is 600"),
        ("--threads 100000", "threads is 100000, expected 0 (torch decides) or a number up to"),
        ("--threads -1", "threads is -1"),
        ("--rl.learning-rate nan", "learning_rate is nan"),
        ("--rl.learning-rate inf", "learning_rate is inf"),
        ("--rl.learning-rate -1e-3", "learning_rate is -0.001"),
        ("--pretrain.schedule.learning-rate nan", "learning_rate is nan"),
        ("--finetune.learning-rate inf", "learning_rate is inf"),
        ("--align.reward-model.learning-rate nan", "learning_rate"),
        ("--pretrain.schedule.batch-rows 1000000000", "batch_rows is 1000000000, expected at most"),
        ("--pretrain.schedule.batch-rows 999999", "of 256 tokens: 5,000,000 are read in all"),
        ("--rl.prompts 1000000000", "prompts * samples is 12000000000, expected at most 1,000,000"),
        ("--rl.samples 100000", "prompts * samples"),
        ("--cold-start.harvest.problems 1000000000", "harvest.problems is 1000000000"),
        ("--align.pairs 1000000000", "align.pairs is 1000000000, expected at most 1,000,000"),
        ("--align.pairs 0", "pairs is 0"),
        ("--align.reward-model.batch 1000000000", "batch is 1000000000"),
        ("--evaluation.problems 1000000000", "evaluation.problems is 1000000000"),
        ("--evaluation.samples 1000000000", "evaluation.samples is 1000000000"),
        ("--evaluation.votes 1000000000", "evaluation.votes is 1000000000"),
        ("--evaluation.validation-rows 1000000000", "evaluation.validation_rows is 1000000000"),
        ("--evaluation.temperature -1", "temperature is -1.0"),
        ("--evaluation.temperature nan", "temperature is nan, expected 0 (greedy)"),
        ("--evaluation.also -1", "temperature is -1.0"),
        ("--evaluation.top-p 0", "top_p is 0.0"),
        ("--rl.steps 0", "steps is 0, expected at least 1"),
        ("--rl.steps 99999999999999999999", "rl.steps is a whole number of 67 bits"),
        ("--seed 18446744073709551617", "seed is a whole number of 65 bits"),
        ("--seed 9223372036854775808", "seed is a whole number of 64 bits"),
        ("--seed -1", "seed is -1"),
        ("--task.seed -1", "seed is -1"),
        ("--task.seed 18446744073709551617", "seed is a whole number of 65 bits"),
        ("--stages", "stages is [], expected some of"),
        ("--task.options held_out=100000", "held_out is 100000, expected fewer than the"),
        ("--task.options held_out=-1", "held_out is -1"),
        ("--evaluation.transfer held_out=100000", "held_out is 100000, expected fewer than the"),
        ("--corpus.requests 2", "shares of a mixed corpus"),
        ("--corpus.requests nan", "corpus.requests is nan"),
        ("--corpus.facts 5", "facts is 5.0, expected a share"),
        ("--reasoning-rl.language-reward -1", "language_reward is -1.0"),
        ("--align.language-reward inf", "language_reward is inf"),
        ("--model.hidden-size 1000000000", "parameters, whose training takes"),
        ("--sampler.url ftp://x --sampler.reload true", "sampler.url is 'ftp://x', expected http"),
        ("--sampler.url http://x --sampler.reload '\"'", "cannot be read: No closing quotation"),
    ],
)  # fmt: skip
def test_settings_that_no_run_survives(line, said):
    found = refused(line)
    assert said in found and len(found) < 800


def test_the_bounds_themselves_are_no_fault():
    line = (
        f"{TRAINING} --pretrain.length 3 --rl.max-tokens 511 --seed {2**63 - 1} "
        f"--task.seed {2**63 - 1} --rl.learning-rate 1e30 --threads 4 "
        "--pretrain.schedule.learning-rate 1e-300"
    )
    check(resolved("r1", line))
    check_a_row_of_one_token()


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "a\0b", "a\nb", "\x1b[2J", "\udcff", "n" * 201, "n" * 10_000,
     "größe" * 40, "x/" + "n" * 300],
    ids=lambda name: repr(name[:8]),
)  # fmt: skip
def test_names_that_no_folder_can_have(name):
    with pytest.raises(ValueError, match="^run is ") as caught:
        RLSettings(run=name)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["größe", "数学", "a b", "a.b", "..a", "-x", "a/b/../c", "n" * 200]
)
def test_names_that_it_can_have(name, tmp_path):
    (tmp_path / RLSettings(run=name).folder).mkdir(parents=True)


def test_rl_without_a_model_is_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no folder runs/new" in refused("--run new", "rl")
