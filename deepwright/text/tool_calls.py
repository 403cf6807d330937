"""Tools and tool calls of conversations: read strictly, given in the form that a template takes,
and looked for in what it wrote.

A call's arguments are an object, or JSON text of one, as OpenAI's API has them; files have both,
and templates expect one of the two. They are given as objects, which is what most expect, and as
texts to those that add them to texts (DeepSeek's) or would print Python's notation of an object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deepwright.files import parse_json
from deepwright.refusals import expect, quoted

Message = Mapping[str, Any]


def tools_of(value: Any) -> list[dict[str, Any]] | None:
    """A `tools` column: a list of objects, or JSON text of one; None where it is empty.

    A property whose schema is null is left out: no schema is null, but Arrow gives every tool of a
    file the properties of all. ValueError for anything else."""
    tools = _parsed(value, "tools")
    if not tools:
        return None
    listed = isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)
    expect(listed, "tools", value, "a list of objects, or JSON text of one")
    return [_without_null_properties(tool) for tool in tools]


def _parsed(value: Any, name: str) -> Any:
    """What a text that is not empty holds as JSON; all else as it is."""
    return parse_json(value, name) if isinstance(value, str) and value.strip() else value


def _without_null_properties(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_null_properties(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: _without_null_properties(part) for name, part in schema.items()}
    if isinstance(parts.get("properties"), dict):
        known = parts["properties"].items()
        parts["properties"] = {name: part for name, part in known if part is not None}
    return parts


def calls_of(value: Any) -> list[dict[str, Any]]:
    """A message's `tool_calls`: a list of calls, or JSON text of one; [] where there are none.

    ValueError unless each has a function's name, in itself or under `function`."""
    calls = _parsed(value, "tool_calls")
    if not calls:
        return []
    expect(isinstance(calls, list), "tool_calls", value, "a list")
    for call in calls:
        function = _function(call) if isinstance(call, dict) else None
        named = isinstance(function, dict) and isinstance(function.get("name"), str)
        given = function.get("arguments") if isinstance(function, dict) else None
        if not named or not isinstance(given, (str, dict, type(None))):
            raise ValueError(
                f"a tool call is {quoted(call, 100)}, expected an object with the name of a "
                "function and its arguments, an object or JSON text of one"
            )
    return calls


def without_foreign_nulls(
    call: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] | None
) -> Mapping[str, Any]:
    """A call without the arguments that are null and not its tool's: Arrow's, from other calls."""
    function = _function(call)
    given = function.get("arguments")
    known = [tool for tool in tools or () if named(tool) == function["name"]]
    if not isinstance(given, dict) or not known:
        return call
    parameters = _function(known[0]).get("parameters")
    declared = parameters.get("properties") if isinstance(parameters, dict) else None
    kept = {n: v for n, v in given.items() if v is not None or n in (declared or {})}
    return _with_form(call, lambda _: kept)


def _function(call: Mapping[str, Any]) -> Any:
    return call["function"] if call.get("function") is not None else call


def _calls(message: Message) -> list[Mapping[str, Any]]:
    """With the one of OpenAI's older form."""
    older = message.get("function_call")
    return [*(message.get("tool_calls") or []), *([older] if older else [])]


def rendered(
    messages: Sequence[Message], render: Callable[[Sequence[Message]], str]
) -> tuple[Sequence[Message], str]:
    """-> (the messages with their calls in a form of which the template loses nothing, what it made
    of them); in the first form that it takes at all where there is none. ValueError where it takes
    none."""
    if not any(_calls(message) for message in messages):
        return messages, render(messages)
    taken: list[tuple[Sequence[Message], str]] = []
    refused: dict[str, None] = {}  # sentences, each once
    for form in _forms(messages):
        try:
            taken.append((form, render(form)))
        except ValueError as error:
            refused[str(error)] = None
            continue
        if all(_kept(message, taken[-1][1]) for message in form):
            return taken[-1]
    if not taken:
        raise ValueError("; ".join(sentence[:350] for sentence in list(refused)[:2]))
    return taken[0]


def _forms(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Arguments as objects and as texts; a turn without words as it is written, and then the other
    way, null for an empty text."""
    for words in (lambda content: content, lambda content: "" if content is None else None):
        for arguments in (_as_object, _as_text):
            yield [_in_form(message, arguments, words) for message in messages]


def _kept(message: Message, text: str) -> bool:
    return lost_in(text, message) is None and not any(_is_python(c, text) for c in _calls(message))


def _in_form(
    message: Message, arguments: Callable[[Any], Any], words: Callable[[Any], Any]
) -> Message:
    if not _calls(message):
        return message
    changed = dict(message)
    if not message.get("content"):
        changed["content"] = words(message.get("content"))
    if message.get("function_call"):
        changed["function_call"] = _with_form(message["function_call"], arguments)
    if message.get("tool_calls"):
        changed["tool_calls"] = [_with_form(call, arguments) for call in message["tool_calls"]]
    return changed


def _with_form(call: Mapping[str, Any], form: Callable[[Any], Any]) -> dict[str, Any]:
    function = _function(call)
    given = {**function, "arguments": form(function.get("arguments"))}
    return given if function is call else {**call, "function": given}


def _as_object(arguments: Any) -> Any:
    """What is no JSON object (the code of an interpreter's call) stays a text."""
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    try:
        value = parse_json(arguments, "arguments")
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _as_text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return json.dumps({} if arguments is None else arguments, ensure_ascii=False)


def _is_python(call: Mapping[str, Any], text: str) -> bool:
    arguments = _function(call).get("arguments")
    if not isinstance(arguments, dict) or not arguments:
        return False
    return str(arguments) in text and json.dumps(arguments, ensure_ascii=False) not in text


def named(tool: Mapping[str, Any]) -> str | None:
    """The name of a tool, or of the function of a call."""
    name = _function(tool).get("name") if isinstance(_function(tool), dict) else None
    return name if isinstance(name, str) else None


def lost_in(text: str, message: Message) -> str | None:
    """The first part of a message's tool calls, a name or something in the arguments, that is not
    to be found in `text`; None where all are."""
    for call in _calls(message):
        function = _function(call)
        arguments = function.get("arguments")
        if (name := named(call) or "") not in text:
            return name
        if isinstance(arguments, str) and stands_in(arguments, text):
            continue
        for part in _leaves(_as_object(arguments)):
            if not (stands_in(part, text) if isinstance(part, str) else _written(part, text)):
                return str(part)
    return None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def stands_in(part: str, text: str) -> bool:
    """As it is, or as JSON writes it; blanks around it do not count."""
    part = part.strip()
    written = (json.dumps(part, ensure_ascii=plain)[1:-1] for plain in (False, True))
    return part in text or any(form in text for form in written)


def _written(value: Any, text: str) -> bool:
    return json.dumps(value) in text or str(value) in text
