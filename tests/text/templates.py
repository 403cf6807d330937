"""Chat templates in the styles of four model families, written for these tests with the features that theirs use."""

SMOLLM = """\
{% for message in messages %}
    {% if loop.first and messages[0]['role'] != 'system' %}
{{ '<|im_start|>system\\nBe helpful.<|im_end|>\\n' }}
    {% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA = """\
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n\\n' + system }}
{%- if tools is not none %}
    {%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
{%- endif %}
{{- '<|eot_id|>' }}
{%- for message in messages %}
    {%- if message.role == 'ipython' %}{{- raise_exception('no ipython here') }}{%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n' }}
    {%- for tool in tools %}{{- tool | tojson }}{{- '\\n' }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = messages | length - 1 - loop.index0 %}
    {%- if ns.searching and message.role == 'user' and message.content is string %}
        {%- set ns.searching = false %}{%- set ns.last = index %}{%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content %}{%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content.lstrip('\\n') + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

R1 = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(system='') %}
{%- for message in messages %}{%- if message['role'] == 'system' %}{%- set ns.system = message['content'] %}{%- endif %}{%- endfor %}
{{ bos_token }}{{ ns.system }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{%- endif %}
{%- if message['role'] == 'assistant' %}
{%- set content = message['content'] %}
{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}
{{ '<｜Assistant｜>' + content + eos_token }}
{%- endif %}
{%- endfor -%}
{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"""

MARKED = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# ---- tool calls, in four ways that families of models write them

TAGGED = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<call>\\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}
            {{- call.arguments | tojson }}{{- '}\\n</call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.previtem is not defined or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<result>\\n' + message.content + '\\n</result>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

ADDED = """\
{%- set ns = namespace(first=true, tool=false, system='') -%}
{%- for message in messages if message['role'] == 'system' -%}
    {%- set ns.system = ns.system + message['content'] -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}{{ '<｜User｜>' + message['content'] }}{%- endif -%}
    {%- if message['role'] == 'assistant' and message['tool_calls'] -%}
        {%- set ns.first = true -%}
        {%- for call in message['tool_calls'] -%}
            {%- set said = '<call>' + call['type'] + '<sep>' + call['function']['name'] + '\\n' + call['function']['arguments'] + '</call>' -%}
            {%- if ns.first and message['content'] is none -%}{{ '<｜Assistant｜>' + said }}
            {%- elif ns.first -%}{{ '<｜Assistant｜>' + message['content'] + said }}
            {%- else -%}{{ '\\n' ~ said }}{%- endif -%}
            {%- set ns.first = false -%}
        {%- endfor -%}{{ eos_token }}
    {%- elif message['role'] == 'assistant' -%}
        {{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + eos_token }}
    {%- elif message['role'] == 'tool' -%}
        {{ '<result>' + message['content'] + '</result>' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<｜Assistant｜>' }}{%- endif -%}"""

SINGLE = """\
{{- bos_token }}
{%- macro head(role) -%}{{ '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}{%- endmacro -%}
{%- if tools is not none %}
    {{- head('system') + 'Environment: ipython\\n' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
    {{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role in ['ipython', 'tool'] or 'tool_calls' in message) %}
        {{- head(message['role']) + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception('one call at a time') }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- head('assistant') + '{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{- '}<|eot_id|>' }}
    {%- else %}
        {{- head('ipython') }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- head('assistant') }}{%- endif %}"""

ITEMS = """\
{%- macro shown(value) %}{{- value if value is string else value | tojson }}{%- endmacro %}
{%- for message in messages %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' }}
    {%- if message.content is string %}{{- message.content }}
    {%- elif message.content is iterable and message.content is not mapping %}
        {%- for part in message.content %}{%- if part.type == 'text' %}{{- part.text }}{%- endif %}{%- endfor %}
    {%- endif %}
    {%- for call in message.tool_calls | default([], true) %}
        {{- '<call name="' ~ call.function.name ~ '">' }}
        {%- for name, value in call.function.arguments | items %}
            {{- '\\n<' ~ name ~ '>' ~ shown(value) ~ '</' ~ name ~ '>' }}
        {%- endfor %}
        {{- '\\n</call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

CALLING = {"tagged": TAGGED, "added": ADDED, "single": SINGLE, "items": ITEMS}

# ---- one construct of jinja2 each, some of them rare

CONSTRUCTS = """
{% set ns = namespace(a=1, b='x') %}{% for m in messages %}{% set ns.a = ns.a + loop.index %}
{% set ns.b = ns.b ~ ns.a %}{% endfor %}{{ ns.b }}{{ ns.missing }}

{% for m in messages[::-1] %}{{ loop.revindex0 }}{{ m.role }}{% if loop.index > 2 %}{% break %}
{% endif %}{% continue %}{{ 1 }}{% endfor %}

{% macro m(a, b='d') %}[{{ a }}|{{ b }}|{{ varargs }}|{{ kwargs }}|
{{ caller() if caller }}]{% endmacro %}
{{ m(1) }}{{ m(1, 2, 3, k='v') }}{% call m('c') %}in{% endcall %}

{% macro down(n) %}{{ n }}{% if n > 0 %}{{ down(n - 1) }}{% endif %}{% endmacro %}{{ down(5) }}
{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}.{{ loop.depth }}
{% endfor %}

{{ tools | tojson }}{{ tools | tojson(indent=4) }}{{ tools | tojson(separators=(',', ':')) }}
{{ messages[0] | tojson(sort_keys=true, ensure_ascii=true) }}{{ 'é<&>' | tojson(indent='\t') }}

{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}
{{ messages | rejectattr('role', 'in', ['user', 'tool']) | list | length }}

{% set first, rest = messages[0], messages[1:] %}{{ first.role }}{{ rest | length }}
{{ messages[-1]['content'][:3] }}{{ messages[1:2][0].content }}

{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}
{% for k in messages[0] | sort %}{{ k }}{% endfor %}{% for k, v in messages[0] | dictsort %}
{{ k }}{{ v }}{% endfor %}{{ messages[0].get('nothing', 'else') }}

{{ 'a-b-c'.split('-', 1)[1] }}{{ '  x '.strip() }}{{ '\\nx'.lstrip('\\n') }}
{{ 'xx.'.rstrip('.') }}{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('c', 'd')) }}
{{ 'aXb'.replace('X', '--') }}{{ 'a b'.title() }}

{% if messages[0].content is string and messages[0].nothing is not defined and none is none
and 1 is number and [] is iterable and {} is mapping and not 'a' is mapping %}yes{% else %}no
{% endif %}

{% for m in messages %}{{ loop.cycle('a', 'b') }}{{ loop.changed(m.role) }}
{{ loop.previtem.role }}{{ loop.nextitem.role if not loop.last }}{{ loop.first }}
{{ loop.length }}{% endfor %}

{% set text %}  {{ messages[0].content }} {% if true %}y{% endif %}
{% endset %}[{{ text }}]{% filter upper | trim %} {{ text }}é {% endfilter %}
{{ text is string }}

{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 5 }}{{ 7 / 2 }}{{ -3 + 1 }}{{ 3 * 'ab' }}{{ [1] * 2 + [3] }}
{{ 1 + 2 * 3 - 4 }}{{ 'a' ~ 1 ~ none ~ [2] ~ 1.5 }}{{ '%s is %05.1f' % ('x', 2) }}
{{ '{}-{k}'.format(1, k=2) }}

{{ (1, 2) }}{{ [1, 'a', none, true] }}{{ {'a': [1, {'b': 2}]} }}{{ range(3) | list }}
{{ dict(a=1, b=messages[0].role) }}{{ 'a' in 'abc' }}{{ 1 in [1] }}{{ 'role' in messages[0] }}
{{ 'x' not in messages[0].content }}{{ 1 < 2 < 3 }}

{{ 'a' if messages else 'b' }}{{ nothing | default('d') }}{{ '' | default('e', true) }}
{{ nothing }}{{ nothing is defined }}{{ messages | first == messages[0] }}{{ messages | last }}
{{ (messages | length) > 1 and 'x' or 'y' }}

{{ [3, 1, 2] | sort | join }}{{ ['b', 'B', 'a'] | unique | join }}
{{ [1, 2, 3, 4, 5] | batch(2, 0) | list }}
{{ messages | groupby('role') | map('first') | join(',') }}{{ [1, 2] | sum }}
{{ 'abc' | reverse }}{{ [1, 2] | max }}{{ 2.567 | round(1) }}{{ '5' | int + 1 }}

{{ 'a b' | capitalize }}{{ 'x' | center(5) }}{{ 'a\\nb' | indent(2) }}{{ '<b>' | escape }}
{{ 'a<b' | e ~ '<' }}{{ 'long text here' | truncate(8) }}{{ 'a b' | urlencode }}
{{ 'a b c' | wordcount }}{{ 'x' | string }}{{ 'abc' | list }}{{ 'a' | upper }}
{{ 'some words to wrap' | wordwrap(6) }}{{ '<i>t</i>' | striptags }}

{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}
{% set j = joiner('; ') %}{{ j() }}x{{ j() }}y{% with q = 5 %}{{ q }}{% endwith %}{{ q }}
{% autoescape true %}{{ '<' ~ '>' }}{{ '<' + '>' }}{% endautoescape %}

{% block body %}{% for m in messages %}{{ m.role }}{% endfor %}{% endblock %}{{ self.body() }}
{{ strftime_now('%Y') | length }}{{ documents }}{{ tools is none }}{{ bos_token ~ eos_token }}

{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content | trim }}
{% else %}none{% endfor %}{% for m in [] %}{% else %}empty{% endfor %}
{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}

{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}
{% macro g(x) %}{% generation %}{{ x }}{% endgeneration %}{% endmacro %}{{ g('in a macro') }}

{{ messages[0].content + 1 }}

{{ messages.x.y }}

{{ raise_exception('no ' + messages[0].role) }}

{{ namespace(_a=1) }}

{% set ns = namespace() %}{% set ns._a = 1 %}

{{ messages.append(1) }}

{{ dict.mro() }}

{{ {} | attr('__class__') }}

{{ nothing | tojson }}

{{ range(10 ** 9) }}

{% import 'x' as y %}

{{ 1 / 0 }}""".strip().split("\n\n")
CONSTRUCTS += [  # blanks that tags take away, or keep
    "  {%- set a = 'b' -%}  \n {{- a }} \n{% if a %}\n   x\n{% endif %}\n{{ a -}}   \n\t.\n",
    "  {%+ if true %} y {%+ endif %}\n{# nothing #}\n  {% raw %}{{ a }}{% endraw %}\n\n",
]

FAMILIES = {"smollm": SMOLLM, "llama": LLAMA, "qwen": QWEN, "r1": R1, "marked": MARKED}
EOS = {"llama": "<|eot_id|>", "r1": "<｜end▁of▁sentence｜>"}
BOS = {"smollm": "<|im_start|>", "llama": "<|begin_of_text|>", "r1": "<｜begin▁of▁sentence｜>"}
SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
)  # fmt: skip
EOS = {family: EOS.get(family, "<|im_end|>") for family in FAMILIES}
BOS = {family: BOS.get(family) for family in FAMILIES}
