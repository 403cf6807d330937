"""Wrong twins of the conversation and of what Python is given: each makes a mistake that somebody who talks
to a model would meet, and a named check must reject it."""

import dataclasses

import pytest

from deepwright.inference.engine import Engine
from deepwright.recipe import acquaintance, chat
from deepwright.recipe.requests import ChatRequest
from deepwright.sampler import Sampling
from tests.broken.patched import must_reject
from tests.recipe.player import PROMPT, save_player


def player(folder):
    save_player(folder / "m", max_position_embeddings=128)
    return chat.Conversation(ChatRequest(str(folder / "m"), max_tokens=6, threads=1))


def said(conversation, line):
    return [tuple(piece) for piece in conversation.respond(line)]


def what_cannot_be_read_leaves_no_trace(tmp_path):
    """After an unknown word a conversation is what it was before."""
    conversation = player(tmp_path)
    conversation.alone = False
    before = said(conversation, "/temperature 0") and said(conversation, PROMPT)
    said(conversation, "/reset")
    assert len(said(conversation, "Hello")) == 1
    assert said(conversation, PROMPT) == before


def cut_answers_are_marked(tmp_path):
    notes = [text for text, kind in said(player(tmp_path), PROMPT) if kind == "note"]
    assert notes == ["[cut at 6 tokens: /max-tokens N allows more]\n"]


def a_stranger_is_shown_what_can_be_asked(tmp_path):
    """The example that a model of words is shown by is one that it answers."""
    conversation = player(tmp_path)
    (note,) = said(conversation, "Hello")
    example = note[0].rpartition("for example: ")[2].strip()
    assert any(kind == "said" and text.strip() for text, kind in said(conversation, example))


def texts_are_those_of_the_ids(tmp_path):
    conversation = player(tmp_path)
    engine, tokenizer = conversation.engine, conversation.tokenizer
    answers = engine.generate(PROMPT, Sampling(5, n=3))
    assert [answer.text for answer in answers] == [
        tokenizer.decode(answer.token_ids) for answer in answers
    ]
    assert not any("nums 3 7 1 make 20" in answer.text for answer in answers)


# --- the mistakes


def kept_before_it_is_read(original):
    def answer(self, message):
        self.messages = [*self.messages, {"role": "user", "content": message}]
        yield from original(self, message)

    return answer


def never_cut(_):
    return lambda *given: ""


def an_example_in_words_of_ours(_):
    return property(lambda self: "What is 3 + 4?")


def with_the_prompt_in_front(original):
    def generate(self, prompts, sampling):
        found = original(self, prompts, sampling)
        return [dataclasses.replace(one, text=f"{prompts} {one.text}") for one in found]

    return generate


TWINS = [
    (what_cannot_be_read_leaves_no_trace, chat.Conversation, "_answer", kept_before_it_is_read),
    (cut_answers_are_marked, chat, "cut", never_cut),
    (a_stranger_is_shown_what_can_be_asked, acquaintance.Acquaintance, "example", an_example_in_words_of_ours),
    (texts_are_those_of_the_ids, Engine, "generate", with_the_prompt_in_front),
]  # fmt: skip


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[twin[3].__name__ for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
