"""generate, chat and eval on a saved model: what is streamed is what would have been generated, and the held-out problems are the run's."""

import dataclasses

import pytest
import torch

from deepwright import weights
from deepwright.cli import main
from deepwright.config import preset
from deepwright.model import Transformer
from deepwright.recipe import use
from deepwright.recipe.requests import ChatRequest, EvalRequest, GenerateRequest
from deepwright.recipe.settings import TaskChoice
from deepwright.sampler import Sampling
from deepwright.tasks import Countdown
from deepwright.text import number_tokenizer

PROMPT = "nums 3 7 1 make 20 :"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained model in a run folder's place for one."""
    tokenizer = number_tokenizer(Countdown().tokenizer_words(), 99)
    config = dataclasses.replace(
        preset("laptop"),
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_nextn_predict_layers=0,
    )
    place = tmp_path_factory.mktemp("run") / "zero" / "checkpoints" / "step-3"
    place.parent.mkdir(parents=True)
    weights.save(Transformer(config, torch.Generator().manual_seed(0)), tokenizer, place)
    return place


def test_streamed_text_is_the_generated_text(folder):
    engine, tokenizer = use.open_engine(str(folder), 1)
    sampling = use.stopping(Sampling(40, seed=5), tokenizer)
    prompt = tokenizer.encode_prompt(PROMPT)
    whole = engine.sample([prompt], sampling)[0][0].token_ids
    assert tuple(use.stream_ids(engine, prompt, sampling)) == whole
    assert "".join(
        use.stream_text(tokenizer, use.stream_ids(engine, prompt, sampling))
    ) == tokenizer.decode(whole)


def test_stream_that_is_left_early_frees_the_engine(folder):
    engine, tokenizer = use.open_engine(str(folder), 1)
    stream = use.stream_ids(engine, tokenizer.encode_prompt(PROMPT), Sampling(40))
    next(stream)
    stream.close()
    assert not engine.has_work


class Bytes:
    """A tokenizer whose ids are bytes, so that one character may need several."""

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


def test_half_a_character_waits_for_its_other_half():
    text = "aß €\N{GRINNING FACE}z"
    pieces = list(use.stream_text(Bytes(), iter(text.encode())))
    assert "".join(pieces) == text and "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_text_cut_inside_a_character_is_not_lost():
    assert (
        "".join(use.stream_text(Bytes(), iter("ab€".encode()[:-1])))
        == "ab\N{REPLACEMENT CHARACTER}"
    )


def test_generate_gives_n_seeded_texts(folder):
    request = GenerateRequest(str(folder), PROMPT, n=3, max_tokens=8, threads=1)
    texts = use.generate_texts(request)
    assert len(texts) == 3 and texts == use.generate_texts(request)
    assert texts != use.generate_texts(dataclasses.replace(request, seed=1))


def test_conversation_keeps_its_messages_unless_told_to_forget(folder):
    for forget, kept in ((False, 4), (True, 2)):
        conversation = use.Conversation(
            ChatRequest(str(folder), forget=forget, max_tokens=4, threads=1)
        )
        answers = ["".join(conversation.reply(PROMPT)) for _ in range(2)]
        assert len(conversation.messages) == kept
        assert [m["content"] for m in conversation.messages[1::2]] == answers[-kept // 2 :]


def test_held_out_problems_are_those_of_the_run(folder):
    run = folder.parents[2]
    (run / "config.toml").write_text('[task]\nseed = 7\noptions = ["largest=9"]\n')
    for place in (folder, run):
        assert use.task_of(EvalRequest(str(place))) == Countdown(seed=7, largest=9)
        assert use.task_of(EvalRequest(str(place), task_seed=1)) == Countdown(seed=1, largest=9)
    assert use.task_of(EvalRequest(str(run.parent)), "countdown") == Countdown()


def test_eval_reads_as_usual_and_a_run_strictly(folder):
    asked = EvalRequest(str(folder.parents[3]))
    assert use.task_of(asked, "calc3").reading == "usual"
    assert use.task_of(dataclasses.replace(asked, reading="strict"), "calc3").reading == "strict"
    assert TaskChoice("calc3").judge().reading == "strict"  # what the stages of a recipe ask
    assert use.task_of(asked, "countdown") == Countdown()  # has one way alone


def test_eval_judges_by_the_task_s_own_check_whatever_the_run_paid(tmp_path):
    (tmp_path / "pay.py").write_text(
        "def pay(completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    (tmp_path / "config.toml").write_text(
        f'[task]\nname = "countdown"\nseed = 7\nreward = "{tmp_path / "pay.py"}:pay"\n'
    )
    assert use.task_of(EvalRequest(str(tmp_path))) == Countdown(seed=7)


def test_chat_command_reads_answers_and_ends(folder, monkeypatch, capsys):
    lines = iter([PROMPT, ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert main(["chat", str(folder), "--max-tokens", "3", "--threads", "1"]) == 0
    assert capsys.readouterr().out.strip()


def test_eval_command_prints_figures_with_error_bars(folder, capsys):
    assert (
        main(
            [
                "eval",
                str(folder),
                "--problems",
                "3",
                "--samples",
                "4",
                "--max-tokens",
                "8",
                "--threads",
                "1",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "3 held-out problems of countdown, 4 samples each" in out
    assert "pass@1" in out and "pass@4" in out and "±" in out


def test_eval_command_prints_a_row_for_each_budget(folder, capsys):
    few = ["--problems", "3", "--samples", "4", "--max-tokens", "8", "--threads", "1"]
    assert main(["eval", str(folder), "--budgets", "2", "16", *few]) == 0
    heading, names, *rows = capsys.readouterr().out.splitlines()
    assert heading.startswith("3 held-out problems of countdown, 4 samples each")
    assert names.split() == ["budget", "pass@1", "cons@2", "cons@4", "length"]
    assert [row.split()[0] for row in rows] == ["2", "16"] and all(
        row.count("±") == 3 for row in rows
    )
    request = EvalRequest(str(folder), budgets=(2, 16), problems=3, max_tokens=8, threads=1)
    assert [found.max_tokens for found in use.evaluate_all(request)] == [
        10,
        24,
    ]  # thought and answer


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", PROMPT + " 5" * 600], "the context holds 512"),
        (["generate", "hello"], "hello"),
        (["generate", PROMPT, "--temperature", "-1"], "temperature is -1.0"),
        (["eval", "--tasks", "chess"], "task is 'chess'"),
        (["eval", "--problems", "100000"], "problems is 100000"),
        (["eval", "--split", "dev"], "dev"),
        (["eval", "--budgets", "8", "0"], "budget is 0, expected at least 1 token"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(folder, arguments, said, capsys):
    command, *rest = arguments
    assert main([command, str(folder), *rest, "--threads", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("deepwright: ") and said in error and error.count("\n") == 1
