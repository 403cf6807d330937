"""What a number counts: units of measure, money, percent, plain nouns, in English and Chinese.

A unit is a factor and the powers of what it is made of, so that 5 cm is 0.05 m, 1 km/h is 1000 m
per hour, and "3 apples" is no number of pears. A noun that is in no table is a unit of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from deepwright.tasks.normal_form import CURRENCY


@dataclass(frozen=True)
class Unit:
    """`factor` times the product of base units to their powers; no powers: a number alone."""

    factor: Fraction = Fraction(1)
    powers: tuple[tuple[str, int], ...] = ()


NONE = Unit()
PERCENT = Unit(Fraction(1, 100), (("%", 1),))

# base unit: how many of it, and what so many are called.
_TABLE = {
    "metre": "1e-9 nm nanometer; 1e-6 µm μm um micrometer; 1/1000 mm millimeter millimetre 毫米; "
    "1/100 cm centimeter centimetre 厘米; 1/10 dm decimeter decimetre 分米; 1 m meter metre 米; "
    "1000 km kilometer kilometre 千米 公里; 127/5000 in inch 英寸; 381/1250 ft foot feet 英尺; "
    "1143/1250 yd yard; 201168/125 mi mile 英里",
    "gram": "1/1000 mg milligram 毫克; 1 g gm gram 克; 1000 kg kilogram 千克 公斤; 500 斤; "
    "1000000 ton tonne 吨; 45359237/100000 lb pound; 45359237/1600000 oz ounce",
    "second": "1/1000 ms millisecond 毫秒; 1 s sec second 秒; 60 min minute 分钟; "
    "3600 h hr hour 小时 时; 86400 day 天 日; 604800 week wk 周 星期",
    "month": "1 month 个月 月; 12 yr year 年",
    "litre": "1/1000 ml mL milliliter millilitre 毫升; 1 l L liter litre 升",
    "dollar": f"1/100 cent ¢; 1 {CURRENCY} dollar usd 美元",
    "yuan": "1/10 角; 1 ¥ yuan rmb cny 元 块 人民币",
    "euro": "1 € euro eur 欧元",
    "pound sterling": "1 £ gbp 英镑",
    "rupee": "1 ₹ rupee rs inr",
    "degree": "1 ° deg degree 度",
    "celsius": "1 °C °Celsius celsius centigrade 摄氏度",
    "fahrenheit": "1 °F °Fahrenheit fahrenheit 华氏度",
    "radian": "1 rad radian 弧度",
    "kelvin": "1 K kelvin", "newton": "1 N newton 牛", "joule": "1 J joule 焦; 1000 kJ kilojoule",
    "watt": "1 W watt 瓦; 1000 kW kilowatt", "volt": "1 V volt 伏", "ampere": "1 A amp ampere 安",
    "ohm": "1 Ω ohm 欧", "hertz": "1 Hz hertz 赫兹", "pascal": "1 Pa pascal",
    "mole": "1 mol mole 摩尔", "am": "1 am 上午", "pm": "1 pm 下午",
    "%": "1/100 % percent percentage pct",
}  # fmt: skip
_ALIASES = {  # names of what is made of others
    "mph": "mile/hour", "kmph": "km/h", "kph": "km/h", "kmh": "km/h", "sqft": "ft^2",
    "平方米": "m^2", "平方厘米": "cm^2", "平方千米": "km^2", "平方分米": "dm^2",
    "立方米": "m^3", "立方厘米": "cm^3", "立方分米": "dm^3", "cc": "cm^3",
}  # fmt: skip
_NAMES: dict[str, Unit] = {}
for _base, _row in _TABLE.items():
    for _entry in _row.split(";"):
        _factor, *_listed = _entry.split()
        _NAMES |= {name: Unit(Fraction(_factor), ((_base, 1),)) for name in _listed}
# Chinese measure words, which count things: a number with one is the number.
_MEASURE_WORDS = set("个只本人种次张条枚颗辆件名位头支组对双套步篇道间")
# Words behind a number that make it another number, or no answer.
NEVER = set(
    (
        "or and not no nor to than minus plus times squared cubed factorial half halves third"
        " thirds quarter quarters fourth fourths fifth fifths tenth tenths hundredth hundredths"
        " thousandth thousandths millionth millionths sixth sixths seventh sevenths eighth eighths ninth"
        " ninths twelfth twelfths maybe perhaps if else but is are was were more less fewer"
        " wrong incorrect false without except below under above upward upwards approx"
        " doubled tripled halved inverse point binary octal hexadecimal loss owed debt deficit"
        " approximately about roughly around between over mod modulo root power hundred thousand"
        " million billion trillion quadrillion dozen score gross lakh crore negative 或 和 或者 不 不是 以上 以下 左右 倍 分之"
    ).split()
)
_ANOTHER = re.compile("或|不|分之|倍|多|余|几|半|以[内上下]|约|近")  # about 12, 12 and a half
_SAYS_NOTHING = set("old long tall wide high deep each total left of the a an st nd rd th".split())
_RAISING = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
# Single letters that are units where no \text says so; the others are letters of a formula.
_BARE_LETTERS = set("mgshLlNJWVK")
MOST_WORDS = 4
_PART = re.compile(
    rf"\^\{{?(-?[1-9])\}}?|°C(?:elsius)?|°F(?:ahrenheit)?|[°%¢€£¥₹{CURRENCY}Ωµμ]+"
    r"|[A-Za-z'’-]+(?:\.(?=[A-Za-z]|$|\s))?|[㐀-鿿]+|/|\s+|·|[().]"
)
_MODULUS = re.compile(r" ?(?:\\pmod ?\{? ?|\( ?mod )([0-9]{1,9}) ?[)}]?")
_TEXT_BY_TEXT = re.compile(r"\\frac\{ ?(\\text\{[^{}]*\}) ?\}\{ ?(\\text\{[^{}]*\}) ?\}")


@lru_cache(4096)
def read_unit(text: str, glued: bool = True) -> Unit | None:
    """What the text behind a number says of it, in normal form; None where it is no unit.

    `glued`: a single letter right behind the number may be a unit as well (5m)."""
    roman = "\\text" in text
    text = _TEXT_BY_TEXT.sub(r"\1/\2", text)
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).replace("\\cdot", "·")
    if modulus := _MODULUS.fullmatch(text):
        return Unit(powers=((f"mod {modulus[1]}", 1),))
    text = re.sub(r"\^\{?(?:\\circ| *o(?= *\}))\s*\}?|\bdegrees?(?= *[CF])", "°", text)
    text = re.sub(r"° *(?=[CF](?:\b|elsius|ahrenheit))", "°", text)
    text = re.sub(r"(?i)\b([ap])\.m\b", r"\1m", text).replace("per cent", "percent")
    text = re.sub(r"\^\{ *(st|nd|rd|th) *\}", r" \1", text)
    bare = text.strip()
    if not bare:
        return NONE
    apart = glued or text[0].isspace()
    if len(bare) == 1 and bare.isascii() and bare.isalpha() and not roman:
        return _product(bare, True, True) if bare in _BARE_LETTERS and apart else None
    return _product(bare, roman, apart)


def _product(text: str, roman: bool, apart: bool) -> Unit | None:
    """Names with powers, one after the other; those behind "/" or "per" divide."""
    unit, last, sign, raised, words, place = NONE, NONE, 1, 1, 0, 0
    while part := _PART.match(text, place):
        place, name = part.end(), part[0].strip().rstrip(".")
        if part[1] or (name in ("squared", "cubed") and last != NONE):  # m^2, metres squared
            if last == NONE:
                return None
            power = int(part[1]) if part[1] else _RAISING[name]
            unit, last = _times(unit, _power(last, power - 1)), NONE
        elif name in ("/", "per", "每"):
            sign = -1
        elif name.lower() in _RAISING:
            raised = _RAISING[name.lower()]
        elif name and name not in "().·":
            named, words = _named(name, roman, apart), words + 1
            if named is None or words > MOST_WORDS:
                return None
            last = _power(named, sign * raised)
            unit, raised = _times(unit, last), 1
    return unit if place == len(text) and words and raised == 1 else None


def _named(name: str, roman: bool, apart: bool) -> Unit | None:
    """One name as a unit; a noun that nobody knows is one of its own, if it is written apart from
    the number: 2abc and 3s^2 are products."""
    low = name.lower()
    if name.isascii() and len(name) == 1 and name.isalpha() and not (roman or apart):
        return None
    for form in (name, low, low.removesuffix("s"), _singular(low)):
        if form in _NAMES:
            return _NAMES[form]
        if form in _ALIASES:
            return _product(_ALIASES[form], True, True)
    if low in NEVER or _ANOTHER.search(name):
        return None
    if low in _SAYS_NOTHING or name in _MEASURE_WORDS:
        return NONE
    if name[0] in _MEASURE_WORDS:
        return _named(name[1:], roman, apart) or Unit(powers=((name[1:], 1),))
    noun = roman or not name.isascii() or (apart and is_noun(low))
    return Unit(powers=((_singular(low), 1),)) if noun and len(low) > 1 else None


def is_noun(run: str) -> bool:
    """A run of letters that is a word: not "xy", "abc" or "pqr", few letters near each other."""
    steps = [ord(b) - ord(a) for a, b in pairwise(run)]
    near = all(step > 0 for step in steps) and sum(steps) <= 3
    return len(run) > 3 or (len(run) == 3 and not near)


def _singular(word: str) -> str:
    for end, new in (("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("ies", "y"), ("ss", "ss")):
        if word.endswith(end):
            return word[: -len(end)] + new
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def _power(unit: Unit, power: int) -> Unit:
    return Unit(unit.factor**power, tuple((base, n * power) for base, n in unit.powers))


def _times(one: Unit, other: Unit) -> Unit:
    powers = dict(one.powers)
    for base, n in other.powers:
        powers[base] = powers.get(base, 0) + n
    left = tuple(sorted((base, n) for base, n in powers.items() if n))
    return Unit(one.factor * other.factor, left)
