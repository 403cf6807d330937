"""The settings of the three training commands: the configs that ship resolve, and nothing is accepted that would change nothing."""

import dataclasses
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
    assert choice.make() == Calc3(seed=3, terms=4, layout="tags")
    assert resolved("rl", "--config smollm2").task.make() == Calc3()
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
