"""Whether an answer is the reference, kind by kind; of two expressions math-verify is asked.

Comparing is done in passes: the first collects what has to be known about expressions (`asked`),
the next one finds it in `known`. Between them a worker answers, in a process that can be killed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from deepwright.tasks.chosen import choice, chosen, several
from deepwright.tasks.formulas import formula
from deepwright.tasks.numbers import (
    LONG,
    Quantity,
    decimal_places,
    digits,
    read_number,
    same_value,
)
from deepwright.tasks.units import NONE, PERCENT, Unit
from deepwright.tasks.values import (
    COMPARED,
    INFINITE,
    Value,
    as_interval,
    canonical,
    is_natural,
    words,
)

Query = tuple[str, str, str]  # (how, one formula, the other)
MOST_QUERIES = 400  # about one answer
_SAME_BY_OTHER_ORDER = {"list", "set"}


@dataclass
class Comparison:
    """`question`: what was asked; percent or a base that it names need not be repeated."""

    question: str = ""
    known: Mapping[Query, bool] = field(default_factory=dict)
    asked: dict[Query, None] = field(default_factory=dict)

    def same(self, answer: Value, reference: Value) -> bool | None:
        """None where it depends on what is `asked` now and not `known` yet."""
        if _other_name(answer.name, reference.name):
            return False
        if answer.text and canonical(answer.text) == canonical(reference.text):
            return same_unit(answer.unit, reference.unit)
        a, r = _as_equation(_lone(answer, reference), reference), _lone(reference, answer)
        if r.kind == "expression":
            r = _as_equation(r, a)
        if a.kind == "number" and r.kind == "number":
            return self.same_quantity(a.quantity, r.quantity)
        if "number" in (a.kind, r.kind):
            return self._number_and_other(a, r)
        if letter := choice(r):
            return chosen(a) == letter
        if "list" in (a.kind, r.kind) and a.kind != r.kind and (letters := several(r)):
            return several(a) == letters
        if "words" in (a.kind, r.kind):
            return self._words(a, r)
        if a.kind == r.kind == "expression":
            how = "sets" if _OF_SETS.search(a.text + r.text) else "equal"
            return same_unit(a.unit, r.unit) and self._ask(how, a.text, r.text)
        return self._groups(a, r)

    # ---- numbers

    def same_quantity(self, a: Quantity, r: Quantity) -> bool:
        """Values equal and units the same; a unit that one of both leaves out is not missed."""
        if a.base != r.base:
            named = a.unit == NONE and self._speaks_of(
                "base", "binary", "octal", "hexadecimal", "进制"
            )
            return bool(r.base) and named and a.value == r.value
        if a.unit.powers == r.unit.powers:
            return same_value(a.value * a.unit.factor, r.value * r.unit.factor)
        if a.unit == PERCENT and r.unit == NONE:
            asked = self._speaks_of(*_ASKS_PERCENT)
            return same_value(a.value / 100, r.value) or (asked and same_value(a.value, r.value))
        if a.unit == NONE and r.unit == PERCENT:
            return same_value(a.value, r.value) or same_value(a.value, r.value / 100)
        return NONE in (a.unit, r.unit) and same_value(a.value, r.value)

    def _speaks_of(self, *names: str) -> bool:
        return any(name in self.question.casefold() for name in names)

    def _number_and_other(self, a: Value, r: Value) -> bool | None:
        """A reference that is a number wants a number written out."""
        if a.kind == "relation" and self._restates(a):
            return self.same(a.parts[1], r)
        number, other = (a, r) if a.kind == "number" else (r, a)
        if other.kind == "words" and number.quantity.unit == NONE:
            return words(other.text) == _SPELLED.get(number.quantity.value)
        if other.kind == "list":
            return self._number_and_list(number, other, r)
        if other.kind == "ratio" and re.search(r"/|\\frac", number.text):
            return _ratio_value(other) == number.quantity.value
        if other.kind != "expression" or number.quantity.base:
            return False
        return self._glued_unit(a, r) if a is other else self._number_for_expression(a, r)

    def _number_for_expression(self, a: Value, r: Value) -> bool | None:
        """1024 for 2^{10}; 5\\text{ m} for 5m; a decimal of many digits for what it rounds."""
        if a.quantity.unit != NONE:
            if (product := read_number(r.text, glued=True)) is not None:
                return self.same_quantity(a.quantity, product)
            if not same_unit(a.quantity.unit, r.unit):
                return False
        value, places = a.quantity.value, decimal_places(a.quantity.value)
        long = places is not None and digits(value, places) >= LONG
        return self._ask(f"within {places}" if long else "equal", _number_text(value), r.text)

    def _number_and_list(self, number: Value, other: Value, r: Value) -> bool | None:
        """1000,99 is 1000.99 in much of Europe; a reference 70,110 may be a list."""
        comma = _decimal_comma(other, r is other)
        if comma is not None:
            return same_value(comma, number.quantity.value) and "." in number.text
        listed = number is r and re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+", number.text)
        parts = tuple(Value("number", one, read_number(one)) for one in number.text.split(","))
        return bool(listed) and self._without_order(other, Value("list", "", parts=parts))

    def _restates(self, a: Value) -> bool:
        """m + n = 42: the answer with what was asked before it, which holds no number or stands in
        the question."""
        left, asked = (re.sub(r"\s", "", text) for text in (a.parts[0].text, self.question))
        letters = re.sub(r"_\{[^{}]*\}", "", left)
        computed = re.search(r"[-+*/^\\A-Za-z]", left)
        known = not re.search(r"\d", letters) or (bool(computed) and left in asked)
        return a.signs == ("=",) and known

    def _glued_unit(self, a: Value, r: Value) -> bool:
        """5m where 5 is right: no letter is a factor of a number."""
        number = read_number(a.text, glued=True)
        return number is not None and self.same_quantity(number, r.quantity)

    # ---- words, groups

    def _words(self, a: Value, r: Value) -> bool | None:
        """The same words; a single letter in \\text{} is that letter."""
        if not {a.kind, r.kind} <= {"words", "expression"}:
            return False
        one, other = words(a.text), words(r.text)
        if one != other and r.kind == "expression" and re.fullmatch("[A-Za-z]{3}", a.text):
            return self._ask("equal", a.text, r.text)  # cba, where abc is a product
        return one == other

    def _groups(self, a: Value, r: Value) -> bool | None:
        kinds = {a.kind, r.kind}
        if kinds == {"relation"}:
            return self._relations(a, r)
        if kinds <= _SAME_BY_OTHER_ORDER:
            return not _other_logic(a, r) and self._without_order(a, r)
        if kinds <= {"list", "tuple"}:
            return self._in_order(self._ordered(a), self._ordered(r))
        if kinds <= {"interval", "tuple"}:
            return a.signs == r.signs and self._in_order(a.parts, r.parts)
        if kinds == {"matrix", "tuple"}:
            return self._vector(a, r)
        if kinds == {"matrix"}:
            return self._in_order(a.parts, r.parts)
        if kinds == {"ratio"}:
            return self._ratios(a, r)
        return False if kinds == {"set", "tuple"} else self._sets(a, r)

    def _ordered(self, value: Value) -> Sequence[Value]:
        """y = 4, x = 3 as (3, 4): by the alphabet, if the question has not the order given."""
        names = [part.name for part in value.parts]
        asked = re.sub(r"\s|\$|\\left", "", self.question)
        if f"({','.join(names)})" in asked or not all(re.fullmatch("[A-Za-z]", x) for x in names):
            return value.parts
        return sorted(value.parts, key=_by_name)

    def _in_order(self, a: Sequence[Value], r: Sequence[Value]) -> bool | None:
        return len(a) == len(r) and _all(self.same(x, y) for x, y in zip(a, r))

    def _vector(self, a: Value, r: Value) -> bool | None:
        """A column of numbers is the tuple of them."""
        column, row = (a, r) if a.kind == "matrix" else (r, a)
        if any(len(one.parts) != 1 for one in column.parts):
            return False
        parts = tuple(one.parts[0] for one in column.parts)
        return self._in_order(*((parts, row.parts) if column is a else (row.parts, parts)))

    def _without_order(self, a: Value, r: Value) -> bool | None:
        """Lists and sets: no order, no repeats, but for values of different names, which an answer
        that leaves the names out gives in the order of the reference."""
        names, wanted = ([canonical(part.name) for part in value.parts] for value in (a, r))
        if len(set(wanted)) == len(wanted) > 1 and all(wanted):
            if not any(names):
                return self._in_order(a.parts, r.parts)
            if sorted(names) == sorted(wanted):
                return self._in_order(*(sorted(x.parts, key=_by_name) for x in (a, r)))
        ones, others = _distinct(a.parts), _distinct(r.parts)
        if len(ones) != len(others):
            return False
        rows = [[self.same(one, other) for other in others] for one in ones]
        certain = _matched([[found is True for found in row] for row in rows])
        return certain or (None if _matched([[x is not False for x in y] for y in rows]) else False)

    def _ratios(self, a: Value, r: Value) -> bool | None:
        """Equal part by part, or in proportion, but for times of day."""
        if len(a.parts) != len(r.parts) or not same_unit(a.unit, r.unit):
            return False
        together = self._in_order(a.parts, r.parts)
        if together is not False or _is_time(a) or _is_time(r):
            return together
        ones, others = ([part.quantity for part in value.parts] for value in (a, r))
        if not all(ones) or not all(others) or not ones[0].value or not others[0].value:
            return False
        return all(
            one.value * others[0].value == other.value * ones[0].value
            for one, other in zip(ones, others)
        )

    def _relations(self, a: Value, r: Value) -> bool | None:
        """The same relation, mirrored or multiplied by a number; a chain member by member."""
        if a.signs != r.signs:
            return False
        members = self._in_order(a.parts, r.parts)
        if members is True or len(a.signs) > 1:
            return members
        how = "proportional" if a.signs[0] in ("=", "\\ne", "\\approx") else "positive"
        scaled = self._ask(how, _difference(a), _difference(r))
        return True if True in (members, scaled) else (None if None in (members, scaled) else False)

    def _sets(self, a: Value, r: Value) -> bool | None:
        """Sets of numbers: x > 2 is met by (2, \\infty); what is asked as an interval wants one."""
        if a.kind in ("relation", "list") and r.kind not in ("relation", "list"):
            return False
        ones, others = _intervals(a), _intervals(r)
        if ones and others and len(ones) == len(others):
            found = self._without_order(*(Value("list", "", parts=x) for x in (ones, others)))
            if found is not False or len(ones) == 1:
                return found
        known = all(
            one.kind in _OF_NUMBERS or as_interval(one) or _OF_SETS.search(one.text)
            for one in (a, r)
        )
        equations = "=" in a.signs + r.signs
        return known and not equations and self._ask("sets", a.text, r.text)

    # ---- expressions

    def _ask(self, how: str, a: str, r: str) -> bool | None:
        """Whether two expressions agree; False at once where one may not be handed on."""
        if infinite := INFINITE.fullmatch(r):
            other = INFINITE.fullmatch(a)
            return bool(other) and (other[1] or "+") == (infinite[1] or "+")
        one, other = formula(a, how == "sets"), formula(r, how == "sets")
        if one is None or other is None:
            return False
        query = (how, one, other)
        if query in self.known:
            return self.known[query]
        self.asked[query] = None
        return None if len(self.asked) <= MOST_QUERIES else False


_SPELLED = {
    Fraction(i): word
    for i, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
        " fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
}
_ASKS_PERCENT = (
    "what percent", "many percent", "percentage", "as a percent", "percent increase",
    "percent decrease", "percent change", "百分",
)  # fmt: skip
_OF_NUMBERS = {"set", "interval", "union", "relation"}
_OF_SETS = re.compile(r"\\(?:mathbb|setminus|emptyset|cap)\b")


# ---- single values


def same_unit(one: Unit, other: Unit) -> bool:
    return NONE in (one, other) or one == other


def _number_text(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _decimal_comma(value: Value, reference: bool) -> Fraction | None:
    """1000,99 as written in much of Europe. A reference 0,1 is a list: it could be one."""
    found = re.fullmatch(r"-?[0-9]+,[0-9]+", value.text)
    if found is None or (reference and len(value.text.partition(",")[2]) < 2):
        return None
    return Fraction(value.text.replace(",", "."))


def _ratio_value(value: Value) -> Fraction | None:
    """1/2 for 1:2, None for a time or more than two parts."""
    found = [part.quantity for part in value.parts]
    if len(found) != 2 or not all(found) or not found[1].value or _is_time(value):
        return None
    return found[0].value / found[1].value


def _is_time(value: Value) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,2}(?: ?: ?[0-9]{2}){1,2}(?:\D.*)?", value.text))


# ---- groups


def _all(found: Iterable[bool | None]) -> bool | None:
    verdicts = list(found)
    return False if False in verdicts else (None if None in verdicts else True)


def _lone(value: Value, other: Value) -> Value:
    """A set of one where a single value is asked for: {5} and 5."""
    single = value.kind == "set" and len(value.parts) == 1 and other.kind not in ("set", "list")
    single = single and not _OF_SETS.search(value.text)
    return value.parts[0] if single else value


def _as_equation(value: Value, other: Value) -> Value:
    """y = 2x + 1 as a relation again, where it meets one."""
    if not value.name or other.kind != "relation" or other.signs != ("=",):
        return value
    return Value("relation", "", parts=(Value("expression", value.name), value), signs=("=",))


def _by_name(value: Value) -> str:
    return canonical(value.name)


def _other_logic(a: Value, r: Value) -> bool:
    """x < 2 or x > 3 is not x < 2 and x > 3; x = 2 and x = 3 are both values."""
    compared = any(COMPARED.intersection(part.signs) for part in a.parts if part.kind == "relation")
    return compared and {*a.signs, *r.signs} == {"and", "or"}


def _distinct(parts: Iterable[Value]) -> list[Value]:
    return list({(canonical(part.text), part.name): part for part in parts}.values())


def _matched(allowed: list[list[bool]]) -> bool:
    """Whether each row can have a column of its own."""
    taken: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fits in enumerate(allowed[row]):
            if fits and column not in seen:
                seen.add(column)
                if column not in taken or place(taken[column], seen):
                    taken[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(allowed)))


def _difference(relation: Value) -> str:
    left, right = relation.parts
    return f"({left.text})-({right.text})"


def _intervals(value: Value) -> tuple[Value, ...]:
    """What a union, an interval, relations joined by "or" consist of; () for anything else."""
    if value.kind == "list" and "and" in value.signs:
        return ()
    parts = value.parts if value.kind in ("union", "list") else (value,)
    found = [as_interval(part) for part in parts]
    return tuple(one for one in found if one) if all(found) else ()


_LETTER_NAME = re.compile(r"([a-z]|[A-Z]+)(?:_\{[^{}]*\})?(?:\(([A-Za-z0-9]+)\))?")


def _other_name(one: str, other: str) -> bool:
    """x = 5 where y = 5 was asked for, Alice: 5 where Bob: 5 was; A = 5 may be Area = 5."""
    letters = [_LETTER_NAME.fullmatch(name) for name in (one, other)]
    if letters[0] and letters[1] and bool(letters[0][2]) == bool(letters[1][2]):
        arguments = [found[2] or "x" for found in letters]  # y = 2x may be f(x) = 2x
        same = all(re.fullmatch("[a-z]", x) for x in arguments) or len(set(arguments)) == 1
        return letters[0][1] != letters[1][1] or not same
    first, second = words(one), words(other)
    natural = is_natural(one) and is_natural(other)
    return natural and first not in second and second not in first
