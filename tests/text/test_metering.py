"""Templates that would run or grow for ever end in a sentence, soon and in little memory; ordinary ones do not notice."""

import json
import statistics
import subprocess
import sys
import time

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deepwright.text import metering
from deepwright.text.metered_jinja import Namespace
from deepwright.text.metering import Meter, size
from deepwright.text.templates import render
from tests.text.template_grammar import LARGE, Grammar
from tests.text.templates import FAMILIES

CHAT = [
    {"role": "user", "content": "hello " * 20},
    {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "f"}}]},
]
LONG = "{% for i in range(99999) %}"


def forever(body: str, before: str = "") -> str:
    """Ten thousand million turns."""
    return f"{before}{LONG}{LONG}{body}{{% endfor %}}{{% endfor %}}"


def doubled(step: str, start: str = "'ab'", end: str = "{{ ns.x }}") -> str:
    """2 ** 60 of something."""
    return (
        f"{{% set ns = namespace(x={start}) %}}{{% for i in range(60) %}}{step}{{% endfor %}}{end}"
    )


BIG = "{% set big = 'x' * 9000000 %}{% set many = [0] * 900000 %}"
DEEP = doubled("{% if i < 18 %}{% set ns.x = [ns.x, ns.x] %}{% endif %}", "[1]", "")
ATTACKS = {
    "loops": forever(""),
    "loops with a test": f"{LONG}{{% for i in range(99999) if i < 0 %}}{{% endfor %}}{{% endfor %}}",
    "text in loops": f"{LONG}{'x' * 90000}{{% endfor %}}",
    "text in a macro": f"{{% macro m() %}}{LONG}{'x' * 90000}{{% endfor %}}{{% endmacro %}}{{{{ m() }}}}",
    "text in a block": f"{{% block b %}}{'x' * 90000}{{% endblock %}}{LONG}{{{{ self.b() }}}}{{% endfor %}}",
    "text in a set": f"{{% set x %}}{LONG}{'x' * 90000}{{% endfor %}}{{% endset %}}",
    "a macro that calls itself": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "a macro that calls itself twice":
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "calls of calls":
        "{% macro m(n) %}{% if n %}{% call m(n - 1) %}{{ caller() }}{% endcall %}{% call m(n - 1) %}{% endcall %}{% endif %}{% endmacro %}{{ m(60) }}",
    "a loop that calls itself": "{% for x in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "a block in itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "x * n": "{{ 'x' * 10 ** 9 }}",
    "n * [x]": "{{ (10 ** 9 * [1]) | length }}",
    "-n": "{{ 'x' * -10 ** 9 }}",
    "x * 0 of much": forever("{% set y = ns.x * 0 %}", DEEP),
    "powers": "{{ 10 ** 99 ** 99 }}",
    "squares": doubled("{% set ns.x = ns.x * ns.x %}", "3"),
    "long division": forever("{% set z = x // y %}", "{% set x = ('9' * 4000) | int %}{% set y = 7 ** 900 %}"),
    "a remainder": forever("{% set z = x % y %}", "{% set x = ('9' * 4000) | int %}{% set y = 7 ** 900 %}"),
    "+": doubled("{% set ns.x = ns.x + ns.x %}"),
    "+ of lists": doubled("{% set ns.x = ns.x + ns.x %}", "['ab']"),
    "~": doubled("{% set ns.x = ns.x ~ ns.x %}"),
    "set": doubled("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
    "nested lists": doubled("{% set ns.x = [ns.x, ns.x] %}", "[1]"),
    "nested tuples as a key": doubled("{% set ns.x = (ns.x, ns.x) %}", "(1,)", "{{ {ns.x: 1} }}"),
    "nested objects": doubled("{% set ns.x = {'a': ns.x, 'b': ns.x} %}", "{}", "{{ ns.x | tojson }}"),
    "nested dict()": doubled("{% set ns.x = dict(a=ns.x, b=ns.x) %}", "{}"),
    "fromkeys": doubled("{% set ns.x = dict.fromkeys('ab', ns.x) %}", "{}"),
    "fromkeys of an object": doubled("{% set ns.x = {}.fromkeys('ab', ns.x) %}", "{}"),
    "cyclers": doubled("{% set c = cycler(ns.x, ns.x) %}{% set ns.x = c.items %}"),
    "arguments": "{% macro m(n) %}{% if n %}{{ m(n - 1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}{% endmacro %}{{ m(60, 1, 2) }}",
    "keywords": "{% macro m(n) %}{% if n %}{{ m(n - 1, a=kwargs, b=kwargs) }}{% else %}{{ kwargs }}{% endif %}{% endmacro %}{{ m(60, a=1) }}",
    "default": BIG + "{{ range(99999) | map('default', big, true) | list | length }}",
    "an attribute of many": "{% set a = {'x': 'y' * 1000000} %}{{ ([a] * 1000) | map(attribute='x') | list | length }}",
    "join": "{{ range(99999) | join('x' * 10000) }}",
    "join, the method": "{{ ('x' * 10000).join(range(99999) | map('string')) }}",
    "join of itself": doubled("{% set ns.x = ns.x | join(ns.x) %}"),
    "replace": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "replace, the filter": "{{ ('a' * 100000) | replace('', 'b' * 100000) }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "center": "{{ 'x' | center(1000000000) }}",
    "ljust": "{{ 'x'.ljust(10 ** 9) }}",
    "zfill": "{{ 'x'.zfill(10 ** 9) }}",
    "tabs": "{{ ('\t' * 100000).expandtabs(100000) }}",
    "indent": "{{ ('x\n' * 100000) | indent('y' * 10000, true) }}",
    "batch": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "slice": "{{ [1] | slice(10 ** 9, 0) | list }}",
    "wordwrap": "{{ ('a ' * 1000000) | wordwrap(1) }}",
    "sum": forever("{{ many | sum(start=[]) | length }}", "{% set many = [[0] * 300] * 300 %}"),
    "round": "{{ 1.5 | round(100000000, 'floor') }}",
    "width": "{{ '%1000000000d' % 1 }}",
    "width, the filter": "{{ '%1000000000d' | format(1) }}",
    "width from a value": "{{ '%*d' % (10 ** 9, 1) }}",
    "width, format": "{{ '{:1000000000}'.format(1) }}",
    "width from a value, format": "{{ '{0:{1}}'.format(1, 10 ** 9) }}",
    "width, format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "width, safe": "{{ ('{:1000000000}' | safe).format(1) }}",
    "digits": "{{ '%.1000000000f' % 1 }}",
    "many fields": "{{ ('{0}' * 100000).format('x' * 100000) }}",
    "many markers": "{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}",
    "JSON, indented": "{{ range(99999) | list | tojson(indent=100000) }}",
    "JSON, separated": "{{ range(99999) | list | tojson(separators=('x' * 10000, 'y')) }}",
    "JSON, again and again": forever("{% set y = x | tojson %}", "{% set x = range(9999) | list %}"),
    "the date": "{{ strftime_now('%Y' * 100000) }}",
    "bytes": "{{ 'x'.encode().ljust(10 ** 9) }}",
    "bytes of a number": "{{ (5).to_bytes(10 ** 9, 'big') }}",
    "lorem ipsum": "{{ lipsum(100000) }}",
    "==": forever("{% if big == big2 %}{% endif %}", BIG + "{% set big2 = 'x' * 9000000 %}"),
    "== of lists": forever("{% if ns.x == [ns.x] %}{% endif %}", DEEP),
    "is eq": forever("{% if big is eq big2 %}{% endif %}", BIG + "{% set big2 = 'x' * 9000000 %}"),
    "in": forever("{% if 'y' in big %}{% endif %}", BIG),
    "in a range": forever("{% if 'y' in range(99999) %}{% endif %}"),
    "in a list": forever("{% if 'y' in many %}{% endif %}", BIG),
    "is in": forever("{% if 'y' is in big %}{% endif %}", BIG),
    "count": forever("{% set n = big.count('y') %}", BIG),
    "count in a list": forever("{% set n = many.count('y') %}", BIG),
    "a key that is large": forever("{% if d[t] %}{% endif %}", "{% set t = (1, 2) * 900000 %}{% set d = {} %}"),
    "parts": forever("{% set y = big[1:] %}", BIG),
    "parts of a list": forever("{% set y = many[1:] %}", BIG),
    "sort": forever("{% set y = many | sort %}", BIG),
    "a long way to an attribute": "{{ (['a'] * 5000) | map(attribute='" + "0." * 40000 + "0') | list }}",
    "a long way to what is sorted": forever("{{ (['a'] * 500) | sort(attribute='" + "0." * 4000 + "0') }}"),
    "a long way in a format": forever("{{ ('{0' + '[0]' * 100000 + '}').format('a') }}"),
    "words": forever("{% set n = many | wordcount %}", BIG),
    "letters one by one": forever("{{ big | select('in', '') | list }}", BIG),
    "a chain of filters": "{{ range(99999)" + " | map('string')" * 90 + " | join }}",
    "many sums": BIG + "{{ " + "+".join(["big"] * 5000) + " }}",
    "many ~": BIG + "{{ " + "~".join(["big"] * 5000) + " }}",
    "many lists": "{% set a = [0] * 100000 %}{{ (" + "+".join(["a"] * 5000) + ") | length }}",
    "many outputs": BIG + "{{ big }}" * 9000,
    "the counter turned back": "{{ [-10 ** 12] | map('+turn') | list }}" + forever(""),
    "missing fields": f"{LONG}{'{% if messages[0].zz %}{% endif %}' * 2500}{{% endfor %}}",
    "calls": f"{LONG}" + "{{ ''.strip() }}" * 5000 + "{% endfor %}",
    "namespaces": f"{LONG}" + "{% set n = namespace(a=1) %}" * 3000 + "{% endfor %}",
    "neighbours": f"{LONG}" + "{{ loop.previtem }}{{ loop.length }}" * 2500 + "{% endfor %}",
    "brackets": "{{ " + "(" * 20000 + ")" * 20000 + " }}",
    "not not": "{{ " + "not " * 20000 + "1 }}",
    "a . a": "{{ messages" + ".a" * 20000 + " }}",
    "1 + 1": "{{ " + "1+" * 40000 + "1 }}",
    "if": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "elif": "{% if a %}" + "{% elif a %}" * 7000 + "{% endif %}",
    "long": "{{ a }}" * 100_000,
}  # fmt: skip


def ends_soon(attack):
    started = time.process_time()
    with pytest.raises(ValueError, match="chat template") as caught:
        render(attack, CHAT, add_generation_prompt=True)
    # 20 million units of some 20 ns are given; what jinja2 itself does for a unit takes up to three
    # times as long, and a busy machine as long again.
    assert time.process_time() - started < 5
    assert len(str(caught.value)) < 300


@pytest.fixture
def a_tenth(monkeypatch):
    """Of the allowance, so that a hundred attacks take seconds."""
    monkeypatch.setattr(metering, "UNITS", metering.UNITS // 10)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_ends_in_one_sentence(name, a_tenth):
    ends_soon(ATTACKS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_it_ends_soon_with_the_whole_allowance(name):
    ends_soon(ATTACKS[name])


GROW = ("x * n", "+", "~", "set", "join", "replace", "indent", "many fields", "JSON, indented", "nested lists",
        "many sums", "many outputs", "text in a set", "letters one by one")  # fmt: skip
# All but one, at which Python's compiler always says MemoryError.
ALL = [name for name in ATTACKS if name != "elif"]


def within(gigabytes, units, names):
    """Those that end by themselves in a process that may have no more."""
    program = (
        "import json, resource, sys\n"
        "from deepwright.text import metering\n"
        "from deepwright.text.templates import render\n"
        "chat, attacks = json.load(sys.stdin)\n"
        "metering.UNITS, more = int(sys.argv[1]), int(sys.argv[2]) << 30\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))\n"
        "for name, attack in attacks.items():\n"
        "    try:\n"
        "        render(attack, chat, add_generation_prompt=True)\n"
        "    except ValueError as error:\n"
        "        print(name if 'Memory' not in str(error) else 'no memory')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(units), str(gigabytes)], input=json.dumps([CHAT, {name: ATTACKS[name] for name in names}]),
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    return done.stdout.split("\n")[:-1]


def test_no_attack_needs_much_memory():
    assert within(1, metering.UNITS, GROW) == [*GROW]


@pytest.mark.slow
def test_no_attack_at_all_needs_much_memory():
    assert within(1, metering.UNITS, ALL) == ALL


def hostile(seeds):
    """Random templates with large numbers: rendered, or refused in a sentence, each in seconds."""
    for seed in seeds:
        started = time.process_time()
        try:
            render(Grammar(seed, LARGE).template(), CHAT, add_generation_prompt=True)
        except ValueError as error:
            assert len(str(error)) < 300, seed
        assert time.process_time() - started < 5, seed


def test_random_hostile_templates_end(a_tenth):
    hostile(range(60))


@pytest.mark.slow
def test_thousands_of_random_hostile_templates_end():
    hostile(range(1000, 4000))


def conversation(messages: int, characters: int) -> list[dict[str, str]]:
    chat = []
    for n in range(messages // 2):
        chat.append({"role": "user", "content": f"{n} " + "u" * characters})
        chat.append({"role": "assistant", "content": "a" * characters})
    return chat


@pytest.mark.parametrize("messages, characters", [(1000, 20), (200, 10_000), (10, 200_000)])
@pytest.mark.parametrize("name", FAMILIES)
def test_long_conversations_are_rendered(name, messages, characters):
    chat = conversation(messages, characters)
    text, _ = render(FAMILIES[name], chat, add_generation_prompt=True, bos_token="", eos_token="")
    assert text.count("u" * characters) == messages // 2


def test_what_a_long_conversation_may_cost_follows_from_its_size():
    meter = Meter({"messages": conversation(100, 1000)})
    before = meter.left
    meter.spend(before + 40_000_000)  # more than 100,000 characters: 400 units each
    with pytest.raises(jinja2.TemplateError, match="more than any conversation needs"):
        meter.spend(metering.MOST_UNITS)


@pytest.mark.parametrize(
    "value, expected",
    [
        ("", 8),
        ("abc", 11),
        (None, 8),
        ([], 8),
        (["a", "b"], 8 + 2 * 8 + 2),
        ({"a": "xyz"}, 8 + 2 * 8 + 1 + 3),
        ([["a"], ("b",)], 8 + 2 * 8 + 2 * 8 + 2),
        (range(3), 8 + 3 * 8),
        ({"a": 1}.items(), 8 + 8 + 2 * 8 + 1),
        (2**80, 8 + 10),
        (Namespace(x="long" * 100), 8),
    ],
)
def test_sizes(value, expected):
    assert size(value) == expected


def test_a_size_beyond_the_limit_is_not_looked_at_to_its_end():
    value = ["x"]
    for _ in range(200):
        value = [value, value]  # 2 ** 200 members
    assert 1000 < size(value, 1000) < 10_000


def test_names_and_values_of_templates_are_theirs():
    """Words that the hooks and jinja2 use inside may stand in a template too."""
    text = (
        "{% macro m(context, environment, meter, obj) %}{{ context }}{{ meter }}{{ obj }}"
        "{% endmacro %}{{ m(context=1, environment=3, meter=4, obj=5) }}"
        "{% set eval_ctx = 6 %}{{ eval_ctx }}{{ turn }}{{ dict(name=7, args=8) }}"
    )
    ours = render(text, CHAT, add_generation_prompt=False, turn=9, name="n", args="a")[0]
    assert ours == "14569{'name': 7, 'args': 8}"


@pytest.mark.slow
def test_counting_costs_less_than_a_fifth():
    """Against the same templates in jinja2's sandbox alone, alternating."""
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    plain.globals["strftime_now"] = lambda form: "1 Jan"
    chat, ratios = conversation(20, 300), []
    for template in (FAMILIES[name] for name in ("smollm", "llama", "qwen", "r1")):
        compiled, times = plain.from_string(template), ([], [])
        variables = {"bos_token": "", "eos_token": "", "tools": None}

        def theirs(compiled=compiled, variables=variables):
            return "".join(
                compiled.generate(messages=chat, add_generation_prompt=True, **variables)
            )

        def ours(template=template, variables=variables):
            return render(template, chat, add_generation_prompt=True, **variables)[0]

        for _ in range(60):
            for rendering, took in zip((theirs, ours), times, strict=True):
                started = time.process_time()
                for _ in range(5):
                    rendering()
                took.append(time.process_time() - started)
        ratios.append(min(times[1]) / min(times[0]))
    assert statistics.median(ratios) < 1.2, ratios
