"""Conversations to documents with marked targets. What a row may look like: `layouts.py`.

Only what the assistant says is a target, up to and with the end token of its turn; the line break
that a template puts after it is not. Turns that are marked untrained are context like all else.

A turn's place is where the template marks it (`{% generation %}`), or else what stands between the
rendered prompt and the rendered turn. Both renderings must begin with the same characters, or
training would show the model what it never sees when it is used: that is checked, as is that
nothing said got lost, tool calls and their results included, and that every turn ends. A completion
that is a text follows its prompt untouched by the template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deepwright.data.layouts import Conversation, Layout, conversation_of
from deepwright.files import read_rows
from deepwright.refusals import quoted
from deepwright.text.templates import REASONING_FIELDS, reads_reasoning
from deepwright.text.thoughts import END_THINK, THINK, split_thought
from deepwright.text.tokenizer import Tokenizer
from deepwright.text.tool_calls import lost_in, named, rendered, stands_in

Messages = Sequence[Mapping[str, Any]]
# All turns in one document | a document for each, with the history that its prompt had | the last.
Turns = Literal["all", "each", "last"]
# Fields of a message that are read here or by nobody, and change nothing.
_INERT = {
    "role", "content", "tool_calls", "function_call", "tool_call_id", "name", *REASONING_FIELDS,
    "id", "index", "timestamp", "created_at", "date", "model", "uuid", "parent_id", "refusal",
    "annotations",
}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """ids_T int64; targets_T bool: this token is trained on (predicted from those before it)."""

    ids_T: Tensor
    targets_T: Tensor

    @property
    def length(self) -> int:
        """Positions that are computed: the last token is only a target."""
        return len(self.ids_T) - 1


@dataclass(frozen=True)
class Reading:
    """A file of conversations: its documents, and what was left out or is not read."""

    documents: list[Document]
    longest: int  # positions that a document may have: cut, it would lose its end
    too_long: int  # documents that have more
    untrained: int  # rows of which nothing is marked to be trained on
    unread: Mapping[str, int]  # fields of messages that nothing reads -> in how many rows
    hidden: Mapping[str, int]  # tools that the template does not show -> in how many documents

    def notes(self) -> list[str]:
        """What is worth saying, in sentences."""
        said = []
        if self.too_long:
            said.append(
                f"{self.too_long} documents of more than {self.longest} tokens are left out"
            )
        if self.untrained:
            said.append(f"{self.untrained} rows in which no turn is to be trained on are left out")
        if self.unread:
            said.append(f"nothing reads these fields of messages: {_counted(self.unread)}")
        if self.hidden:
            said.append(f"the template does not show these tools: {_counted(self.hidden)}")
        return said


def _counted(names: Mapping[str, int]) -> str:
    most = sorted(names.items(), key=lambda item: (-item[1], item[0]))[:8]
    more = f" and {len(names) - len(most)} more" if len(names) > len(most) else ""
    return ", ".join(f"{name[:40]} ({count} times)" for name, count in most) + more


def read_documents(
    path: str | Path,
    tokenizer: Tokenizer,
    length: int,
    turns: Turns = "all",
    layout: Layout = "messages",
) -> Reading:
    """The documents of a .jsonl, .json or .parquet file that have at most `length` positions.

    ValueError naming the file and the first row that cannot be trained on."""
    path = Path(path)
    documents: list[Document] = []
    untrained, unread, hidden = 0, Counter[str](), Counter[str]()
    for where, row in read_rows(path):
        try:
            row = _without_nulls(row) if path.suffix == ".parquet" else row
            conversation = conversation_of(row, layout)
            made = _documents(conversation, tokenizer, turns, hidden)
        except (ValueError, RecursionError) as error:  # the latter of what is nested very deeply
            raise ValueError(f"{path}, {where}: {error}") from None
        documents += made
        untrained += not made
        unread.update(_unread(conversation, tokenizer))
    kept = [document for document in documents if document.length <= length]
    if not kept:
        raise ValueError(
            f"{path}: none of {len(documents)} documents has at most {length} tokens"
            + (f"; {untrained} rows have nothing to train on" if untrained else "")
        )
    return Reading(kept, length, len(documents) - len(kept), untrained, unread, hidden)


def _without_nulls(value: Any) -> Any:
    """Arrow gives an object every field that another one of its column has, as null."""
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(part) for name, part in value.items() if part is not None}


def _unread(conversation: Conversation, tokenizer: Tokenizer) -> set[str]:
    names = {n for m in conversation.messages for n, value in m.items() if value is not None}
    return {name for name in names - _INERT if name not in tokenizer.template}


def documents_of(
    row: Mapping[str, Any],
    tokenizer: Tokenizer,
    turns: Turns = "all",
    layout: Layout = "messages",
) -> list[Document]:
    """The documents of one row; none where no turn is to be trained on. ValueError says what is
    wrong with it."""
    return _documents(conversation_of(row, layout), tokenizer, turns, Counter())


def _documents(
    conversation: Conversation, tokenizer: Tokenizer, turns: Turns, hidden: Counter[str]
) -> list[Document]:
    """`hidden`: counts the tools that the template does not show."""
    messages, variables = conversation.messages, conversation.variables
    if conversation.completion is None:
        parts = _parts(conversation, turns)
        return [_conversation(*part, tokenizer, variables, hidden) for part in parts]
    if not conversation.trained[-1]:
        return []
    _, prompt = rendered(messages, lambda form: tokenizer.render(form, **variables))
    _check_context(messages, prompt, variables, hidden)
    context, said = tokenizer.encode_pieces([prompt, conversation.completion])
    ended = said[-1:] and said[-1] in tokenizer.stop_ids
    return [_document([context, said if ended else [*said, tokenizer.turn_end_id]])]


def _parts(conversation: Conversation, turns: Turns) -> list[tuple[Messages, list[int]]]:
    """(messages of a document, places of the turns to train on)."""
    messages = conversation.messages
    own = [n for n, m in enumerate(messages) if m["role"] == "assistant"]
    if not any(place >= conversation.first for place in own):
        raise ValueError("no message is the assistant's, so there is nothing to train on")
    said = [n for n in own if n >= conversation.first and conversation.trained[n]]
    if said[:1] == [0]:
        raise ValueError("the first message is the assistant's, expected what it answers before it")
    if turns == "all":
        return [(messages[: said[-1] + 1], said)] if said else []
    return [(messages[: place + 1], [place]) for place in (said if turns == "each" else said[-1:])]


def _conversation(
    messages: Messages,
    trained: Sequence[int],
    tokenizer: Tokenizer,
    variables: Mapping[str, Any],
    hidden: Counter[str],
) -> Document:
    messages = [
        _with_reasoning(m, tokenizer) if place in trained else m for place, m in enumerate(messages)
    ]
    messages, text = rendered(messages, lambda form: tokenizer.render(form, False, **variables))
    spans = _spans(text, messages, trained, tokenizer, variables)
    for place, (start, end) in zip(trained, spans, strict=True):
        _check_nothing_lost(messages[place], text[start:end], place)
    _check_context(messages, text, variables, hidden)
    cuts = [0, *(cut for span in spans for cut in span), len(text)]
    pieces = tokenizer.encode_pieces([text[start:end] for start, end in pairwise(cuts)])
    for turn in range(1, len(pieces), 2):  # contexts and turns take turns
        said = _to_the_end(pieces[turn], tokenizer, trained[turn // 2])
        pieces[turn], pieces[turn + 1] = said, pieces[turn][len(said) :] + pieces[turn + 1]
    return _document(
        pieces[:-1]
    )  # what follows the last turn is neither trained on nor seen by what is


def _with_reasoning(message: Mapping[str, Any], tokenizer: Tokenizer) -> Mapping[str, Any]:
    """A turn's reasoning stands in its content where the template does not look at it elsewhere."""
    reasoning = next((message[name] for name in REASONING_FIELDS if message.get(name)), None)
    if reasoning is None or reads_reasoning(tokenizer.template):
        return message
    content = f"{THINK}\n{reasoning.strip()}\n{END_THINK}\n\n{(message['content'] or '').lstrip()}"
    return {name: value for name, value in message.items() if name not in REASONING_FIELDS} | {
        "content": content
    }


def _spans(
    text: str,
    messages: Messages,
    trained: Sequence[int],
    tokenizer: Tokenizer,
    variables: Mapping[str, Any],
) -> list[tuple[int, int]]:
    """Where the trained turns stand in `text`, by the template's own marks where it has any."""
    marked = tokenizer.assistant_spans(messages, **variables)
    if marked is None:
        return [_span(text, messages, place, tokenizer, variables) for place in trained]
    own = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if len(marked) != len(own):
        raise ValueError(f"the template marks {len(marked)} turns as generated, not all {len(own)}")
    return [marked[own.index(place)] for place in trained]


def _span(
    text: str, messages: Messages, place: int, tokenizer: Tokenizer, variables: Mapping[str, Any]
) -> tuple[int, int]:
    """Where turn `place` stands in `text`: behind its prompt, up to the end of the conversation that ends with it."""
    before = tokenizer.render(messages[:place], **variables)
    until = tokenizer.render(messages[: place + 1], False, **variables)
    if not until.startswith(before):
        raise ValueError(
            f"message {place}: the prompt ends in {before[-40:]!r}, the same place with the turn is {until[: len(before)][-40:]!r}: the "
            "template does not keep the prompt (one that drops reasoning, say); give the row as prompt and completion instead"
        )
    if not text.startswith(until):
        raise ValueError(
            f"message {place}: the template changes the turn when others follow it (it drops earlier reasoning, say), so one document "
            "cannot hold all turns as the model sees them: turns = each trains each in its own, turns = last only the last"
        )
    return len(before), len(until)


def _check_nothing_lost(message: Mapping[str, Any], written: str, place: int) -> None:
    content = message.get("content") or ""
    thought, said = split_thought(content, inside=END_THINK in content and THINK not in content)
    for part in (thought, said, *(message.get(name) or "" for name in REASONING_FIELDS)):
        if part.strip() not in written:
            raise _lost(part, place, "one that drops reasoning, or words beside a tool call, say")
    part = lost_in(written, message)
    if part is not None:
        raise _lost(part, place, "one that knows no tool calls, say")


def _check_context(
    messages: Messages, text: str, variables: Mapping[str, Any], hidden: Counter[str]
) -> None:
    """What the assistant answers to: calls made before and their results."""
    for place, message in enumerate(messages):
        result = message["role"] not in ("system", "developer", "user", "assistant")
        lost = lost_in(text, message)
        if result and not stands_in(message["content"] or "", text):
            lost = message["content"]
        if lost is not None:
            raise _lost(lost, place, "one that knows no tools, say")
    names = {named(tool) for tool in variables.get("tools") or ()}
    hidden.update(name for name in names if name and name not in text)


def _lost(part: str, place: int, example: str) -> ValueError:
    return ValueError(
        f"message {place}: {part.strip()[:40]!r} is lost when the template renders the turn "
        f"({example}); give the row as prompt and completion instead"
    )


def _to_the_end(ids: list[int], tokenizer: Tokenizer, place: int) -> list[int]:
    """A turn up to and with its last end token."""
    last = max((n for n, index in enumerate(ids) if index in tokenizer.stop_ids), default=None)
    if last is None:
        ends = [tokenizer.token(index) for index in tokenizer.stop_ids]
        raise ValueError(
            f"message {place} is rendered to end in {tokenizer.decode(ids[-4:], specials=True)!r}, without one of the model's end tokens "
            f"{quoted(ends)}: it would never learn to stop; end = TOKEN adds the one that its "
            "template writes"
        )
    return ids[: last + 1]


def _document(pieces: Sequence[Sequence[int]]) -> Document:
    """From contexts and turns, one after the other."""
    ids = [index for piece in pieces for index in piece]
    targets = [n % 2 == 1 for n, piece in enumerate(pieces) for _ in piece]
    return Document(torch.tensor(ids, dtype=torch.int64), torch.tensor(targets))
