"""Random chat templates from a small grammar: texts, lists and numbers made from each other by everything jinja2 offers.

With small numbers they are compared with transformers, with large ones they must come to an end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

SMALL = ("0", "1", "2", "3", "-1", "ns.n")
LARGE = ("3", "60", "1000", "99999", "10 ** 9", "ns.n", "(ns.x | length)", "(ns.y | length)")
PLAIN_FILTERS = ("upper", "lower", "title", "trim", "capitalize", "escape", "urlencode", "safe", "striptags", "string", "e")  # fmt: skip
EACH_FILTERS = ("string", "upper", "length", "tojson", "title", "list", "replace('a', 'bb')")


class Grammar:
    """One random template after the other; equal seeds give equal ones."""

    def __init__(self, seed: int, numbers: tuple[str, ...] = SMALL) -> None:
        self.random = Random(seed)
        self.numbers = numbers

    def template(self) -> str:
        head = "{% set ns = namespace(x='ab', y=['c', 'd'], n=3, z=none) %}{% set item = 1 %}"
        macro = "{% macro m(a, b='e') %}{{ a }}{{ varargs }}{{ b ~ a }}{{ kwargs | length }}{% endmacro %}"
        return head + macro + "".join(self.statement(2) for _ in range(self.random.randrange(2, 7)))

    def pick(self, *makers: Callable[[int], str]) -> Callable[[int], str]:
        return self.random.choice(makers)

    def any(self, depth: int) -> str:
        return self.pick(self.text, self.text, self.list, self.number)(depth)

    def number(self, depth: int) -> str:
        if depth <= 0 or self.numbers is SMALL:
            return self.random.choice(self.numbers)
        one, two, text = self.number(depth - 1), self.number(depth - 1), self.text(depth - 1)
        forms = (
            f"({one} + {two})",
            f"({one} - {two})",
            f"({one} * {two})",
            f"({one} // 2)",
            f"({one} % 3)",
            f"({text} | length)",
            f"{text}.count('a')",
            f"({one} ** 2)",
            f"({self.list(depth - 1)} | list).index('a') if 'a' in {self.list(depth - 1)} else {one}",
        )
        return f"({self.random.choice(forms)})"

    def text(self, depth: int) -> str:
        names = ("ns.x", "ns.x", "messages[0].content", "messages[1]['content']", "'ab'", "' a\\n'", "'<é>'", "(item | string)", "(ns.z or 'z')")  # fmt: skip
        if depth <= 0:
            return self.random.choice(names)
        one, two = self.text(depth - 1), self.text(depth - 1)
        some, number, items = self.any(depth - 1), self.number(depth - 1), self.list(depth - 1)
        forms = (
            f"({one} + {two})",
            f"({one} ~ {some} ~ {two})",
            f"({one} * {number})",
            f"({one} + ': ' + {two} + '\\n' + {one} + '.' + {two} + '!')",
            f"{one}.replace({two}, {one})",
            f"({one} | replace('a', {two}))",
            f"({items} | join({two}))",
            f"{one}.join({items} | map('string'))",
            f"({some} | string)",
            f"({some} | tojson)",
            f"({some} | tojson(indent=2))",
            f"({one} | {self.random.choice(PLAIN_FILTERS)})",
            f"({one} | indent({number}, true))",
            f"({one} | center({number}))",
            f"({one} | truncate(9))",
            f"{one}.ljust({number}, '.')",
            f"{one}.{self.random.choice(('strip', 'lstrip', 'rstrip', 'upper', 'title', 'swapcase'))}()",
            f"{one}[{number}:]",
            f"{one}[::-1]",
            f"m({some})",
            f"m({some}, {one}, 3, k=4)",
            f"('%s, %s' % ({some}, {one}))",
            f"'{{}} {{0}}'.replace('{{}} ', '').format({some})",
            f"({one} if {self.condition(depth - 1)} else {two})",
            f"(({items} | first) | default('none', true) | string)",
        )
        return self.random.choice(forms)

    def list(self, depth: int) -> str:
        names = ("ns.y", "ns.y", "messages", "[1, 'b', none]", "range(5)", "'abc'", "messages[0].values()", "messages[1].items()")  # fmt: skip
        if depth <= 0:
            return self.random.choice(names)
        one, some, number = self.list(depth - 1), self.any(depth - 1), self.number(depth - 1)
        text = self.text(depth - 1)
        forms = (
            f"({one} | list + {self.list(depth - 1)} | list)",
            f"[{some}, {self.any(depth - 1)}]",
            f"({some}, {self.any(depth - 1)})",
            f"({one} | list)",
            f"({one} | list * {number})",
            f"({text} | list)",
            f"{text}.split('a')",
            f"{text}.splitlines()",
            f'({one} | map("string") | map("{self.random.choice(EACH_FILTERS[:5])}") | list)',
            f"({one} | map('default', {some}, true) | list)",
            f"({one} | batch(2, {some}) | list)",
            f"({one} | list | slice(2, {some}) | list)",
            f"({one} | map('string') | sort)",
            f"({one} | map('string') | unique | list)",
            f"({one} | list)[{number}:]",
            f"({one} | list)[::-1]",
            f"(dict(a={some}, b={text}).values() | list)",
            f"({{'a': {some}, 'b': {text}}} | items | list)",
            f"(messages | selectattr('role', 'equalto', {text}) | map(attribute='content') | list)",
            "(messages | rejectattr('name', 'defined') | list)",
            f"({one} | select('string') | list)",
            f"({one} | reject('in', {self.list(depth - 1)} | list) | list)",
            f"({one} | map('string') | groupby(0) | map('first') | list)",
            f"([[{some}], {one} | list] | sum(start=[]))",
        )
        return self.random.choice(forms)

    def condition(self, depth: int) -> str:
        forms = (
            f"{self.any(depth)} == {self.any(depth)}",
            f"{self.any(depth)} != {self.any(depth)}",
            f"{self.any(depth)} in {self.list(depth)} | list",
            f"{self.text(depth)} not in {self.text(depth)}",
            f"{self.number(depth)} < {self.number(depth)}",
            f"{self.any(depth)} is {self.random.choice(('string', 'mapping', 'iterable', 'none', 'defined', 'sequence'))}",
            f"not {self.any(depth)}",
            f"{self.any(depth)} is eq {self.any(depth)}",
        )
        return self.random.choice(forms)

    def statement(self, depth: int) -> str:
        text, items, some = self.text(2), self.list(2), self.any(2)
        inner = "".join(self.statement(depth - 1) for _ in range(2)) if depth > 0 else "-"
        loop = f"{{% for item in {self.random.choice(('ns.y', 'range(3)', items))} %}}"
        forms = (
            f"{{% set ns.x = {text} %}}",
            f"{{% set ns.y = {items} %}}",
            f"{{{{ {some} }}}} ",
            f"{{{{- {text} -}}}}\n",
            f"{{% if {self.condition(1)} %}}{inner}{{% elif {self.condition(1)} %}}y{{% else %}}n{{% endif %}}",
            f"{loop}{{{{ loop.index }}}}{inner}{{% if loop.last %}}.{{% endif %}}{{% endfor %}}",
            f"{loop}{{% if loop.index > 2 %}}{{% break %}}{{% endif %}}{inner}{{% else %}}none{{% endfor %}}",
            f"{{% for item in {items} if item %}}{{{{ loop.length }}}}{inner}{{% endfor %}}",
            f"{{% set kept %}}{inner}{{{{ ns.x }}}}{{% endset %}}{{% set ns.x = kept %}}",
            f"{{% filter upper %}}{inner}{{% endfilter %}}",
            f"{{% call m({some}) %}}{inner}{{% endcall %}}",
            f"{{% with a = {some} %}}{{{{ a }}}}{inner}{{% endwith %}}",
            f"{{% generation %}}{inner}{{% endgeneration %}}",
        )
        return self.random.choice(forms)
