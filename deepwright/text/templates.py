"""Chat templates: jinja2 text rendered to the same characters as by Hugging Face's `apply_chat_template`, and two of our own.

Templates come from files of others, hence the sandbox: nothing can be reached or changed but the messages. What a template does with
the reasoning of earlier turns (drop it, keep it) is the model's own choice and stands in the template; nothing here adds to it.
Left out: tools given as Python functions (pass JSON schemas), continuing a half-written message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"

# The prompt is the message and nothing else: for base models and for the small number vocabulary, which has no role tokens.
PLAIN_TEMPLATE = """\
{{ bos_token }}
{%- for message in messages %}
{{- message['content'] }}
{%- if message['role'] == 'assistant' %}{{ eos_token }}{% elif not loop.last %}{{ ' ' }}{% endif %}
{%- endfor %}"""

# DeepSeek's form. Reasoning before the last </think> is dropped from earlier assistant turns, as R1 does; the last
# message keeps it, because as a training target it must contain the reasoning.
DEEPSEEK_TEMPLATE = """\
{{ bos_token }}
{%- set system = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | join('\\n\\n') %}
{{- system }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}
{{- '<｜User｜>' + message['content'] }}
{%- elif message['role'] == 'assistant' %}
{%- set content = message['content'] if loop.last else message['content'].split('</think>')[-1] %}
{{- '<｜Assistant｜>' + content + eos_token }}
{%- elif message['role'] != 'system' %}
{{- raise_exception('role is ' + message['role'] + ', expected system, user or assistant') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"""


REASONING_FIELDS = (
    "reasoning_content",
    "thinking",
    "reasoning",
)  # names of a message's reasoning, the usual one first
_READS_REASONING = re.compile(
    r"""reasoning_content|(?:\.|\[['"]|get\(['"])(?:thinking|reasoning)\b"""
)
_TRACK = "generation_track"  # the variable through which a rendering hands its tracker to the tag

Spans = list[tuple[int, int]]  # places in a rendered text, in characters


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}` marks what the assistant says: rendered as it stands, and noted where asked."""

    tags = frozenset({"generation"})

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    @jinja2.pass_context
    def _note(self, context: jinja2.runtime.Context, caller: Callable[[], str]) -> str:
        text = caller()
        blocks, spans = context[_TRACK]
        start = sum(map(len, blocks))
        spans.append((start, start + len(text)))
        return text


def _refuse(message: str) -> NoReturn:
    raise ValueError(f"chat template: {message}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


@lru_cache(maxsize=64)
def _compile(template: str) -> jinja2.Template:
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=extensions
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    return environment.from_string(template)


def _named_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without empty fields, and with the reasoning under the names that templates read, whatever the caller's name for it."""
    message = {name: value for name, value in message.items() if value is not None}
    reasoning = next((message[name] for name in REASONING_FIELDS if name in message), None)
    return (
        message
        if reasoning is None
        else {"thinking": reasoning, **message, "reasoning_content": reasoning}
    )


def reads_reasoning(template: str) -> bool:
    """Whether a message's reasoning is looked at when it stands in a field of its own; else only reasoning in the content counts."""
    return _READS_REASONING.search(template) is not None


def marks_generation(template: str) -> bool:
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    **variables: Any,
) -> tuple[str, Spans]:
    """The text of a conversation, and the places that the template marks as generated (none without `{% generation %}`).

    `variables`: bos_token, eos_token, tools (JSON schemas), enable_thinking, whatever the template reads. A broken template, or one
    that refuses these messages, is a ValueError."""
    named = {
        "tools": None,
        "documents": None,
        **variables,
        "add_generation_prompt": add_generation_prompt,
    }
    blocks: list[str] = []
    spans: Spans = []
    try:
        for block in _compile(template).generate(
            messages=[_named_reasoning(m) for m in messages], **named, **{_TRACK: (blocks, spans)}
        ):
            blocks.append(block)
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"the chat template cannot be rendered: {error}") from error
    return "".join(blocks), spans
