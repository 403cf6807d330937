"""A conversation: nothing that is typed ends it, what it says about itself holds, an answer can be
stopped. On a pseudo-terminal, as a person types, and piece by piece."""

import pytest

from deepwright import cli, weights
from deepwright.recipe import chat as subject
from deepwright.recipe.chat import USUAL, Conversation, chat
from deepwright.recipe.requests import ChatRequest
from deepwright.sampler import Sampling, StopReason
from tests.recipe.player import PROMPT, save_player, save_reader
from tests.terminal import CTRL_C, CTRL_D, terminal

CONTEXT = 4096


@pytest.fixture(scope="module")
def player(tmp_path_factory):
    """A model that knows Countdown's words alone, in a run; returns its folder."""
    run = tmp_path_factory.mktemp("runs") / "tried"
    place = run / "zero" / "checkpoints" / "step-3"
    place.parent.mkdir(parents=True)
    (run / "config.toml").write_text('[task]\nname = "countdown"\noptions = ["largest=9"]\n')
    return save_player(place, max_position_embeddings=128)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A model that reads any text and keeps turns apart; its prompts open a thought."""
    place = tmp_path_factory.mktemp("models") / "reader"
    save_reader(place, max_position_embeddings=CONTEXT)
    template = place / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %}<think>{% endif %}")
    return place


def talk(folder, **asked):
    return Conversation(ChatRequest(str(folder), threads=1, **{"max_tokens": 6, **asked}))


def said(conversation, line):
    """(what the model said, the notes) that come of a line."""
    pieces = list(conversation.respond(line))
    answer = "".join(piece.text for piece in pieces if piece.kind != "note")
    return answer, [piece.text for piece in pieces if piece.kind == "note"]


# ---- as a person types


def test_a_first_conversation_on_a_terminal(player):
    """Who it is, an ordinary sentence, a prompt of its own task, Ctrl-C at the prompt, /exit."""
    with terminal("chat", str(player), "--max-tokens", "6", "--threads", "1") as screen:
        screen.expect(
            r"step-3: deepseek_v3, [\d,]+ parameters \([\d,]+ active\), context 128 tokens"
        )
        screen.expect("Made by the run tried, stage zero, step 3, on countdown")
        screen.expect(
            r"It reads 18 words and the numbers 0 to 99, nothing else; for example: nums [\d ]+ make \d+ :"
        )
        screen.expect("every message is answered by itself")
        screen.expect("/help lists the commands, /exit or Ctrl-D leaves, Ctrl-C stops an answer")
        screen.expect("> ")
        screen.type("Hello, who are you?\n")
        screen.expect(
            r"'Hello,' is no word of this model's\. It reads .*for example: nums [\d ]+ make"
        )
        screen.expect("> ")
        screen.type("Hello\n")
        screen.expect("'Hello' is no word of this model's; /help lists them")
        screen.expect("> ")
        screen.type(f"{PROMPT}\n")
        screen.expect(r"\x1b\[2m\[cut at 6 tokens: /max-tokens N allows more\]")
        screen.expect("> ")
        screen.interrupt("Ctrl-C once more, Ctrl-D or /exit leaves")
        screen.expect("> ")
        screen.type("/exit\n")
        assert screen.ended() == 0
    assert "Traceback" not in screen.seen


def test_an_answer_is_stopped_and_the_conversation_goes_on(reader):
    """Ctrl-C in the middle of an answer; a thought is dim; Ctrl-D leaves."""
    with terminal("chat", str(reader), "--temperature", "0", "--threads", "1") as screen:
        screen.expect("> ")
        screen.type("/max-tokens 4000\n")
        screen.expect("at most 4,000 tokens for an answer")
        screen.expect("> ")
        screen.type("Find the answer.\n")
        screen.expect(r"answer\.\r\n")
        screen.expect(r"(\x1b\[2m[^\x1b]+\x1b\[22m){5}")
        screen.type(CTRL_C)
        screen.expect(r"\[stopped\]")
        screen.expect("> ")
        screen.type("/max-tokens 5\n")
        screen.expect("> ")
        screen.type("Find it.\n")
        screen.expect(r"\[cut at 5 tokens: /max-tokens N allows more\]")
        screen.expect("> ")
        screen.type(CTRL_D)
        assert screen.ended() == 0
    assert "Traceback" not in screen.seen


def test_lines_from_a_pipe_are_answered_and_only_answers_are_printed(player, monkeypatch, capsys):
    lines = iter(["Hello", PROMPT])

    def line(prompt):
        assert prompt == ""
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", line)
    assert cli.main(["chat", str(player), "--max-tokens", "3", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 and out.strip() and "\x1b" not in out + err
    assert "'Hello' is no word" in err and "[cut at 3 tokens" in err


def test_a_system_prompt_that_cannot_be_read_is_refused_at_once(player, capsys):
    assert cli.main(["chat", str(player), "--system", "Be nice.", "--threads", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("deepwright: 'Be' is not in the vocabulary") and error.count("\n") == 1


# ---- what is kept


def test_a_conversation_keeps_its_messages_unless_told_to_forget(reader):
    for forget, kept in ((False, 4), (True, 2)):
        conversation = talk(reader, forget=forget)
        answers = [said(conversation, "Find it.")[0].removesuffix("\n") for _ in range(2)]
        assert len(conversation.messages) == kept
        assert [m["content"] for m in conversation.messages[1::2]] == answers[-kept // 2 :]
        assert said(conversation, "/reset")[1] == ["a new conversation\n"]
        assert conversation.messages == []


def test_a_model_of_single_prompts_is_asked_each_message_by_itself(player):
    conversation = talk(player, temperature=0.0)
    first, again = (said(conversation, PROMPT)[0] for _ in range(2))
    assert first == again and len(conversation.messages) == 2


def check_what_cannot_be_answered_leaves_no_trace(folder):
    """After it the conversation is what it was before."""
    conversation, fresh = (talk(folder, temperature=0.0, forget=False) for _ in range(2))
    conversation.alone = fresh.alone = False
    for line in ("Hello", f"{PROMPT}{' 5' * 200}", "/temperature hot", "/nothing", "/system Hello"):
        answer, notes = said(conversation, line)
        assert answer == "" and len(notes) == 1, line
    assert said(conversation, PROMPT) == said(fresh, PROMPT)


def test_what_cannot_be_answered_leaves_no_trace(player):
    check_what_cannot_be_answered_leaves_no_trace(player)


def test_a_full_context_says_so_and_what_to_do(player):
    conversation = talk(player, temperature=0.0)
    conversation.alone = False
    assert said(conversation, PROMPT + " 5" * 200) == (
        "",
        [
            "this message has 208 tokens, the context of the model holds 128: say it in fewer words\n"
        ],
    )
    said(conversation, "/max-tokens 500")
    first = said(conversation, PROMPT)[1]
    assert first == [
        "[cut after 120 tokens, where the context of 128 ends: /reset begins a new conversation]\n"
    ]
    before = list(conversation.messages)
    (note,) = said(conversation, PROMPT)[1]
    assert note.startswith("the conversation with this message has 1") and "/reset begins" in note
    assert conversation.messages == before
    said(conversation, "/reset")
    assert said(conversation, PROMPT)[0]


def test_an_answer_that_is_stopped_stays_as_far_as_it_was_said(reader):
    conversation = talk(reader, max_tokens=500, temperature=0.0)
    answer = conversation.respond("Find it.")
    begun = next(answer).text + next(answer).text
    assert [piece.text for piece in conversation.stop()] == ["\n[stopped]\n"]
    assert conversation.messages[-1] == {"role": "assistant", "content": begun}
    assert list(answer) == [] and not conversation.engine.has_work
    said(conversation, "/max-tokens 4")
    assert said(conversation, "Find it.")[0] and len(conversation.messages) == 4


def test_a_signal_anywhere_within_a_step_leaves_an_engine_that_answers(reader, monkeypatch):
    """The engine in the middle of its work is thrown away, not gone on with."""
    conversation = talk(reader, temperature=0.0)
    whole = said(conversation, "Find it.")
    said(conversation, "/reset")
    with monkeypatch.context() as patch:
        patch.setattr(
            type(conversation.engine),
            "_finish",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            said(conversation, "Find it.")
    list(conversation.stop())
    said(conversation, "/reset")
    assert said(conversation, "Find it.") == whole


def test_the_second_interrupt_in_a_row_leaves(player):
    conversation = talk(player)
    list(conversation.stop())
    said(conversation, "/help")
    list(conversation.stop())
    assert not conversation.over
    assert list(conversation.stop()) == [] and conversation.over


# ---- commands


def test_seeds_and_temperatures_are_those_that_were_set(reader):
    conversation = talk(reader, max_tokens=20, temperature=2.0)

    def asked(*before):
        for line in ("/reset", *before):
            assert len(said(conversation, line)[1]) == 1
        return said(conversation, "Find it.")[0]

    seven = asked("/seed 7")
    assert asked() != seven == asked("/seed 7")
    assert asked("/seed 8") != seven
    other = talk(reader, max_tokens=20, temperature=2.0, seed=7)
    assert said(other, "Find it.")[0] == seven
    greedy = asked("/temperature 0")
    assert asked() == greedy == asked("/seed 9")


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("/temperature hot", "temperature is 'hot', expected a number"),
        ("/temperature -1", "temperature is -1.0, expected 0 (greedy) or"),
        ("/temperature nan", "temperature is nan, expected 0 (greedy) or"),
        ("/seed 1.5", "seed is '1.5', expected a whole number"),
        ("/seed", "seed is '', expected a whole number"),
        ("/max-tokens 0", "max_tokens is 0, expected at least 1"),
        ("/retry", "nothing has been asked yet"),
        ("/rest", "there is no command /rest; did you mean /reset?"),
        ("/quit-it", "there is no command /quit-it; /help lists them"),
    ],
)
def test_commands_that_are_wrong(reader, line, note):
    conversation = talk(reader)
    answer, (noted,) = said(conversation, line)
    assert answer == "" and noted.startswith(note) and noted.endswith("\n")
    assert conversation.sampling.temperature == 0.6 and not conversation.over


def test_an_empty_line_is_nothing_and_a_path_is_a_message(reader):
    conversation = talk(reader)
    assert said(conversation, "  ") == ("", [])
    assert (
        said(conversation, "/etc/hosts")[0] and conversation.messages[0]["content"] == "/etc/hosts"
    )


def test_the_last_message_is_asked_once_more(reader):
    conversation = talk(reader, max_tokens=20, temperature=2.0)
    first = said(conversation, "Find it.")[0]
    again = said(conversation, "/retry")[0]
    assert first != again and len(conversation.messages) == 2
    assert conversation.messages == [
        {"role": "user", "content": "Find it."},
        {"role": "assistant", "content": again.removesuffix("\n")},
    ]


def test_a_system_prompt_stands_above_the_conversation(reader):
    conversation, told = talk(reader, temperature=0.0), talk(reader, temperature=0.0, system="Be. ")
    prompts = []
    for one in (conversation, told):
        render = one.tokenizer.render
        one.tokenizer.render = lambda *a, render=render: prompts.append(render(*a)) or prompts[-1]
    said(told, "Find it.")
    assert said(conversation, "/system Be.")[1] == ["system prompt: Be.\n"]
    said(conversation, "Find it.")
    assert prompts[0] == prompts[-1] and "Be.<｜User｜>Find it." in prompts[0]
    said(conversation, "/system")
    said(conversation, "/reset")
    said(conversation, "Find it.")
    assert "Be." not in prompts[-1]


def test_a_template_without_a_place_for_it_refuses_a_system_prompt(reader, tmp_path):
    model, tokenizer = weights.load(reader)
    tokenizer.template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    weights.save(model, tokenizer, tmp_path / "m")
    conversation = talk(tmp_path / "m")
    assert said(conversation, "/system Be.") == (
        "",
        ["the chat template of this model has no place for a system prompt\n"],
    )
    with pytest.raises(ValueError, match="no place for a system prompt"):
        talk(tmp_path / "m", system="Be.")


def test_help_lists_every_command_and_what_the_model_reads(player):
    notes = said(talk(player), "/help")[1]
    commands = [note.split()[0] for note in notes if note.startswith("/")]
    assert commands == "/reset /retry /system /temperature /max-tokens /seed /help /exit".split()
    assert notes[-2].startswith(
        "It reads 18 words and the numbers 0 to 99, nothing else; for example: nums "
    )
    assert notes[-1].startswith("Its words: nums make : =") and "\n" not in notes[-1][:-1]


# ---- thoughts


def test_thoughts_are_told_from_what_is_said(reader, monkeypatch):
    conversation = talk(reader)
    ids = conversation.tokenizer.encode("the answer</think>it is\n<think>no")
    monkeypatch.setattr(
        subject, "stream_ids", lambda *_: iter([*ids, conversation.tokenizer.eos_id])
    )
    pieces = [piece for piece in conversation.respond("Find it.") if piece.text]
    thought, rest = ("".join(p.text for p in pieces if p.kind == k) for k in ("thought", "said"))
    assert thought == "the answer</think>" and rest == "it is\n<think>no\n"


def test_a_model_cannot_command_the_terminal(monkeypatch):
    class Screen:
        def isatty(self):
            return True

    assert cli.harmless("a\x1b]0;title\x07\r\x9bb\tc\n", Screen()) == "a�]0;title���b\tc\n"


# ---- from Python


def test_chat_answers_a_message_and_a_conversation(reader):
    model, tokenizer = weights.load(reader)
    sampling = Sampling(12, temperature=0.0)
    answer = chat(model, tokenizer, "Find it.", sampling)
    assert answer.text == tokenizer.decode(answer.token_ids) and answer.stop is StopReason.LENGTH
    conversation = talk(reader, max_tokens=12, temperature=0.0)
    assert said(conversation, "Find it.")[0] == f"{answer.text}\n"
    asked = [*conversation.messages, {"role": "user", "content": "Put it in."}]
    assert (
        f"{chat(model, tokenizer, asked, sampling).text}\n" == said(conversation, "Put it in.")[0]
    )


def test_chat_samples_as_the_command_does_by_default(reader):
    assert ChatRequest("x").sampling == USUAL


def test_chat_gives_one_answer(reader):
    model, tokenizer = weights.load(reader)
    with pytest.raises(ValueError, match="n is 2, expected 1: Engine.generate gives several"):
        chat(model, tokenizer, "Find it.", Sampling(n=2))
    with pytest.raises(ValueError, match=f"tokens, the context holds {CONTEXT}"):
        chat(model, tokenizer, "Find it. " * CONTEXT)
