"""Damaged files of a run, some thousand with fixed seeds: to go on, to report and to read end in
success or in one short sentence that names the file, at once. Files of a checkpoint also with
checksums made right again."""

import contextlib
import hashlib
import io
import json
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from deepwright import cli
from deepwright.cli import main, sentence
from deepwright.data import PackedStream
from deepwright.recipe import base
from deepwright.recipe.align import _read_pairs
from deepwright.recipe.harvest import kept_documents
from deepwright.recipe.journal import Journal
from deepwright.recipe.r1 import run_checked
from deepwright.recipe.resolve import split_words
from deepwright.recipe.session import check_same, model_folder, open_run, run_config
from deepwright.recipe.settings import resolve_for
from deepwright.report import write_report
from deepwright.rl.grpo import Learner
from deepwright.tasks.countdown import Countdown
from deepwright.tasks.requests import Requests
from deepwright.text import number_tokenizer
from deepwright.train.checkpoint import latest_checkpoint, taking_over
from deepwright.train.pretrain import Trainer
from tests.fuzz import damaged_bytes, damaged_lines
from tests.recipe.test_r1 import ZERO

RECORDS = ("run.json", "metrics.jsonl", "samples.jsonl", "evaluations.jsonl", "corpus.json")
TRAINER = ("state.json", "tensors.safetensors", "manifest.json")
SECONDS = 10.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["r1", "--run", str(folder), *ZERO]) == 0
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def ends_well(action: Callable[[], object], file: Path) -> None:
    """It succeeds, or raises what the command line prints as one sentence that names the file, or
    the checkpoint that it lies in."""
    begun = time.monotonic()
    quiet = (contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()))
    try:
        with quiet[0], quiet[1], warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except (ValueError, OSError, MemoryError) as error:
        said = sentence(error)
        assert len(said) <= cli.LONGEST_SENTENCE
        names = [file.name, *(part.name for part in file.parents if part.name == "checkpoints")]
        assert any(name in said for name in names), said
    except Exception as error:
        raise AssertionError(f"a traceback: {type(error).__name__}: {error}") from error
    assert time.monotonic() - begun < SECONDS


def damage(file: Path, seed: int) -> None:
    draw, content = Random(f"{seed} {file.name}"), file.read_bytes()
    text = file.suffix in (".json", ".jsonl") and draw.random() < 0.75
    file.write_bytes(damaged_lines(content, draw) if text else damaged_bytes(content, draw))


def seal(file: Path) -> None:
    """Makes the checksum of a checkpoint's file right, as somebody would who means harm."""
    manifest = file.with_name("manifest.json")
    sums = json.loads(manifest.read_text())
    sums[f"trainer/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(sums))


def read_again(folder: Path) -> None:
    """What going on with a run reads of its records."""
    journal = Journal(folder)
    for stage, step in (("base", 0), ("zero", 2)):
        journal.tracker.rewind(stage, 1)
        journal.find(stage, step, stage)
    journal.summary()
    journal.facts()


def try_records(folder: Path, name: str, seeds: range) -> None:
    kept = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for seed in seeds:
        for action in (read_again, write_report):
            for path, content in kept.items():
                path.write_bytes(content)
            damage(folder / name, seed)
            ends_well(lambda action=action: action(folder), folder / name)
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.parametrize("name", RECORDS)
def test_damaged_records(folder, name):
    try_records(folder, name, range(20))


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("name", ["config.toml", *RECORDS])
def test_empty_files(folder, name, size):
    (folder / name).write_bytes(b"\n"[:size])
    for action in (read_again, write_report):
        ends_well(lambda action=action: action(folder), folder / name)


def test_damaged_settings(folder):
    settings = resolve_for("r1", split_words([*ZERO, "--run", str(folder)]))

    def open_it() -> None:
        with open_run(settings, resume=True):
            pass

    config = folder / "config.toml"
    content = config.read_bytes()
    for seed in range(60):
        for action in (open_it, lambda: write_report(folder), lambda: run_config(folder / "zero")):
            config.write_bytes(content)
            damage(config, seed)
            ends_well(action, config)


@pytest.mark.parametrize(
    "text",
    [
        b"a." * 200_000 + b"a = 1",
        b"a." * 15_000 + b"a = 1",
        b"a = " + b"[" * 50_000,
        b"a = " + b"{b = " * 10_000,
        b"seed = 0x" + b"f" * 50_000,
        b"seed = " + b"9" * 50_000,
        b"# " + b"x" * 10_000_000,
        b"\xff\xfe" * 100,
        b"a = 1\na = 2",
        b"[rl]\nsteps = [1, 2]\n",
        b"rl = [1, 2]\n",
        b"[[rl]]\nsteps = 1\n",
        b"rl = 1979-05-27T07:32:00Z\n",
        b"[pretrain.optimizer.name]\nx = 1\n",
        b'base = 3\n',
        b'base = [""]\n',
        b'base = "/dev/zero"\n',
        b'base = "."\n',
        b"[rl]\n" + b"x" * 20_000 + b" = 1\n",
        b"[rl.alarms]\npolicy = {}\n",
    ],
    ids=lambda text: text[:24].decode(errors="replace").replace("\n", " "),
)  # fmt: skip
def test_settings_of_no_sense_end_in_a_sentence(folder, tmp_path, text):
    """As the file of a run, and as one that is asked for."""
    (folder / "config.toml").write_bytes(text)
    ends_well(lambda: write_report(folder), folder / "config.toml")
    asked = tmp_path / "mine.toml"
    asked.write_bytes(text)

    def resolve() -> None:
        resolve_for("r1", split_words(["--config", str(asked)]))
        raise AssertionError("it was taken")

    ends_well(resolve, asked)


def go_on(folder: Path, stage: str, parts) -> None:
    settings, tokenizer, model = parts
    checkpoint = latest_checkpoint(folder / stage)
    with taking_over(checkpoint):
        if stage == "zero":
            learner = Learner(settings.rl, model)
            learner.resume(checkpoint)
            assert learner.now
        else:
            corpus = base.corpus_of(settings, settings.seed)
            stream = PackedStream(corpus, tokenizer, settings.pretrain.length, carry=False)
            Trainer(settings.pretrain, model).resume(checkpoint, stream)


@pytest.fixture(scope="module")
def parts(whole):
    settings = resolve_for("r1", split_words([*ZERO, "--run", str(whole)]))
    tokenizer = base.tokenizer_of(settings)
    return settings, tokenizer, base.new_model(settings, tokenizer)


def try_trainer_files(folder: Path, stage: str, name: str, seeds: range, parts) -> None:
    for older in sorted((folder / stage / "checkpoints").iterdir())[:-1]:
        shutil.rmtree(older)
    (checkpoint,) = (folder / stage / "checkpoints").iterdir()
    file = checkpoint / "trainer" / name
    kept = {path: path.read_bytes() for path in file.parent.iterdir()}
    for seed in seeds:
        for path, content in kept.items():
            path.write_bytes(content)
        damage(file, seed)
        if name != "manifest.json" and seed % 4:
            seal(file)
        ends_well(lambda: go_on(folder, stage, parts), file)
        ends_well(lambda: model_folder(folder / stage), file)


@pytest.mark.parametrize("name", TRAINER)
@pytest.mark.parametrize("stage", ["base", "zero"])
def test_damaged_trainer_files(folder, stage, name, parts):
    try_trainer_files(folder, stage, name, range(16), parts)


def test_a_checkpoint_whose_manifest_leaves_out_a_file_is_no_whole_one(folder):
    (last,) = sorted((folder / "zero" / "checkpoints").iterdir())[-1:]
    manifest = last / "trainer" / "manifest.json"
    sums = json.loads(manifest.read_text())
    del sums["model.safetensors"]
    manifest.write_text(json.dumps(sums))
    weights = bytearray((last / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (last / "model.safetensors").write_bytes(weights)
    with pytest.warns(UserWarning, match="manifest.json says nothing of model.safetensors"):
        assert latest_checkpoint(folder / "zero").step == 1


REQUESTS = Requests(0, ("en", "zh"))
TASK = Countdown(languages=("en", "zh"), count=2, held_out=50)
WORDS = number_tokenizer((*TASK.tokenizer_words(), *REQUESTS.tokenizer_words()), 99)
ROW = {"prompt": "nums 3 7 make 10 :", "completion": "<answer> 3 + 7 </answer>", "kind": "2"}
PAIR = {"split": "train", "request": 0, "better": "<answer> 3 </answer>", "worse": "7"}
SAMPLES = {
    "kept.jsonl": (ROW, lambda path: kept_documents(path, WORDS, 64)),
    "pairs.jsonl": (PAIR, lambda path: _read_pairs(path, WORDS, REQUESTS)),
}


def try_samples(path: Path, seeds: range) -> None:
    row, read = SAMPLES[path.name]
    for seed in seeds:
        path.write_text(f"{json.dumps(row)}\n" * 3)
        read(path)
        damage(path, seed)
        ends_well(lambda: read(path), path)


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_samples(tmp_path, name):
    try_samples(tmp_path / name, range(100))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_damage_by_the_thousand(folder, parts, tmp_path):
    for name in RECORDS:
        try_records(folder, name, range(1000, 1200))
    for stage in ("base", "zero"):
        for name in TRAINER:
            try_trainer_files(folder, stage, name, range(1000, 1150), parts)
    for name in SAMPLES:
        try_samples(tmp_path / name, range(1000, 2000))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_damaged_run_is_gone_on_with_or_refused(whole, tmp_path):
    """The whole command, for damage to any file of the run."""
    folder = tmp_path / "run"
    settings = resolve_for("r1", split_words([*ZERO, "--run", str(folder)]))
    files = [path.relative_to(whole) for path in whole.rglob("*.*") if path.is_file()]
    for seed in range(400):
        shutil.copytree(whole, folder)
        file = folder / files[seed % len(files)]
        damage(file, seed)
        ends_well(lambda: run_checked(settings, True), file)
        shutil.rmtree(folder)


def test_what_differs_is_quoted_shortly(tmp_path):
    with pytest.raises(ValueError, match="was started with") as caught:
        check_same(tmp_path, {"x" * 10_000: "y" * 10_000}, {})
    assert len(str(caught.value)) < cli.LONGEST_SENTENCE
