"""A .gguf file opens where a folder does: the same numbers, ids and answers, without a folder beside it."""

import dataclasses
import json

import pytest
import torch

import deepwright as dw
from deepwright import cli, weights
from deepwright.model import Transformer
from deepwright.verify.cases import ALL_CASES
from deepwright.weights.convert import convert
from deepwright.weights.gguf_files import write_gguf
from tests.text import family

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
FEW = ["--threads", "1", "--max-tokens", "4"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """(folder, file) of one model."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = family.load(folder / "tokenizer", "smollm")
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    config = dataclasses.replace(
        ALL_CASES["llama"], vocab_size=tokenizer.vocab_size, max_position_embeddings=2048, **ids
    )
    weights.save(Transformer(config, torch.Generator().manual_seed(0)), tokenizer, folder / "m")
    convert(folder / "m", folder / "m.gguf")
    return folder / "m", folder / "m.gguf"


def test_model_tokenizer_and_config_are_those_of_the_folder(places):
    (model, tokenizer), (other, spoken) = (weights.load(place) for place in places)
    ours, theirs = model.state_dict(), other.state_dict()
    assert (
        all(torch.equal(ours[name], theirs[name]) for name in ours) and ours.keys() == theirs.keys()
    )
    asked = [{"role": "user", "content": "2 + 2?"}]
    assert tokenizer.encode(tokenizer.render(asked)) == spoken.encode(spoken.render(asked))
    assert spoken.stop_ids == tokenizer.stop_ids
    own, alone = weights.read_config(places[1]), weights.load_tokenizer(places[1])
    assert own == other.config and alone.encode("a b") == tokenizer.encode("a b")
    assert torch.equal(
        dw.load_model(places[1], torch.bfloat16).embed.weight, model.embed.weight.bfloat16()
    )


def test_every_command_answers_as_from_the_folder(places, capsys, tmp_path, monkeypatch):
    """And leaves nothing beside the file."""
    monkeypatch.chdir(tmp_path)
    chats = {
        "messages": [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "4."}]
    }
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps(chats)}\n" * 4)
    tasks = ["--tasks", "calc3", "--problems", "2", "--samples", "2"]
    before = sorted(path.name for path in places[1].parent.iterdir())
    for words in (
        lambda place: ["generate", place, "2 + 2?", *FEW],
        lambda place: ["eval", place, *tasks, *FEW],
        lambda place: ["data", "preview", "chats.jsonl", "--model", place],
    ):
        said = []
        for place in places:
            assert cli.main(words(str(place))) == 0
            said.append(capsys.readouterr().out)
        assert said[0] == said[1] and said[0]
    assert sorted(path.name for path in places[1].parent.iterdir()) == before


def test_training_starts_from_a_file(places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = "--rl.steps 1 --rl.prompts 2 --rl.samples 2 --rl.max-tokens 4 --threads 1"
    few = "--evaluation.problems 2 --evaluation.samples 2 --evaluation.problems-between 2"
    words = f"rl --start {places[1]} --task calc3 {steps} {few} --run tried"
    assert cli.main(words.split()) == 0, capsys.readouterr().err
    model, _ = dw.load("runs/tried")
    assert model.config.vocab_size == weights.read_config(places[1]).vocab_size


@pytest.mark.parametrize("command", ["chat", "generate", "eval"])
def test_a_file_that_does_not_open_is_one_sentence(places, command, tmp_path, capsys):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(places[1].read_bytes()[:1000])
    bare = tmp_path / "bare.gguf"
    write_gguf(weights.load_model(places[0]), None, bare)
    more = ["2?"] if command == "generate" else []
    for place, said in (
        (damaged, f"{damaged}"),
        (bare, f"{bare} has no tokenizer, expected a file with one"),
        (tmp_path / "none.gguf", "there is no file"),
    ):
        assert cli.main([command, str(place), *more, "--threads", "1"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("deepwright: ") and said in error and error.count("\n") == 1


def test_a_folder_with_a_file_alone_names_it(places, tmp_path, capsys):
    (tmp_path / "x.gguf").write_bytes(places[1].read_bytes())
    assert cli.main(["generate", str(tmp_path), "2?", *FEW]) == 2
    assert (
        f"holds GGUF alone (x.gguf): name the file itself, {tmp_path / 'x.gguf'}"
        in capsys.readouterr().err
    )


def test_a_file_of_another_vocabulary_is_refused(places, tmp_path):
    model = weights.load_model(places[0])
    small = dataclasses.replace(model.config, vocab_size=300)
    tokenizer = weights.load_tokenizer(places[0])
    write_gguf(Transformer(small, torch.Generator().manual_seed(0)), None, tmp_path / "m.gguf")
    with pytest.raises(ValueError, match="has no tokenizer"):
        weights.load(tmp_path / "m.gguf")
    assert tokenizer.vocab_size > 300
