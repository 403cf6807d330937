"""Values as plain data and their equality: against Python's `==`, against forgery, in time."""

import datetime
import enum
import itertools
import json
import time
from collections import Counter, OrderedDict, UserList, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from deepwright.tasks.plain import DEEPEST, decode, encode, same

Point = namedtuple("Point", "x y")
Level = enum.IntEnum("Level", "LOW HIGH")
VALUES = [
    None,
    True,
    False,
    0,
    1,
    -7,
    10**5000,
    0.5,
    1.0,
    1e300,
    "",
    "a\n\ud800",
    b"\x00\xff",
    3 + 4j,
    [],
    [1, [2]],
    (),
    (1,),
    {},
    {"a": 1},
    {1: {2: [3]}, (1, 2): {4}},
    set(),
    {1, "a", (2, 3)},
    frozenset([1]),
    range(1, 9, 2),
    Decimal("1.10"),
    Fraction(1, 3),
    datetime.datetime(2020, 1, 2, 3, 4),
    datetime.date(2020, 1, 2),
    datetime.time(3, 4),
]


def sent(value):
    """Its form after the way out of a sandbox."""
    return json.loads(json.dumps(encode(value)))


def equal(got, wanted, how="exact"):
    return same(sent(got), encode(wanted), how)


@pytest.mark.parametrize("value", VALUES, ids=itertools.count())
def test_values_come_back(value):
    back = decode(sent(value))
    assert back == value and (type(back) is type(value) or isinstance(value, frozenset))


def test_equality_is_pythons_where_nothing_else_is_said():
    """Over all pairs; True and 1, 1 and True are the one exception among these."""
    for got in VALUES:
        for wanted in VALUES:
            taken_for_number = isinstance(got, bool) and not isinstance(wanted, bool)
            assert equal(got, wanted) == (got == wanted and not taken_for_number)


@pytest.mark.parametrize(
    "got, wanted",
    [
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
        (defaultdict(int, {1: 2}), {1: 2}),
        (Point(1, 2), (1, 2)),
        (frozenset([1, 2]), {2, 1}),
        (deque([1, 2]), [1, 2]),
        ({1: 0}.keys(), {1}),
        (Level.HIGH, 2),
        (np.int64(4), 4),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ([np.int64(1), (np.float64(2.0),)], [1, (2.0,)]),
        (float("inf"), float("inf")),
        (float("nan"), float("nan")),
        ([float("nan")], [float("nan")]),
        (0.1 + 0.2, 0.3),
        ([{"x": 0.1 + 0.2}], [{"x": 0.3}]),
        (1.0, 1),
        (1, 1.0),
        (3, True and 3),
        (1, True),
        (0, False),
        (5.5e-17, 0.0),
        (Decimal("0.5"), Fraction(1, 2)),
        (Decimal(3), 3),
        (10**5000, 10**5000),
        (list(range(50_000)), list(range(50_000))),
        ({1.0: "a"}, {1: "a"}),
        ({(1, frozenset([2]))}, {(1, frozenset([2]))}),
        (bytearray(b"ab"), b"ab"),
    ],
    ids=itertools.count(),
)
def test_what_is_equal(got, wanted):
    assert equal(got, wanted)


class Any:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1

    def __repr__(self):
        return "41"


class Liar(int):
    __eq__, __hash__, __repr__, __index__ = Any.__eq__, Any.__hash__, Any.__repr__, lambda self: 41


class Hidden(list):
    def __iter__(self):
        return iter([41])

    def __len__(self):
        return 1


@pytest.mark.parametrize(
    "got, wanted",
    [
        (True, 1),
        (False, 0),
        ([True], [1]),
        ({True}, {1}),
        ({True: 1}, {1: 1}),
        ({1: True}, {1: 1}),
        (np.bool_(True), 1),
        ((1, 2), [1, 2]),
        ([1, 2], (1, 2)),
        ([], ()),
        ("1", 1),
        (b"a", "a"),
        (None, False),
        (0, None),
        (range(3), [0, 1, 2]),
        (1.0000001, 1),
        (1.0000001, 1.0),
        (float("nan"), 0.0),
        (float("inf"), 1e308),
        (float("-inf"), float("inf")),
        (1e-10, 0.0),
        (Any(), 41),
        ([Any()], [41]),
        ({Any()}, {41}),
        (Liar(7), 41),
        (Hidden([1, 2]), [41]),
        (UserList([1]), [1]),
        (iter([1]), [1]),
        ([1, 2, 3], [1, 2]),
        ({1: 2, 3: 4}, {1: 2}),
        ({1}, {1, 2}),
        (10**5000, 10**5000 + 1),
        (10**5000, 1e308),
        (Decimal("1e999999999"), 1),
        (lambda: 1, 1),
        (int, 1),
    ],
    ids=itertools.count(),
)
def test_what_is_not(got, wanted):
    assert not equal(got, wanted)


def test_printed_values_are_compared_as_the_sets_with_inputs_and_outputs_do():
    assert equal((1, (2,)), [1, [2]], "printed") and equal(0.3333333, 1 / 3, "printed")
    assert not equal(0.33333, 1 / 3, "printed") and not equal([1], [2], "printed")
    assert equal(1e9 + 100, 1e9, "printed") and not equal(1e9 + 10_000, 1e9, "printed")


def test_identity_is_of_three_values():
    assert equal(True, True, "is") and equal(None, None, "is")
    assert not equal(1, True, "is") and not equal(0, None, "is") and not equal([], False, "is")


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"a": 1, "b": 2},
        {"int": "zz"},
        {"int": 3},
        {"float": "x"},
        {"decimal": "x"},
        {"decimal": None},
        {"fraction": [1, 0]},
        {"fraction": [1]},
        {"complex": "ab"},
        {"dict": 3},
        {"dict": [[1]]},
        {"dict": [[[1], 2]]},
        {"set": None},
        {"tuple": 4},
        {"set": [[1]]},
        {"other": "int"},
        {"value": 41},
        {"time": ["system", "x"]},
        {"range": ["a"]},
        {"bytes": 1},
        [[[[]]]],
    ],
)
def test_forms_that_a_program_wrote_itself_equal_nothing(tree):
    for wanted in (
        41,
        41.0,
        [41],
        (41,),
        {41},
        {41: 41},
        "41",
        b"41",
        True,
        None,
        4j,
        Fraction(1, 2),
    ):
        assert not same(tree, encode(wanted)) and not same([tree], encode([wanted]))
    nested = json.loads("[" * 900 + "]" * 900)
    assert not same(nested, [1]) and not same(nested, nested[0])


def test_hostile_forms_take_bounded_time():
    """Numbers that hash alike, digits without end: Python's own sets and numbers take minutes."""
    alike = [n * (2**61 - 1) for n in range(100_000)]
    long = "9" * 3_000_000
    begun = time.monotonic()
    assert not same({"set": alike}, encode({1}))
    assert not same({"dict": [[n, 1] for n in alike]}, encode({1: 1}))
    assert not same({"complex": [{"set": alike}, 0]}, encode(1j))
    assert not same({"decimal": f"1.{long}"}, encode(1.5))
    assert not same({"decimal": "1e999999999"}, encode(5))
    assert not same(
        {"fraction": [{"int": hex(7**2_000_000)}, {"int": hex(5**2_000_000)}]}, encode(5)
    )
    assert not same({"int": "0x" + long}, encode(5))
    assert time.monotonic() - begun < 20


def test_depth_is_bounded():
    deep = []
    for _ in range(DEEPEST + 2):
        deep = [deep]
    with pytest.raises(RecursionError, match=f"more than {DEEPEST} levels"):
        encode(deep)
