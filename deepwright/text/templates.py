"""Chat templates: jinja2 text rendered to the same characters as by Hugging Face's
`apply_chat_template`, and two of our own.

Templates come from files of others, hence the sandbox: nothing can be reached or changed but the
messages, and a rendering ends (`metering.py`). What a template does with the reasoning of earlier
turns (drop it, keep it) is the model's own choice and stands in the template; nothing here adds to
it. Left out: tools given as Python functions (pass JSON schemas), continuing a half-written
message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import SecurityError
from jinja2.utils import missing

from deepwright.refusals import words_of
from deepwright.text.metered_jinja import MeteredEnvironment
from deepwright.text.metering import Meter

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


# Names of a message's reasoning, the usual one first.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_READS_REASONING = re.compile(
    r"""reasoning_content|(?:\.|\[['"]|get\(['"])(?:thinking|reasoning)\b"""
)
LONGEST_TEMPLATE = 100_000  # characters; the longest of released models have some 30,000
SHOWN = 200  # characters of what a template, or jinja2 about it, says

Message = Mapping[str, Any]
Spans = list[tuple[int, int]]  # places in a rendered text, in characters


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}` marks what the assistant says: rendered as it
    stands, and noted."""

    tags = frozenset({"generation"})

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _note(self, context: Any, caller: Callable[[], str]) -> str:
        text, start = caller(), context.meter.written()
        context.meter.spans.append((start, start + len(text)))
        return text


class _Dict:
    """`dict` without the type's methods, by which a template could change what it was given."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _RefusedByItself(Exception):
    """`raise_exception` in a template."""


def _refuse(message: Any) -> NoReturn:
    raise _RefusedByItself(message)


def _now(form: str) -> str:
    if len(form) > SHOWN:
        raise SecurityError(f"a form of the date of {len(form):,} characters")
    return datetime.now().strftime(form)


@lru_cache(maxsize=64)
def _compile(template: str) -> jinja2.Template:
    environment = MeteredEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _now,
        "dict": _Dict(),
    }
    return environment.template(template)


def _given(message: Message, content: Any) -> dict[str, Any]:
    """As transformers gives it to a template: without fields that are null, and with the reasoning
    under the names that templates read. `content`: what a null there becomes, or `missing`."""
    given = {name: value for name, value in message.items() if value is not None}
    if content is not missing and message.get("content", "") is None:
        given["content"] = content
    for name in REASONING_FIELDS:
        if name in given:
            return {"thinking": given[name], **given, "reasoning_content": given[name]}
    return given


def reads_reasoning(template: str) -> bool:
    """Whether a message's reasoning is looked at when it stands in a field of its own; else only reasoning in the content counts."""
    return _READS_REASONING.search(template) is not None


def marks_generation(template: str) -> bool:
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def render(
    template: str,
    messages: Sequence[Message],
    /,
    *,
    add_generation_prompt: bool,
    **variables: Any,
) -> tuple[str, Spans]:
    """The text of a conversation, and the places that the template marks as generated (none without `{% generation %}`).

    `variables`: bos_token, eos_token, tools (JSON schemas), enable_thinking, whatever the template
    reads. Templates differ in how they know a turn of tool calls alone, whose content is null:
    without the field, as transformers gives it, and failing that with null or nothing in it.
    ValueError, in a sentence of bounded length, for a template that is broken, endless or hostile,
    or that refuses these messages."""
    named = {"tools": None, "documents": None, **variables}
    named["add_generation_prompt"] = add_generation_prompt
    lacking = any(message.get("content", "") is None for message in messages)
    errors = []
    for content in (missing, None, "") if lacking else (missing,):
        try:
            return _run(template, messages, named, content)
        except Exception as error:  # whatever a file of others can raise
            errors.append(error)
            if isinstance(error, SecurityError):  # it has cost enough
                break
    raise _unrendered(errors[0]) from None


def _run(
    template: str, messages: Sequence[Message], named: dict[str, Any], content: Any
) -> tuple[str, Spans]:
    if len(template) > LONGEST_TEMPLATE:
        raise SecurityError(
            f"it has {len(template):,} characters, at most {LONGEST_TEMPLATE:,} are read"
        )
    compiled = _compile(template)
    given = [_given(message, content) for message in messages]
    context = compiled.new_context({**named, "messages": given})
    meter = context.eval_ctx.meter = Meter(named | {"messages": given})
    pieces = meter.pieces
    for piece in compiled.root_render_func(context):
        meter.spend(len(piece))
        pieces.append(piece)
    text = "".join(pieces)
    text.encode()  # refuses half characters ("\\ud800"), which no tokenizer takes
    return text, meter.spans


def _unrendered(error: Exception) -> ValueError:
    said = words_of(error, SHOWN)
    if isinstance(error, _RefusedByItself):
        return ValueError(f"the chat template refuses these messages: {said}")
    return ValueError(f"the chat template cannot be rendered: {said}")
