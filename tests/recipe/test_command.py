"""From a command line to settings and back: what is chosen, what wins over it, what a run keeps when it is gone on with, and what its model is."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import torch

from deepwright import cli, weights
from deepwright.files import read_records
from deepwright.model import Transformer
from deepwright.recipe import command, facts
from deepwright.recipe.choices import Machine
from deepwright.recipe.command import prepare
from deepwright.recipe.resolve import split_words
from deepwright.recipe.session import BASE_FIRST, CONFIG, model_folder, with_start
from deepwright.recipe.settings import R1Settings, resolve_for
from deepwright.rl.config import GRPOConfig
from deepwright.verify.cases import ALL_CASES
from tests.recipe.mini import LINE
from tests.text import family

# With what is chosen for a tiny model, small enough for a second.
SMALL = (
    "--threads 1 --rl.prompts 2 --rl.samples 2 --rl.max-tokens 6 --rl.checkpoint-every 1 "
    "--evaluation.problems 2 --evaluation.samples 2 --evaluation.problems-between 2"
).split()


def language_model(folder: Path) -> Path:
    """A tiny one with a chat template."""
    tokenizer = family.load(folder / "tokenizer", "smollm")
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    config = ALL_CASES["llama"].__class__(
        **vars(ALL_CASES["llama"])
        | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 2048, **ids}
    )
    weights.save(Transformer(config, torch.Generator().manual_seed(0)), tokenizer, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return language_model(tmp_path_factory.mktemp("base"))


def prepared(name: str, *words: object):
    return prepare(name, split_words([str(word) for word in words]))


def rl(model: Path, run: Path, *more: object) -> list[str]:
    task = ["--task", "calc3", "--task.options", "train=40", "held_out=8"]
    return ["rl", "--start", str(model), *task, "--run", str(run), *SMALL, *map(str, more)]


# ---- what is chosen, and what wins


def test_a_dry_run_shows_what_was_chosen_and_why_and_reads_as_toml(model, capsys):
    line = [
        "rl",
        "--start",
        str(model),
        "--task",
        "calc3",
        "--rl.learning-rate",
        "0.5",
        "--dry-run",
    ]
    assert cli.main(line) == 0
    shown = capsys.readouterr().out
    table = tomllib.loads(shown)
    assert (
        table["rl"]["learning_rate"] == 0.5 and table["run"] == "rl" and table["rl"]["pack_groups"]
    )
    assert "#   rl.pack_groups = true: prompts of " in shown and "#   rl.learning_rate" not in shown
    reasons = [one for one in shown.splitlines() if one.startswith("# ")][1:]
    assert len(reasons) > 8 and all(": " in one and " = " in one for one in reasons)


def test_configs_that_ship_stay_as_they_are(model):
    for words in ([], ["--config", "smollm2"], ["--config", "smollm2", "--start", model, "--task", "calc3"],
                  ["--quick", "--start", model]):  # fmt: skip
        asked = prepared("rl", *words)
        assert asked.settings == resolve_for("rl", split_words(list(map(str, words))))
        assert not asked.choices


def test_a_file_of_the_user_s_wins_over_choices_and_one_with_a_base_is_whole(model, tmp_path):
    own, based = tmp_path / "own.toml", tmp_path / "based.toml"
    own.write_text(
        f'start = "{model}"\n[task]\nname = "calc3"\n[rl]\nsteps = 7\npack_groups = false\n'
    )
    asked = prepared("rl", "--config", own, "--rl.samples", 5)
    kept = {"rl.steps", "rl.pack_groups", "rl.samples"}
    assert not kept & {one.setting for one in asked.choices} and len(asked.choices) > 5
    c = asked.settings.rl
    assert (c.steps, c.pack_groups, c.samples) == (7, False, 5)
    laptop = Path(command.__file__).parents[2] / "configs" / "laptop-zero.toml"
    based.write_text(f'base = "{laptop}"\nstart = "{model}"\n')
    assert not prepared("rl", "--config", based).choices


def test_a_task_without_a_model_is_refused(capsys):
    assert cli.main(["rl", "--task", "calc3"]) == 2
    assert "start is missing, expected the folder of a model" in capsys.readouterr().err


# ---- a run that is gone on with


@pytest.fixture(scope="module")
def begun(model, tmp_path_factory) -> Path:
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    assert cli.main(rl(model, folder, "--rl.steps", 2)) == 0
    return folder


def check_chooses_once(folder: Path) -> None:
    """On a machine that would get other settings the same command goes on with those of the run."""
    line = rl(language_model(folder), folder / "run", "--rl.steps", 1)
    assert cli.main(line) == 0
    before = (folder / "run" / CONFIG).read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "this_machine", lambda: Machine(64, 1 << 40, True))
        kept, anew = prepared(*line, "--resume"), prepared(*line)
    table = {
        name: value for name, value in tomllib.loads(before).items() if name in ("rl", "evaluation")
    }
    assert not kept.choices and anew.choices
    shown = tomllib.loads(kept.toml())
    assert {name: shown[name] for name in table} == table


def test_a_run_gone_on_with_elsewhere_does_not_choose_again(tmp_path):
    check_chooses_once(tmp_path)
    assert cli.main(["rl", "--run", str(tmp_path / "run"), "--resume"]) == 0


def test_the_reasons_are_said_before_the_run_and_how_long_it_takes(model, tmp_path, capsys):
    assert cli.main(rl(model, tmp_path / "run", "--rl.steps", 1)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Chosen here; what you name wins:"
    assert any(line.startswith("  rl.learning_rate = 0.0004: ") for line in said)
    (estimate,) = (line for line in said if line.startswith("Estimated from a few tokens of"))
    assert "the first evaluation takes about" in estimate and "a step" in estimate


def test_a_finished_run_goes_on_with_more_steps(begun, tmp_path):
    """What was done stays, letter for letter; rates are those of the new length; a lower number is another run."""
    folder = shutil.copytree(begun, tmp_path / "more")
    files = [folder / name for name in ("metrics.jsonl", "evaluations.jsonl")]
    before = [path.read_bytes() for path in files]
    assert cli.main(["rl", "--run", str(folder), "--resume", "--rl.steps", "5"]) == 0
    assert all(path.read_bytes().startswith(old) for path, old in zip(files, before))
    records, settings = read_records(files[0]), tomllib.loads((folder / CONFIG).read_text())["rl"]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5] and settings["steps"] == 5
    named = ("learning_rate", "warmup_steps", "constant_until", "final_ratio")
    config = GRPOConfig(**{name: settings[name] for name in (*named, "steps")})
    for record in records[2:]:
        assert record["learning_rate"] == pytest.approx(config.learning_rate_at(record["step"]))
    judged = [(e["step"], e["label"]) for e in read_records(files[1]) if e["label"] == "zero"]
    assert judged == [(2, "zero"), (5, "zero")]
    assert (folder / "zero/checkpoints/step-5").is_dir()
    assert cli.main(["rl", "--run", str(folder), "--resume", "--rl.steps", "4"]) == 2


@pytest.mark.invariant
def test_what_follows_is_the_same_after_a_stop(begun, tmp_path):
    whole, stopped = (shutil.copytree(begun, tmp_path / name) for name in ("whole", "stopped"))
    line = ["--resume", "--rl.steps", "4"]
    assert cli.main(["rl", "--run", str(whole), *line]) == 0
    for step in (3, 4):  # as a kill right after step 3 leaves it
        assert cli.main(["rl", "--run", str(stopped), *line]) == 0
        if step == 3:
            shutil.rmtree(stopped / "zero/checkpoints/step-4")
    name = "zero/checkpoints/step-4/model.safetensors"
    assert (whole / name).read_bytes() == (stopped / name).read_bytes()


def test_the_recipe_s_own_steps_grow_only_while_nothing_stands_on_them(tmp_path):
    settings = R1Settings(run=str(tmp_path / "run"))
    assert settings.grows == ("rl.steps",)
    (tmp_path / "run" / "cold_start").mkdir(parents=True)
    assert settings.grows == ()


def test_pre_training_goes_on_with_more_tokens(tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.main([*LINE, "--run", str(folder)]) == 0
    before, more = (
        (folder / "metrics.jsonl").read_bytes(),
        [*LINE, "--run", str(folder), "--resume"],
    )
    tokens = "--pretrain.schedule.total-tokens"
    assert cli.main([*more, tokens, "288"]) == 0
    assert (folder / "metrics.jsonl").read_bytes().startswith(before)
    assert read_records(folder / "metrics.jsonl")[-1]["tokens"] == 288
    assert json.loads((folder / "run.json").read_text())["base_step"] == 6  # drafts judged anew
    assert cli.main([*more, tokens, "240"]) == 2
    assert "started with pretrain.schedule.total_tokens = 288" in capsys.readouterr().err


# ---- whose model


def test_a_run_is_started_from_its_last_model_and_says_which(begun, model, tmp_path, capsys):
    last = model_folder(begun)
    assert last.parts[-3:] == ("zero", "checkpoints", "step-2")
    run = tmp_path / "next"
    assert cli.main(rl(begun, run, "--rl.steps", 1)) == 0
    assert f"start: {last} (of {begun})" in capsys.readouterr().out
    assert tomllib.loads((run / CONFIG).read_text())["start"] == str(last)
    # it has gone on meanwhile: what was begun from its step 2 stays so
    further = shutil.copytree(last, begun / "zero/checkpoints/step-3")
    try:
        assert cli.main([*rl(begun, run, "--rl.steps", 1), "--resume"]) == 0
    finally:
        shutil.rmtree(further)


def test_the_whole_recipe_starts_from_a_run_s_base_where_it_has_one(begun, tmp_path):
    settings = R1Settings(start=str(begun))
    assert with_start(settings, False, order=BASE_FIRST)[0].start == str(model_folder(begun))
    both = shutil.copytree(begun, tmp_path / "both")
    base = shutil.copytree(model_folder(begun), both / "base/checkpoints/step-7")
    settings = R1Settings(start=str(both))
    assert with_start(settings, False, order=BASE_FIRST)[0].start == str(base)
    assert with_start(settings, False)[0].start == str(model_folder(both)) != str(base)


def test_facts_are_those_of_prompts_and_references(model):
    from deepwright.evaluate.scoring import prompt_ids
    from deepwright.tasks import Calc3, UserReward
    from deepwright.text import Tokenizer

    tokenizer, task = Tokenizer.load(model), Calc3(train=5)
    found = facts.task_facts(task, tokenizer)
    prompts = [len(prompt_ids(tokenizer, task.problem(i, "train"))) for i in range(5)]
    answers = [f"Answer: \\boxed{{{task.problem(i, 'train').answer}}}" for i in range(5)]
    assert (found.longest_prompt, found.prompt) == (max(prompts), round(sum(prompts) / 5))
    assert found.answer == max(len(tokenizer.encode(answer)) for answer in answers)
    assert found.shown and not found.thinks and (found.train, found.held_out) == (5, 240)
    assert not facts.task_facts(Calc3(examples=0), tokenizer).shown
    assert facts.task_facts(Calc3(layout="tags"), tokenizer).thinks
    (model.parent / "r.py").write_text("def f(completions): return [1.0] * len(completions)\n")
    assert facts.task_facts(UserReward(task, f"{model.parent}/r.py:f"), tokenizer) == found


# ---- a reward that cannot be called


REWARDS = """
def wants_more(completions, ground_truth): return [1.0] * len(completions)
def positional(text, /): return [1.0]
def one(completions): return [1.0]
def raises(completions): raise ZeroDivisionError("oh")
def number(completions): return 1.0
def text(completions): return ["good"] * len(completions)
def none(completions): return [None] * len(completions)
def late(completions, trainer_state):
    if trainer_state.global_step: raise KeyError("gold")
    return [float(i % 2) for i in range(len(completions))]
"""
BROKEN = {
    "wants_more": "missing 1 required positional argument: 'ground_truth'",
    "positional": "missing 1 required positional argument: 'text'",
    "one": "returned 1 rewards for 2 completions",
    "raises": "raised ZeroDivisionError: oh",
    "number": "returned a float, expected a list of numbers",
    "text": "gave str 'good' as a reward",
}


def check_broken_rewards(folder: Path) -> None:
    """Each is refused with the contract, before weights are read and before there is a run folder."""

    def read(*_):
        raise AssertionError("weights were read")

    start = language_model(folder)
    (folder / "my.py").write_text(REWARDS)
    for name, said in BROKEN.items():
        words = rl(
            start, folder / "run", "--rl.steps", 1, "--task.reward", f"{folder}/my.py:{name}"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(weights, "load", read)
            found = _refused(words)
        assert said in found and f"my.py:{name}" in found, found
        assert "completions, prompts, " in found and "returns a list with a finite number" in found
        assert len(found) < 800 and not (folder / "run").exists()


def _refused(words: list[str]) -> str:
    settings = prepared(words[0], *words[1:])
    try:
        settings.run(False)
    except ValueError as error:
        return str(error)
    raise AssertionError("it was taken")


def test_a_broken_reward_is_refused_with_the_contract(tmp_path):
    check_broken_rewards(tmp_path)


def test_a_reward_that_does_not_apply_is_no_fault(tmp_path):
    from deepwright.tasks import make_task

    (tmp_path / "my.py").write_text(REWARDS)
    make_task("calc3", reward=f"{tmp_path}/my.py:none").try_once()
    make_task("calc3", reward=f"{tmp_path}/my.py:late").try_once()  # at step 0 of 1
    make_task("countdown", reward=f"{tmp_path}/my.py:none").try_once()
