"""A conversation with a model: what each line that a person types does, piece by piece as it comes.

`deepwright chat` reads the lines and prints the pieces; nothing here knows a terminal. Nothing that
a line can hold ends the conversation: what cannot be answered is a note, and the next line is
asked. An answer that is stopped (Ctrl-C) stays as far as it was said.
Left out: dropping the oldest messages where the context ends; that is said, and its user decides.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Literal, NamedTuple

from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.recipe.acquaintance import Acquaintance
from deepwright.recipe.answering import cut, open_engine, stopping, stream_ids, stream_text
from deepwright.recipe.requests import ChatRequest
from deepwright.refusals import expect, nearest, quoted
from deepwright.sampler import Completion, Sampling
from deepwright.text import Tokenizer, UnknownWord
from deepwright.text.templates import PLAIN_TEMPLATE, Message
from deepwright.text.thoughts import ThoughtParser, ends_in_thought

COMMAND = re.compile(r"/[a-z-]+")  # /etc/hosts, say, begins a message
USUAL = Sampling(1024, temperature=0.6, top_p=0.95)  # as ChatRequest has it


def chat(
    model: Transformer,
    tokenizer: Tokenizer,
    messages: str | Sequence[Message],
    sampling: Sampling = USUAL,
) -> Completion:
    """The answer to a message, or to a conversation of {"role", "content"} messages, as the model's own
    chat template renders them. `text` of what comes back is the answer, its thought included.

    ValueError where the template refuses the messages, or they leave no room in the context."""
    expect(sampling.n == 1, "n", sampling.n, "1: Engine.generate gives several")
    turns = [_said("user", messages)] if isinstance(messages, str) else messages
    prompt = tokenizer.encode(tokenizer.render(turns))
    return Engine(model, tokenizer).generate([prompt], sampling)[0]


class Piece(NamedTuple):
    """Of what is shown: said by the model, in thought or not, or noted about it, a line by itself."""

    text: str
    kind: Literal["said", "thought", "note"]


Pieces = Generator[Piece, None, None]


class Command(NamedTuple):
    """What may stand behind it, what it does, and how."""

    takes: str
    what: str
    run: Callable[[str], Iterator[Piece]]


class Conversation:
    """Keeps the messages, renders them with the model's own template, streams the answers."""

    def __init__(self, request: ChatRequest) -> None:
        self.engine, self.tokenizer, place = open_engine(request.folder, request.threads)
        config = self.engine.model.config
        self.known = Acquaintance(request.folder, place, config, self.tokenizer)
        self.sampling = stopping(request.sampling, self.tokenizer)
        # Without roles in the template, a second message would stand behind the first answer unmarked.
        self.plain = self.tokenizer.template == PLAIN_TEMPLATE
        self.alone = request.forget or self.plain
        self.system: list[dict[str, str]] = []
        self.messages: list[dict[str, str]] = []
        self.turns = 0  # answered since the seed was set
        self.over = self._leaving = self._told = False
        self._going: Pieces | None = None
        self._set_system(request.system)

    # -- what a terminal calls

    def greeting(self) -> Iterator[Piece]:
        yield _note(self.known.size)
        if made := self.known.made:
            yield _note(made)
        if reads := self.known.reads:
            yield _note(f"{reads}{self.known.for_example}")
        if self.plain:
            yield _note("Its template knows no turns: every message is answered by itself")
        yield _note("/help lists the commands, /exit or Ctrl-D leaves, Ctrl-C stops an answer")

    def respond(self, line: str) -> Pieces:
        """What comes of one line. Leaves a conversation that can go on, also when it is closed in
        the middle."""
        self._leaving = False
        self._going = self._respond(line.strip())
        return self._going

    def stop(self) -> Iterator[Piece]:
        """After Ctrl-C: in an answer it ends that; at the prompt the second one in a row leaves."""
        going, self._going = self._going, None
        if going is not None:
            going.close()
            # The engine may have been left in the middle of a step; its weights were not.
            self.engine = Engine(self.engine.model, self.tokenizer)
            yield _note("\n[stopped]")
        elif self._leaving:
            self.over = True
        else:
            self._leaving = True
            yield _note("\nCtrl-C once more, Ctrl-D or /exit leaves")

    # -- a line

    def _respond(self, line: str) -> Pieces:
        word, _, rest = line.partition(" ")
        try:
            if COMMAND.fullmatch(word):
                yield from self._command(word[1:], rest.strip())
            elif line:
                yield from self._answer(line)
        except UnknownWord as error:
            yield _note(self._unknown(error.word))
        except ValueError as error:
            yield _note(str(error))
        self._going = None

    def _answer(self, message: str) -> Pieces:
        """Each answer draws from its own random stream, so a repeated question may get another one."""
        before = [] if self.alone else self.messages
        asked = [*before, _said("user", message)]
        text = self.tokenizer.render([*self.system, *asked])
        prompt = self.tokenizer.encode(text)
        self._check_room(len(prompt), bool(before))
        answer = _said("assistant", "")
        self.messages = [*asked, answer]
        sampling = dataclasses.replace(self.sampling, seed=self.sampling.seed + self.turns)
        self.turns += 1
        ids: list[int] = []
        thought = ThoughtParser(ends_in_thought(text))
        try:
            stream = _kept(stream_ids(self.engine, prompt, sampling), ids)
            for piece in stream_text(self.tokenizer, stream):
                answer["content"] += piece
                inside = thought.inside
                thought.feed(piece)
                yield Piece(piece, "thought" if inside or thought.inside else "said")
            yield Piece("\n", "said")
        finally:
            if not answer["content"]:
                del self.messages[-2:]
        if not answer["content"]:
            yield _note("[the model ended its answer at once]")
        if where := cut(ids, sampling, self.engine.context):
            yield _note(f"[{where.replace('--max', '/max')}{self._room_again(where)}]")

    def _check_room(self, tokens: int, with_others: bool) -> None:
        context = self.engine.context
        if tokens >= context:
            what = "the conversation with this message" if with_others else "this message"
            do = "/reset begins a new one" if with_others else "say it in fewer words"
            raise ValueError(
                f"{what} has {tokens:,} tokens, the context of the model holds {context:,}: {do}"
            )

    def _room_again(self, where: str) -> str:
        return ": /reset begins a new conversation" if "context" in where and not self.alone else ""

    def _unknown(self, word: str) -> str:
        """In full once."""
        if self._told:
            return f"{quoted(word, 60)} is no word of this model's; /help lists them"
        self._told = True
        return self.known.unknown(word)

    # -- commands

    def _command(self, name: str, rest: str) -> Pieces:
        if name not in self._commands:
            hint = nearest(f"/{name}", [f"/{one}" for one in self._commands])
            raise ValueError(
                f"there is no command /{quoted(name)[1:-1]}{hint or '; /help lists them'}"
            )
        yield from self._commands[name].run(rest)

    @property
    def _commands(self) -> dict[str, Command]:
        s = self.sampling
        return {
            "reset": Command("", "begin a new conversation", self._reset),
            "retry": Command("", "ask the last message once more", self._retry),
            "system": Command(
                "TEXT", "instructions above the conversation; alone, none", self._instruct
            ),
            "temperature": Command(
                "X", f"how much chance, 0 is none; now {s.temperature:g}", self._warm
            ),
            "max-tokens": Command("N", f"of the longest answer; now {s.max_tokens:,}", self._limit),
            "seed": Command("N", f"of the random numbers; now {s.seed}", self._seed),
            "help": Command("", "this list", self._help),
            "exit": Command("", "leave, as Ctrl-D does", self._exit),
        }

    def _reset(self, rest: str) -> Iterator[Piece]:
        self.messages = []
        yield _note("a new conversation")

    def _retry(self, rest: str) -> Iterator[Piece]:
        if not self.messages:
            raise ValueError("nothing has been asked yet")
        message = self.messages[-2]["content"]
        del self.messages[-2:]
        yield from self._answer(message)

    def _instruct(self, rest: str) -> Iterator[Piece]:
        self._set_system(rest)
        yield _note(f"system prompt: {rest or 'none'}")

    def _set_system(self, text: str) -> None:
        """ValueError where the model cannot read it, or its template has no place for it."""
        text = text.strip()
        system = [_said("system", text)] if text else []
        if text:
            rendered = self.tokenizer.render([*system, _said("user", "")])
            self.tokenizer.encode(rendered)
            if text not in rendered:
                raise ValueError("the chat template of this model has no place for a system prompt")
        self.system = system

    def _warm(self, rest: str) -> Iterator[Piece]:
        self._sample_by("temperature", _number(float, "temperature", rest))
        yield _note(f"temperature {self.sampling.temperature:g}")

    def _limit(self, rest: str) -> Iterator[Piece]:
        self._sample_by("max_tokens", _number(int, "max-tokens", rest))
        yield _note(f"at most {self.sampling.max_tokens:,} tokens for an answer")

    def _seed(self, rest: str) -> Iterator[Piece]:
        self._sample_by("seed", _number(int, "seed", rest))
        self.turns = 0
        yield _note(f"seed {self.sampling.seed}")

    def _sample_by(self, name: str, value: float) -> None:
        self.sampling = dataclasses.replace(self.sampling, **{name: value})

    def _help(self, rest: str) -> Iterator[Piece]:
        named = {f"/{name} {one.takes}": one.what for name, one in self._commands.items()}
        width = max(map(len, named))
        for name, what in named.items():
            yield _note(f"{name:<{width}}  {what}")
        if reads := self.known.reads:
            yield _note(f"{reads}{self.known.for_example}")
        if words := self.known.listed():
            yield _note(words)

    def _exit(self, rest: str) -> Iterator[Piece]:
        self.over = True
        yield from ()


def _note(text: str) -> Piece:
    """A line by itself, without what would break it."""
    start = "\n" if text.startswith("\n") else ""
    return Piece(f"{start}{' '.join(text.strip().splitlines())}\n", "note")


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _kept(ids: Iterator[int], kept: list[int]) -> Iterator[int]:
    for token in ids:
        kept.append(token)
        yield token


def _number(kind: type, name: str, text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {quoted(text)}, expected {what}") from None
