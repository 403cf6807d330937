"""Rows of conversations in the layouts that people have.

    messages   {"messages": [{"role": "user", "content": "2 + 2"},
                             {"role": "assistant", "reasoning_content": "easy", "content": "4"}]}
               {"prompt": "2 + 2", "completion": "<think>easy</think> 4"}   or lists of messages
    sharegpt   {"conversations": [{"from": "human", "value": "2 + 2"},
                                  {"from": "gpt", "value": "4"}]}
    alpaca     {"instruction": "Add.", "input": "2 + 2", "output": "4"}
    in all     "tools" (JSON schemas), "chat_template_kwargs" (what else the template reads)

The layout is asked for, never guessed. Messages carry marks of other trainers that say whether a
turn is trained on (`MARKS`); a mark that this one cannot follow is refused by name. The tables are
in docs/data.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from deepwright.files import parse_json
from deepwright.refusals import expect, quoted
from deepwright.text.templates import REASONING_FIELDS
from deepwright.text.tool_calls import calls_of, tools_of, without_foreign_nulls

Row = Mapping[str, Any]
Message = dict[str, Any]
Layout = Literal["messages", "sharegpt", "alpaca"]

# Marks of a message: 1 or true trains on it, 0 or false does not. OpenAI and mistral-finetune write
# weight, ms-swift and slime loss, axolotl train, verl loss_mask, Tinker trainable.
MARKS = (
    "weight", "loss", "train", "training", "trainable", "loss_mask", "step_loss_mask", "loss_scale",
    "loss_weight",
)  # fmt: skip
# A row may have them for all its messages in a list, LLaMA-Factory's loss_mask for example.
LISTS = (*MARKS, "weights", "loss_masks", "train_mask")
# What would train on a part of a turn, or by other rules: refused by name unless it says nothing.
UNFOLLOWED = (
    "train_detail", "training_detail", "reasoning_train_detail", "reasoning_training_detail",
    "mask", "masked",
)  # fmt: skip
_LIKE_A_MARK = re.compile(r"(?:^|_)(?:train|loss|mask|learn|weight)")  # of somebody unknown
# What would be left out of a conversation without a word: refused as well.
UNREAD = ("images", "image", "videos", "video", "audios", "audio", "functions")
_SHAREGPT = {
    "system": ("system",),
    "user": ("human", "user"),
    "assistant": ("gpt", "assistant", "chatgpt", "model", "bot"),
    "call": ("function_call", "tool_call"),
    "tool": ("observation", "tool", "tool_response", "function_response"),
}
_OWN = {"messages", "tools", "add_generation_prompt"}  # have a place of their own
_ROLE_OF = {name: role for role, names in _SHAREGPT.items() for name in names}


@dataclass(frozen=True)
class Conversation:
    """`completion`: a text that follows the messages as it stands. `trained`: for each message, and
    the completion if there is one, whether it may be trained on: only what the assistant says is,
    from message `first` on."""

    messages: list[Message]
    trained: list[bool]
    first: int = 0
    completion: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


def conversation_of(row: Row, layout: Layout = "messages") -> Conversation:
    """ValueError says what is wrong with the row, and which layout it may have instead."""
    for name in UNREAD:
        expect(not row.get(name), name, row.get(name), "nothing: texts and `tools` alone are read")
    tools = tools_of(row.get("tools"))
    if layout != "messages" and tools:  # LLaMA-Factory's files have the functions alone
        tools = list(map(_as_function, tools))
    read = {"messages": _messages_row, "sharegpt": _sharegpt_row, "alpaca": _alpaca_row}[layout]
    conversation = read(row)
    marks = _row_marks(row, len(conversation.trained))
    trained = [
        _trained(message, place, marks[place]) and conversation.trained[place]
        for place, message in enumerate(conversation.messages)
    ]
    trained += [mark is not False for mark in marks[len(trained) :]]
    messages = [_cleaned(message, tools) for message in conversation.messages]
    variables = {"tools": tools, **_keywords(row)}
    return replace(conversation, messages=messages, trained=trained, variables=variables)


def _keywords(row: Row) -> dict[str, Any]:
    more = row.get("chat_template_kwargs") or {}
    more = parse_json(more, "chat_template_kwargs") if isinstance(more, str) else more
    usable = isinstance(more, dict) and not _OWN & more.keys()
    expect(usable, "chat_template_kwargs", more, "an object of what else the template reads")
    documents = more.get("documents") or []
    listed = isinstance(documents, list) and all(isinstance(d, dict) for d in documents)
    expect(listed, "chat_template_kwargs: documents", documents, "a list of objects")
    return more


# ---- the layouts


def _messages_row(row: Row) -> Conversation:
    if row.get("messages") is not None:
        return _checked(row["messages"], row)
    if row.get("prompt") is None or row.get("completion") is None:
        raise ValueError(
            f"the row has {quoted(sorted(row), 120)}, expected messages, or prompt and "
            f"completion{_instead(row)}"
        )
    prompt, completion = row["prompt"], row["completion"]
    before = _checked(
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt, row
    )
    context = [False] * len(before.messages)
    if isinstance(completion, str):
        if not completion.strip():
            raise ValueError("completion is empty")
        return Conversation(before.messages, [*context, True], len(context), completion)
    after = _checked(completion, row)
    both = [*before.messages, *after.messages]
    return Conversation(both, context + after.trained, len(context))


def _instead(row: Row) -> str:
    if row.get("conversations") is not None:
        return "; --layout sharegpt reads conversations"
    return "; --layout alpaca reads instruction and output" if "instruction" in row else ""


def _sharegpt_row(row: Row) -> Conversation:
    turns = row.get("conversations") or row.get("messages")
    expect(isinstance(turns, list), "conversations", turns, "a list of from and value")
    messages = [_from_value(turn, place) for place, turn in enumerate(turns)]
    return _checked([*_system(row), *messages], {})


def _from_value(turn: Any, place: int) -> Any:
    if not isinstance(turn, dict) or turn.get("from") is None:
        return turn  # role and content under this name, or refused later
    role = _ROLE_OF.get(turn["from"]) if isinstance(turn["from"], str) else None
    if role is None:
        raise ValueError(
            f"message {place} is from {quoted(turn['from'], 60)}, expected one of "
            f"{', '.join(_ROLE_OF)}"
        )
    more = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if role != "call":
        return {**more, "role": role, "content": turn.get("value")}
    said = turn.get("value")
    call = parse_json(said, f"message {place}: the call") if isinstance(said, str) else said
    calls = calls_of(call if isinstance(call, list) else [call])
    functions = list(map(_as_function, calls))
    return {**more, "role": "assistant", "content": None, "tool_calls": functions}


def _as_function(value: Message) -> Message:
    """A tool or a call as OpenAI has them, where the function stands alone."""
    return value if "function" in value else {"type": "function", "function": value}


def _alpaca_row(row: Row) -> Conversation:
    texts = {name: row.get(name) or "" for name in ("instruction", "input", "output")}
    for name, text in texts.items():
        given = isinstance(text, str) and (name == "input" or text.strip())
        expect(bool(given), name, row.get(name), "a text")
    history = row.get("history") or []
    pairs = isinstance(history, list) and all(isinstance(p, list) and len(p) == 2 for p in history)
    expect(pairs, "history", history, "a list of pairs of an instruction and its output")
    asked = "\n".join(filter(None, (texts["instruction"], texts["input"])))
    said = [*history, [asked, texts["output"]]]
    turns = [
        {"role": role, "content": text}
        for pair in said
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return _checked([*_system(row), *turns], {})


def _system(row: Row) -> list[Message]:
    return [{"role": "system", "content": row["system"]}] if row.get("system") else []


# ---- messages


def _checked(value: Any, row: Row) -> Conversation:
    """Messages whose fields are what they should be; every assistant's turn may be trained on."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"messages are {quoted(value, 60)}, expected a list of at least one")
    if row.get("system"):
        raise ValueError(
            f"system is {quoted(row['system'], 60)}, expected it as the first of the messages"
        )
    messages = [_message(message, place) for place, message in enumerate(value)]
    return Conversation(messages, [message["role"] == "assistant" for message in messages])


def _message(value: Any, place: int) -> Message:
    fields = value if isinstance(value, dict) else {}
    for name in UNREAD:
        expect(not fields.get(name), f"message {place}: {name}", fields.get(name), "texts alone")
    if fields.get("from") is not None and fields.get("role") is None:
        raise ValueError(
            f"message {place} has from {quoted(fields['from'], 40)}, expected role and content; "
            "--layout sharegpt reads from and value"
        )
    try:
        calls, older = calls_of(fields.get("tool_calls")), fields.get("function_call")
        called = bool(calls or (older and calls_of([older])))
        content = _content(fields.get("content"))
    except ValueError as error:
        raise ValueError(f"message {place}: {error}") from None
    texts = [fields.get("role"), *(fields[n] for n in REASONING_FIELDS if fields.get(n))]
    if not called or content is not None:  # a call needs no words
        texts.append(content)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"message {place} is {quoted(value, 80)}, expected an object whose role and content "
            "are texts"
        )
    message = {**fields, "content": content, "tool_calls": calls}
    return message if calls else {n: v for n, v in message.items() if n != "tool_calls"}


def _content(value: Any) -> Any:
    """A list of parts that are all texts is their text."""
    return "".join(map(_text_part, value)) if isinstance(value, list) and value else value


def _text_part(part: Any) -> str:
    known = part if isinstance(part, dict) else {}
    said = {name for name, value in known.items() if value is not None} - {"type", "text"}
    for name in said:
        expect(name not in (*MARKS, *UNFOLLOWED), f"content: a part's {name}", known[name], "none")
    if known.get("type", "text") != "text" or not isinstance(known.get("text"), str) or said:
        raise ValueError(f"content has the part {quoted(part, 80)}, expected texts alone")
    return known["text"]


# ---- marks


def _mark(name: str, value: Any) -> bool:
    expect(
        isinstance(value, (bool, int, float)) and value in (0, 1),
        name,
        value,
        "0 or 1, or a boolean",
    )
    return bool(value)


def _row_marks(row: Row, count: int) -> list[bool | None]:
    """One for each message. A single one is for all."""
    marks: list[bool | None] = [None] * count
    for name in UNFOLLOWED:
        expect(
            not row.get(name), name, row.get(name), f"a mark of the messages: {', '.join(MARKS)}"
        )
    for name in LISTS:
        value = row.get(name)
        if value is None:
            continue
        listed = value if isinstance(value, list) else [_mark(name, value)] * count
        if len(listed) == count - 1 and row.get("system"):
            listed = [None, *listed]  # the column is no message there
        if len(listed) != count:
            raise ValueError(
                f"{name} has {len(listed)} entries, expected one for each of {count} messages"
            )
        given = [None if mark is None else _mark(name, mark) for mark in listed]
        single = not isinstance(value, list) and given[:1] == [True]
        marks = marks if single else _agreed(marks, given, name)
    return marks


def _agreed(marks: list[bool | None], given: list[bool | None], name: str) -> list[bool | None]:
    for place, (one, other) in enumerate(zip(marks, given, strict=True)):
        if None not in (one, other) and one != other:
            raise ValueError(f"message {place}: {name} contradicts another mark of the row")
    return [one if other is None else other for one, other in zip(marks, given, strict=True)]


def _trained(message: Message, place: int, mark: bool | None) -> bool:
    """Whether a turn, by its own marks and the row's, is trained on: unless one says no."""
    found = {} if mark is None else {"the row's mark": mark}
    try:
        for name, value in message.items():
            said = bool(value) if name in UNFOLLOWED else value is not None
            foreign = name in UNFOLLOWED or (name not in MARKS and _LIKE_A_MARK.search(name))
            expect(not (said and foreign), name, value, f"one of {', '.join(MARKS)}")
        found |= {n: _mark(n, message[n]) for n in MARKS if message.get(n) is not None}
    except ValueError as error:
        raise ValueError(f"message {place}: {error}") from None
    if len(set(found.values())) > 1:
        raise ValueError(f"message {place} is marked both ways: {quoted(found, 120)}")
    if True in found.values() and message["role"] != "assistant":
        raise ValueError(
            f"message {place} is marked to be trained on by {', '.join(found)}, but its role is "
            f"{quoted(message['role'], 60)}, not assistant"
        )
    return False not in found.values()


def _cleaned(message: Message, tools: list[dict[str, Any]] | None) -> Message:
    """As the template gets it: without marks."""
    rest = {name: v for name, v in message.items() if name not in (*MARKS, *UNFOLLOWED)}
    if "tool_calls" not in rest:
        return rest
    return {**rest, "tool_calls": [without_foreign_nulls(c, tools) for c in rest["tool_calls"]]}
