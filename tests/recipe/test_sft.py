"""`deepwright sft` and `deepwright data preview` from files to files."""

import io
import json
import re
import tomllib

import pytest
import torch
from rich.console import Console

from deepwright import cli, weights
from deepwright.files import read_records
from deepwright.recipe.command import prepare
from deepwright.recipe.requests import PreviewRequest
from deepwright.recipe.resolve import split_words
from deepwright.recipe.session import model_folder
from deepwright.recipe.sft import preview
from tests.text import family as families
from tests.train.tiny import MODEL, make_model

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"{n} [b]"},
            {"role": "assistant", "content": str(n), "reasoning_content": "easy"},
        ]
    }
    for n in range(10)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model of DeepSeek's kind with a tokenizer whose template drops reasoning that stands elsewhere than in the content."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = families.load(folder / "tokenizer", "smollm")
    config = MODEL.__class__(
        **vars(MODEL)
        | {
            "vocab_size": tokenizer.vocab_size,
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
        }
    )
    weights.save(make_model(config), tokenizer, folder / "model")
    return folder / "model"


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


def test_sft_trains_saves_and_resumes(base, data, tmp_path, capsys):
    words = [
        "sft",
        str(base),
        "--data",
        str(data),
        "--validation",
        str(data),
        "--run",
        str(tmp_path / "run"),
        "--sft.batch-rows",
        "4",
    ]
    assert cli.main([*words, "--sft.epochs", "2"]) == 0
    said = capsys.readouterr().out
    assert "10 documents, " in said and "step-5" in said
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["stage"] for record in records] == ["sft"] * 5 and "validation_loss" in records[
        -1
    ]
    model, tokenizer = weights.load(model_folder(tmp_path / "run"))
    assert (
        tokenizer.stop_ids == families.load(tmp_path / "t", "smollm").stop_ids
        and model.embed.weight.dtype == torch.float32
    )
    assert cli.main([*words, "--sft.epochs", "2", "--resume"]) == 0
    assert len(read_records(tmp_path / "run" / "metrics.jsonl")) == 5
    capsys.readouterr()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert cli.main(["sft", "--run", str(tmp_path / "run"), "--sft.epochs", "3", "--resume"]) == 0
    after = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert after.startswith(before) and after.count(b"\n") == 8  # half a step more of each epoch
    assert cli.main([*words, "--sft.epochs", "2", "--resume"]) == 2
    assert "was started with sft.epochs = 3, asked for now is 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        (["--data", "x.jsonl"], "model is missing"),
        (["somewhere"], "data is missing"),
        (["somewhere", "--data", "x.jsonl"], "there is no folder somewhere"),
        (
            ["somewhere", "--data", "x.jsonl", "--preset", "laptop"],
            "--preset laptop chooses a model",
        ),
        (["somewhere", "--date", "x.jsonl"], "did you mean --data?"),
        (["somewhere", "--data", "x.jsonl", "--sft.epochs", "0"], "epochs is 0"),
    ],
)
def test_user_errors_are_one_sentence(capsys, words, said):
    assert cli.main(["sft", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_bad_row_leaves_no_run_behind(base, tmp_path, capsys):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a"}')
    assert cli.main(["sft", str(base), "--data", str(file), "--run", str(tmp_path / "run")]) == 2
    assert "bad.jsonl, line 1" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_toml_file_and_a_dry_run(base, data, tmp_path, capsys):
    asked = f'model = "{base}"\ndata = "{data}"\n[sft]\nepochs = 7\n'
    (tmp_path / "a.toml").write_text(asked)
    words = ["--config", str(tmp_path / "a.toml"), "--sft.optimizer.name", "muon"]
    prepared = prepare("sft", split_words(words))
    settings, chosen = prepared.settings, {one.setting for one in prepared.choices}
    assert (settings.model, settings.sft.epochs) == (str(base), 7)
    assert settings.sft.optimizer.name == "muon" and "sft.epochs" not in chosen
    assert cli.main(["sft", str(base), "--data", str(data), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert tomllib.loads(shown)["sft"]["batch_rows"] == 4
    assert "#   sft.batch_rows = 4: 60 updates or more of 10 documents" in shown


def shown(base, data, **options) -> str:
    out = io.StringIO()
    preview(
        PreviewRequest(str(data), str(base), rows=1, **options.pop("request", {})),
        Console(file=out, highlight=False, soft_wrap=True, **options),
    )
    return out.getvalue()


def test_preview_shows_what_is_trained_on(base, data):
    plain = shown(base, data)
    # brackets of the data are no markup
    assert "0 [b]<|im_end|>" in plain and "⟦<think>\neasy\n</think>\n\n0<|im_end|>⟧" in plain
    assert "\x1b[" not in plain
    lines = {
        line.split()[0]: line.split()[1:]
        for line in plain.splitlines()
        if line.startswith(("ids ", "mask "))
    }
    tokenizer = families.trained()
    assert len(lines["ids"]) == len(lines["mask"]) and json.loads(tokenizer)["added_tokens"][2][
        "id"
    ] == int(lines["ids"][-1])
    assert (
        "10 documents, " in plain and plain.count("document 0") == 1 and "document 1" not in plain
    )
    green = shown(base, data, force_terminal=True, color_system="standard")
    assert "\x1b[32m⟦<think>" in green and "\x1b[1m" in green


def test_preview_leaves_out_what_is_too_long_and_refuses_what_never_ends(base, data, tmp_path):
    data.write_text(data.read_text() + "\n" + json.dumps({"prompt": "a", "completion": "b" * 99}))
    assert "1 documents of more than 60 tokens are left out" in shown(
        base, data, request={"length": 60}
    )
    assert cli.main(["data", "preview", str(data), "--model", str(base), "--turns", "some"]) == 2
    assert cli.main(["data", "view"]) == 2
    assert cli.main(["data", "preview", str(tmp_path / "none.jsonl"), "--model", str(base)]) == 2


def test_other_layouts_marks_and_what_is_left_out(base, tmp_path, capsys):
    """From files to files: what is said to the user, and a run on what is left."""
    file = tmp_path / "rows.json"
    turns = [
        {"from": "human", "value": "2 + 2?"},
        {"from": "gpt", "value": "5", "weight": 0, "mood": "dry"},
        {"from": "human", "value": "sure?"},
        {"from": "gpt", "value": "4"},
    ]
    rows = [{"conversations": turns}, {"conversations": turns[:2]}, {"conversations": turns}]
    rows[2] = {"conversations": [turns[0], {"from": "gpt", "value": "b" * 200}]}
    file.write_text(json.dumps(rows))
    options = ["--layout", "sharegpt", "--length", "150"]
    assert cli.main(["data", "preview", str(file), "--model", str(base), *options]) == 0
    shown = capsys.readouterr().out
    assert "⟦4<|im_end|>⟧" in shown and "⟦5" not in shown and "5<|im_end|>" in shown
    for note in (
        "1 documents of more than 150 tokens are left out",
        "1 rows in which no turn is to be trained on are left out",
        "nothing reads these fields of messages: mood (2 times)",
    ):
        assert f"{file}: {note}" in shown
    words = ["sft", str(base), "--data", str(file), "--layout", "sharegpt", "--sft.length", "150"]
    assert cli.main([*words, "--sft.epochs", "1", "--run", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "1 documents, " in said and said.count("are left out") == 2
    assert 'layout = "sharegpt"' in (tmp_path / "run" / "config.toml").read_text()


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"instruction": "a", "output": "b"}', "line 1: .*--layout alpaca"),
        ('{"messages": [{"from": "human", "value": "a"}]}', "line 1: .*--layout sharegpt"),
        ('{"messages": 7}', "line 1: messages are 7"),
        ("{", "line 1: not JSON"),
        ('{"prompt": "a", "completion": "b", "weight": 0.5}', "line 1: weight is 0.5"),
    ],
)
def test_a_row_that_cannot_be_read_names_its_place(base, tmp_path, capsys, text, said):
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    assert cli.main(["data", "preview", str(file), "--model", str(base)]) == 2
    error = capsys.readouterr().err
    assert re.search(f"{file}, {said}", error) and error.count("\n") == 1
    assert cli.main(["data", "preview", str(file), "--model", str(base), "--layout", "owl"]) == 2
