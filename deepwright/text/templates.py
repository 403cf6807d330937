"""Chat templates, as jinja2 text that Hugging Face's `apply_chat_template` renders to the same characters.

A template writes BOS itself and `Tokenizer.encode` adds nothing, so a rendered prompt holds exactly one BOS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import jinja2
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


def _refuse(message: str) -> NoReturn:
    raise ValueError(f"chat template: {message}")


def render(template: str, messages: Sequence[Mapping[str, str]], *, bos: str, eos: str, add_generation_prompt: bool) -> str:
    """The text of a conversation. Templates come from files of others, hence the sandbox; a broken one is a ValueError."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    try:
        compiled = environment.from_string(template)
        return compiled.render(messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=add_generation_prompt)
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template cannot be rendered: {error}") from error
