"""One number written out, with its unit: "1,200", "1\\frac{1}{2}", "1.2 \\times 10^{6}", "5 cm".

Exactly, as a fraction. A sum or a root is no number here, whatever its value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from deepwright.tasks.normal_form import CURRENCY
from deepwright.tasks.units import NONE, Unit, read_unit

_GROUPS = "|".join(rf"(?:{mark}[0-9]{{3}})+" for mark in (",", " ", "'"))
_DIGITS = rf"(?:[1-9][0-9]{{0,2}}(?:{_GROUPS})(?![0-9])|[0-9]{{1,400}})"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]{{0,400}})?|\.[0-9]{{1,400}})"
_POWER = r"10\^\{ ?([-+]?[0-9]{1,3}) ?\}"
_MONEY = rf"(?:USD|EUR|GBP|CNY|RMB|INR|(?:US|U\.S\. ?)?{CURRENCY}|Rs\.?|[£€¥₹])"
_SIGN = re.compile(rf"([-+]?) ?({_MONEY})? ?([-+]?) ?")
_BASED = re.compile(
    r"(-?)(\(?) ?([0-9]{1,400}(?:\.[0-9]{1,400})?|[0-9A-F]{2,20}) ?(\)?)_\{ ?([0-9]{1,2}) ?\}"
)
_MULTIPLIER = re.compile(r" ?(hundred|thousand|million|billion|trillion|[百千万亿]+)(?![A-Za-z])")
_MEASURED = re.compile(r"([0-9]{1,400}(?:\.[0-9]{1,400})?)([^0-9]+)")
_TIMES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "百": 100, "千": 10**3, "万": 10**4, "百万": 10**6, "千万": 10**7, "亿": 10**8,
}  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """`value` as it is written (28 for 28%), and what it counts."""

    value: Fraction
    unit: Unit = NONE

    @property
    def base(self) -> str:
        """ "base 3" where the digits are not in base ten, which no conversion undoes."""
        return next((name for name, _ in self.unit.powers if name.startswith("base ")), "")


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub("[, ']", "", text))


def _mixed(whole: str, above: str, below: str) -> Fraction | None:
    """1 1/2; with 3/2 behind it, it is a product, or nothing."""
    proper = 0 < int(above) < int(below)
    return int(whole) + Fraction(int(above), int(below)) if proper else None


def _ratio(above: str, below: str) -> Fraction | None:
    divisor = _decimal(below)
    return _decimal(above) / divisor if divisor else None


def _scaled(digits: str | None, exponent: str) -> Fraction:
    return (_decimal(digits) if digits else 1) * Fraction(10) ** int(exponent)


def _in_base(sign: str, opened: str, digits: str, closed: str, base: str) -> Quantity | None:
    """204_5 and (204)_5 by the digits as they stand, 1A_{16} by what its digits mean."""
    if bool(opened) != bool(closed):
        return None
    if re.search("[A-F]", digits):
        if not 10 < int(base) <= 16 or int(max(digits), 16) >= int(base):
            return None
        value = Fraction(int(digits, int(base)))
    else:
        value = Fraction(digits)
    unit = NONE if base == "10" else Unit(powers=((f"base {base}", 1),))
    return Quantity(-value if sign else value, unit)


def _repeating(whole: str, start: str, *found: str | None) -> Fraction:
    repeated = next(filter(None, found))
    above = Fraction(int(repeated), 10 ** len(repeated) - 1) / 10 ** len(start)
    return _decimal(f"{whole or 0}.{start or 0}") + above


_FORMS: tuple[tuple[re.Pattern[str], Callable[..., Fraction | None]], ...] = tuple(
    (re.compile(form), read)
    for form, read in (
        (r"([0-9]{1,400}) ?\\frac\{ ?([0-9]{1,400}) ?\}\{ ?([0-9]{1,400}) ?\}", _mixed),
        (r"([0-9]{1,400}) ([0-9]{1,400}) ?/ ?([0-9]{1,400})", _mixed),
        (rf"\\frac\{{ ?([-+]?{_DECIMAL}) ?\}}\{{ ?([-+]?{_DECIMAL}) ?\}}", _ratio),
        (rf"(?:({_DECIMAL}) ?(?:\\times|\\cdot|[xX]) ?)?{_POWER}", _scaled),
        (rf"({_DECIMAL})[eE]([-+]?[0-9]{{1,3}})(?![0-9])", _scaled),
        (rf"({_DECIMAL}) ?/ ?([-+]?{_DECIMAL})", _ratio),
        (r"([0-9]{0,400})\.([0-9]{0,400})\\overline\{([0-9]{1,400})\}", _repeating),
        (r"([0-9]{0,400})\.([0-9]{0,400})(?:\\dot\{([0-9])\}|\(([0-9]{1,400})\))", _repeating),
        (rf"({_DECIMAL})", _decimal),
    )
)


def read_number(text: str, glued: bool = False) -> Quantity | None:
    """What `text`, in normal form, says if it is one number, with or without a unit; else None.

    `glued`: a letter right behind it may be a unit (5m), which else is a factor."""
    if (based := _BASED.fullmatch(text)) and (quantity := _in_base(*based.groups())):
        return quantity
    if bracketed := re.fullmatch(r"([-+]) ?\( ?([^-+() ][^()]*)\)", text):
        text = bracketed[1] + bracketed[2]
    start = _SIGN.match(text)
    assert start is not None  # it matches nothing as well
    sign, money, inner_sign = start.groups()
    if sign and inner_sign:
        return None
    for form, value in _FORMS:
        if (found := form.match(text, start.end())) and (
            read := value(*found.groups())
        ) is not None:
            quantity = _with_unit(read, text[found.end() :], money, glued)
            if quantity is not None:
                minus = "-" in (sign, inner_sign)
                return Quantity(-quantity.value, quantity.unit) if minus else quantity
    return _compound(text)


def _compound(text: str) -> Quantity | None:
    """5 ft 3 in, 1 hour and 30 minutes: one quantity, in its last and smallest unit."""
    found = _MEASURED.findall(text)
    if len(found) < 2 or "".join(a + b for a, b in found) != text:
        return None
    units = [read_unit(re.sub(r"(?:,|\band\b|和)\s*$", "", unit)) for _, unit in found]
    total, last = Fraction(0), None
    for (count, _), unit in zip(found, units):
        if unit is None or not unit.powers or (last and unit.powers != last.powers):
            return None
        if last and unit.factor >= last.factor:
            return None
        total, last = total + _decimal(count) * unit.factor, unit
    return Quantity(total / last.factor, last) if last else None


def _with_unit(value: Fraction, rest: str, money: str | None, glued: bool) -> Quantity | None:
    plain = re.sub(r"\\text\{ ?([^{}]*?) ?\}", r" \1", rest)
    if found := _MULTIPLIER.match(plain):
        value, rest = value * _TIMES.get(found[1], 0), plain[found.end() :]
    unit = read_unit(rest, glued)
    if unit is None or not money:
        return None if unit is None else Quantity(value, unit)
    paid = read_unit(CURRENCY if CURRENCY in money else money.rstrip("."))
    return Quantity(value, paid) if paid and unit in (NONE, paid) else None


# ---- equality

LONG = 10  # digits of a decimal that stands for the number that it rounds
DOUBLE = 17  # digits as which machines print numbers that have 53 bits


def same_value(answer: Fraction, reference: Fraction) -> bool:
    """Equal, or the one decimal and the other what it rounds: a decimal of LONG digits stands for
    what it was cut from, and a reference of three places for the simple fraction that gives it."""
    if answer == reference:
        return True
    return _rounds(answer, reference) or _rounds(reference, answer, short=True)


def _rounds(decimal: Fraction, exact: Fraction, short: bool = False) -> bool:
    places = decimal_places(decimal)
    if places is None or decimal_places(exact) is not None:
        return False
    off, step = decimal - exact, Fraction(1, 10**places)
    rounded = 2 * abs(off) <= step
    cut = abs(off) < step and (off < 0) == (exact > 0)
    count = digits(decimal, places)
    printed = count <= DOUBLE and abs(off) <= abs(exact) / 2**52
    if count >= LONG and (rounded or cut or printed):
        return True
    simple = 2 * exact.denominator**2 <= 10**places  # no other fraction so simple is so near
    return short and places >= 3 and simple and rounded


def decimal_places(value: Fraction) -> int | None:
    """Places behind the point, None for a fraction that no decimal is equal to."""
    twos, fives, rest = 0, 0, value.denominator
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def digits(value: Fraction, places: int) -> int:
    return len(str(abs(int(value * 10**places)))) if places else 0
