"""Conversations to documents with marked targets: JSONL rows of `messages`, or of `prompt` and `completion`.

    {"messages": [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "reasoning_content": "easy", "content": "4"}]}
    {"prompt": "2 + 2", "completion": "<think>easy</think> 4"}        prompt: one user message, or a list of messages
    optional in both: "tools" (JSON schemas), "chat_template_kwargs" (what else the template reads)

Only what the assistant says is a target, up to and with the end token of its turn; the line break that a template puts after it is not.
A turn's place is where the template marks it (`{% generation %}`), or else what stands between the rendered prompt and the rendered
turn. Both renderings must begin with the same characters, or training would show the model what it never sees when it is used: that is
checked, as is that nothing said got lost and that every turn ends. A completion that is a text follows its prompt untouched by the template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deepwright.files import read_rows
from deepwright.text.templates import REASONING_FIELDS, reads_reasoning
from deepwright.text.thoughts import END_THINK, THINK, split_thought
from deepwright.text.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, Any]]
Turns = Literal[
    "all", "each", "last"
]  # all turns in one document | a document for each, with the history that its prompt had | the last


@dataclass(frozen=True)
class Document:
    """ids_T int64; targets_T bool: this token is trained on (predicted from those before it)."""

    ids_T: Tensor
    targets_T: Tensor

    @property
    def length(self) -> int:
        """Positions that are computed: the last token is only a target."""
        return len(self.ids_T) - 1


def read_documents(
    path: str | Path, tokenizer: Tokenizer, length: int, turns: Turns = "all"
) -> tuple[list[Document], int]:
    """-> (documents of at most `length` positions, how many longer ones were left out: cut, they would lose their end).

    ValueError naming file and line of the first row that cannot be trained on."""
    documents: list[Document] = []
    for where, row in read_rows(Path(path)):
        try:
            documents += documents_of(row, tokenizer, turns)
        except ValueError as error:
            raise ValueError(f"{path}, {where}: {error}") from error
    kept = [document for document in documents if document.length <= length]
    if not kept:
        raise ValueError(f"{path}: none of {len(documents)} documents has at most {length} tokens")
    return kept, len(documents) - len(kept)


def documents_of(
    row: Mapping[str, Any], tokenizer: Tokenizer, turns: Turns = "all"
) -> list[Document]:
    """The documents of one row. ValueError says what is wrong with it."""
    more = row.get("chat_template_kwargs") or {}
    if not isinstance(more, dict) or {"messages", "add_generation_prompt"} & more.keys():
        raise ValueError(
            f"chat_template_kwargs is {more!r:.60}, expected an object of what else the template reads"
        )
    variables = {"tools": row.get("tools"), **more}
    if "messages" in row:
        return [
            _conversation(*part, tokenizer, variables)
            for part in _parts(_messages(row["messages"]), 0, turns)
        ]
    if not {"prompt", "completion"} <= row.keys():
        raise ValueError(f"the row has {sorted(row)}, expected messages, or prompt and completion")
    prompt, completion = row["prompt"], row["completion"]
    prompt = _messages([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)
    if not isinstance(completion, str):
        return [
            _conversation(*part, tokenizer, variables)
            for part in _parts([*prompt, *_messages(completion)], len(prompt), turns)
        ]
    if not completion.strip():
        raise ValueError("completion is empty")
    context, said = tokenizer.encode_pieces([tokenizer.render(prompt, **variables), completion])
    return [
        _document(
            [context, said if said[-1] in tokenizer.stop_ids else [*said, tokenizer.turn_end_id]]
        )
    ]


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"messages are {value!r:.60}, expected a list of at least one")
    for place, message in enumerate(value):
        fields = message if isinstance(message, dict) else {}
        texts = [
            fields.get("role"),
            fields.get("content"),
            *(fields[name] for name in REASONING_FIELDS if fields.get(name)),
        ]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"message {place} is {message!r:.60}, expected an object whose role and content are texts"
            )
    return value


def _parts(
    messages: list[dict[str, Any]], first: int, turns: Turns
) -> list[tuple[Messages, list[int]]]:
    """(messages of a document, places of the turns to train on). Turns before message `first` are context."""
    said = [
        place
        for place, message in enumerate(messages)
        if message["role"] == "assistant" and place >= first
    ]
    if not said:
        raise ValueError("no message is the assistant's, so there is nothing to train on")
    if said[0] == 0:
        raise ValueError("the first message is the assistant's, expected what it answers before it")
    if turns == "all":
        return [(messages[: said[-1] + 1], said)]
    return [(messages[: place + 1], [place]) for place in (said if turns == "each" else said[-1:])]


def _conversation(
    messages: Messages, trained: Sequence[int], tokenizer: Tokenizer, variables: Mapping[str, Any]
) -> Document:
    messages = [
        _with_reasoning(m, tokenizer) if place in trained else m for place, m in enumerate(messages)
    ]
    text = tokenizer.render(messages, False, **variables)
    marked = tokenizer.assistant_spans(messages, **variables)
    spans = (
        [_span(text, messages, place, tokenizer, variables) for place in trained]
        if marked is None
        else marked[-len(trained) :]
    )
    if len(spans) < len(trained):
        raise ValueError(
            f"the template marks {len(spans)} turns as generated, expected {len(trained)}"
        )
    for place, (start, end) in zip(trained, spans):
        _check_nothing_lost(messages[place], text[start:end], place)
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
    content = f"{THINK}\n{reasoning.strip()}\n{END_THINK}\n\n{message['content'].lstrip()}"
    return {name: value for name, value in message.items() if name not in REASONING_FIELDS} | {
        "content": content
    }


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


def _check_nothing_lost(message: Mapping[str, Any], rendered: str, place: int) -> None:
    content = message["content"]
    thought, said = split_thought(content, inside=END_THINK in content and THINK not in content)
    for part in (thought, said, *(message.get(name) or "" for name in REASONING_FIELDS)):
        if part.strip() not in rendered:
            raise ValueError(
                f"message {place}: {part.strip()[:40]!r} is lost when the template renders the turn (one that drops the reasoning, say); "
                "give the row as prompt and completion instead"
            )


def _to_the_end(ids: list[int], tokenizer: Tokenizer, place: int) -> list[int]:
    """A turn up to and with its last end token."""
    last = max((n for n, index in enumerate(ids) if index in tokenizer.stop_ids), default=None)
    if last is None:
        ends = [tokenizer.token(index) for index in tokenizer.stop_ids]
        raise ValueError(
            f"message {place} is rendered to end in {tokenizer.decode(ids[-4:], specials=True)!r}, without one of the model's end tokens "
            f"{ends}: it would never learn to stop; end = TOKEN adds the one that its template writes"
        )
    return ids[: last + 1]


def _document(pieces: Sequence[Sequence[int]]) -> Document:
    """From contexts and turns, one after the other."""
    ids = [index for piece in pieces for index in piece]
    targets = [n % 2 == 1 for n, piece in enumerate(pieces) for _ in piece]
    return Document(torch.tensor(ids, dtype=torch.int64), torch.tensor(targets))
