"""`deepwright pretrain --data` and `data tokenize`, from files to a model: sized by the text, resumed as if unbroken, refused in one sentence."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib

import pytest
import torch

from deepwright import cli, weights
from deepwright.data.tokens import Tokens, read_manifest
from deepwright.files import read_records, read_toml
from deepwright.recipe.session import model_folder
from deepwright.report.records import read_run
from deepwright.text import Tokenizer
from tests.report.test_chinese import english_left

POEM = "In Xanadu did Kubla Khan a stately pleasure-dome decree where Alph the sacred river ran".split()
SMALL = (
    "--quick --threads 1 --model.hidden-size 16 --model.num-hidden-layers 1 --model.first-k-dense-replace 1 "
    "--model.intermediate-size 16 --model.num-attention-heads 2 --model.q-lora-rank None "
    "--model.kv-lora-rank 8 --pretrain.length 24 --pretrain.schedule.total-tokens 960 "
    "--pretrain.schedule.batch-rows 4 --pretrain.schedule.warmup-steps 0 --pretrain.checkpoint-every 2 "
    "--pretrain.validate-every 5 --evaluation.validation-rows 4 --tokenizer train:400"
).split()


def lines(folder):
    """Records of a run without what the clock says."""
    clock = ("time", "tokens_per_second", "step_seconds")
    return [
        {name: value for name, value in record.items() if name not in clock}
        for record in read_records(folder / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for number in range(60):
        words = [POEM[(number * k + k * k) % len(POEM)] for k in range(40 + number)]
        (folder / f"{number:02}.txt").write_text(" ".join(words) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "text"
    assert cli.main(["pretrain", "--data", str(text), *SMALL, "--run", str(folder)]) == 0
    return folder


def test_a_model_of_the_users_text(run, text):
    metrics = read_records(run / "metrics.jsonl")
    assert [record["step"] for record in metrics] == list(range(1, 11))
    manifest = read_manifest(run / "tokens")
    assert manifest["train"]["documents"] + manifest["held_out"]["documents"] == 60
    assert manifest["held_out"]["documents"] >= 1 and manifest["vocabulary"] <= 400
    model, tokenizer = weights.load(model_folder(run))
    assert model.config.vocab_size == tokenizer.vocab_size == manifest["vocabulary"]
    assert metrics[-1]["validation_loss"] < metrics[4]["validation_loss"] < math.log(400)


def test_bits_per_byte_by_hand(run):
    """One document is held out here, so its rows are the first of the split: the loss of each target, by plain PyTorch."""
    model, tokenizer = weights.load(model_folder(run), torch.float32)
    model.requires_grad_(False)
    held_out = Tokens(run / "tokens", "held_out")
    ids, length = torch.from_numpy(held_out.read(0, len(held_out))), 24
    rows = [ids[start : start + length + 1] for start in range(0, len(ids) - length, length)][:4]
    nats, spelled = 0.0, b""
    for row in rows:
        logits = model(row[None, :-1])[0].float()
        loss = torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum")
        nats += loss.item()
        spelled += tokenizer.decode([i for i in row[1:].tolist() if i > 1], specials=True).encode()
    last = read_records(run / "metrics.jsonl")[-1]
    assert last["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(spelled), rel=1e-4)


def test_samples_on_the_way(run):
    samples = read_records(run / "samples.jsonl")
    assert [s["step"] for s in samples if s["kind"] == "text"] == [5, 10]
    assert all(s["prompt"] and isinstance(s["completion"], str) for s in samples)
    page = (run / "report.html").read_text()
    assert "How it goes on with texts" in page and page.count('class="sample"') == 5
    assert "Bits per byte" in page and "A text of the user" in page
    assert english_left(read_run(run)) == []


@pytest.mark.invariant
def test_killed_and_gone_on_with_is_the_unbroken_run(run, text, tmp_path):
    words = ["pretrain", "--data", str(text), *SMALL, "--run", str(tmp_path / "killed"), "--resume"]
    code = f"import sys; from deepwright import cli; sys.exit(cli.main({words!r}))"
    killed = 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        while process.poll() is None and killed < 2:
            seen = read_records(tmp_path / "killed" / "metrics.jsonl")
            if len(seen) > 2 + 4 * killed:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.02)
        if process.wait() == 0:
            break
    assert killed >= 1
    assert lines(tmp_path / "killed") == lines(run)
    for name in ("samples.jsonl", "tokens/tokens.json"):
        assert (tmp_path / "killed" / name).read_text() == (run / name).read_text()
    ours, theirs = (weights.load_model(model_folder(one)) for one in (tmp_path / "killed", run))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))


def test_tokens_made_before_give_the_same_run(run, text, tmp_path, capsys):
    tokens = str(tmp_path / "tokens")
    assert (
        cli.main(["data", "tokenize", str(text), "--out", tokens, "--tokenizer", "train:400"]) == 0
    )
    assert "in 60 different documents; 0 that stood" in capsys.readouterr().out
    small = SMALL[: SMALL.index("--tokenizer")]
    words = ["pretrain", "--data", tokens, *small, "--run", str(tmp_path / "run")]
    assert cli.main(words) == 0
    assert lines(tmp_path / "run") == lines(run)
    assert not (tmp_path / "run" / "tokens").exists()


def test_a_model_goes_on_with_a_text(run, text, tmp_path):
    """With its own tokenizer, from its own weights: the loss begins where it ended."""
    small = SMALL[: SMALL.index("--tokenizer")]
    words = [
        "pretrain",
        "--data",
        str(text),
        "--start",
        str(run),
        *small,
        "--run",
        str(tmp_path / "on"),
    ]
    assert cli.main([*words, "--pretrain.schedule.learning-rate", "1e-9"]) == 0
    before, after = (
        read_records(run / "metrics.jsonl"),
        read_records(tmp_path / "on" / "metrics.jsonl"),
    )
    assert after[-1]["validation_loss"] == pytest.approx(before[-1]["validation_loss"], rel=1e-3)
    assert (
        Tokenizer.load(tmp_path / "on" / "tokens").vocab_size
        == read_manifest(run / "tokens")["vocabulary"]
    )


def test_how_a_model_goes_on_is_chosen_for_it_and_said(run, text, tmp_path, capsys):
    words = ["pretrain", "--data", str(text), "--start", str(run), "--run", str(tmp_path / "on")]
    assert cli.main([*words, "--pretrain.length", "24", "--dry-run"]) == 0
    said = capsys.readouterr().out
    settings = tomllib.loads(said)
    rate = settings["pretrain"]["schedule"]["learning_rate"]
    assert rate == 4e-4 and f"pretrain.schedule.learning_rate = {rate}: " in said
    assert settings["pretrain"]["length"] == 24 and "# " + "  pretrain.length" not in said
    assert settings["pretrain"]["compute"] == "auto" and settings["start"] == str(run)
    assert settings["pretrain"]["optimizer"]["name"] == "adamw"


def test_a_short_text_shortens_the_schedule(text, tmp_path, capsys):
    words = ["pretrain", "--data", str(text), *SMALL, "--run", str(tmp_path / "run")]
    assert (
        cli.main([*words, "--pretrain.schedule.total-tokens", "1000000", "--text.epochs", "0.1"])
        == 0
    )
    train = read_manifest(tmp_path / "run" / "tokens")["train"]["tokens"]
    last = read_records(tmp_path / "run" / "metrics.jsonl")[-1]
    assert int(0.1 * train) <= last["tokens"] < int(0.1 * train) + 4 * 24
    assert "tokens instead of 1,000,000" in capsys.readouterr().out


def test_the_context_is_stretched_in_phases(text, tmp_path):
    """Each phase at its own length, with the same YaRN, from the weights of the one before."""
    words = [
        "pretrain",
        "--data",
        str(text),
        *SMALL,
        "--run",
        str(tmp_path / "run"),
        "--model.max-position-embeddings",
        "32",
    ]
    longer = "--long-context.lengths 48 64 --long-context.steps 2 --long-context.batch-tokens 100".split()
    assert cli.main([*words, *longer]) == 0
    run = tmp_path / "run"
    assert model_folder(run).parts[-3] == "long_context_2"
    found = {stage: json.loads((model_folder(run / stage, (".",)) / "config.json").read_text())
             for stage in ("base", "long_context_1", "long_context_2")}  # fmt: skip
    assert [config["max_position_embeddings"] for config in found.values()] == [32, 48, 64]
    assert found["base"].get("rope_scaling") is None
    for config in (found["long_context_1"], found["long_context_2"]):
        scaling = config["rope_scaling"]
        assert (scaling["factor"], scaling["original_max_position_embeddings"]) == (2.0, 32)
        assert scaling["mscale"] == scaling["mscale_all_dim"] == 1.0
    records = read_records(run / "metrics.jsonl")
    assert [(r["stage"], r["batch_tokens"]) for r in records[-4:]] == [
        ("long_context_1", 96), ("long_context_1", 96), ("long_context_2", 64), ("long_context_2", 64),
    ]  # fmt: skip
    assert cli.main([*words, *longer, "--resume"]) == 0  # finished: nothing is trained again
    assert read_records(run / "metrics.jsonl") == records


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--data", "nowhere.txt"], "expected a file, a folder or a glob"),
        (["--data", "{tmp}/empty.txt"], "is empty"),
        (["--data", "{tmp}/bad.txt"], "no UTF-8 text"),
        (["--data", "{tmp}/none"], "expected a folder with"),
        (["--data", "{text}", "--tokenizer", "train:9"], "expected a folder, or train:N"),
        (["--data", "{text}", "--tokenizer", "nowhere"], "there is no folder nowhere"),
        (["--data", "{text}", "--text.held-out", "0"], "held_out is 0"),
        (["--data", "{run}/tokens", "{text}"], "expected it alone, or text"),
        (["--data", "{run}/tokens", "--tokenizer", "{tmp}/other"], "the one that made"),
        (["--data", "{run}/tokens", "--start", "{tmp}/other"], "the one that made"),
        (["--data", "{text}", "--start", "{run}", "--tokenizer", "train:400"], "goes on with its own"),
        (["--data", "{text}", "--long-context.lengths", "512"], "above the model's context, 1024"),
        (["--data", "{text}", "--long-context.lengths", "4096", "2048"], "rising"),
        (["--start", "{run}"], "none without --data"),
        (["--task", "calc3"], "a corpus for 'countdown' and 'needle' only"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence_and_no_run(
    words, sentence, run, text, tmp_path, capsys
):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bad.txt").write_bytes(b"\xff\xff")
    (tmp_path / "none").mkdir()
    from deepwright.text import train_bpe
    from tests.train.tiny import MODEL, make_model

    other = train_bpe(["some other words"], 300)
    weights.save(
        make_model(MODEL.__class__(**vars(MODEL) | {"vocab_size": 300})), other, tmp_path / "other"
    )
    words = [word.format(tmp=tmp_path, text=text, run=run) for word in words]
    assert cli.main(["pretrain", *words, "--run", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_usual_settings_are_those_of_a_text(text, capsys):
    assert cli.main(["pretrain", "--data", str(text), "--dry-run"]) == 0
    settings = tomllib.loads(capsys.readouterr().out)
    assert settings["run"] == "text" and settings["model"]["hidden_size"] == 256
    assert settings["data"] == [str(text)]


def test_a_run_with_another_text_is_not_gone_on_with(run, text, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("more")
    words = [
        "pretrain",
        "--data",
        str(text),
        str(tmp_path / "more.txt"),
        *SMALL,
        "--run",
        str(run),
        "--resume",
    ]
    assert cli.main(words) == 2
    assert "was started with" in capsys.readouterr().err
    assert read_toml(run / "config.toml")["data"] == [str(text)]
