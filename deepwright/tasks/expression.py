"""Arithmetic expressions: a small grammar that reads a model's answer, and the enumeration of everything that numbers can make.

    expression := term (("+" | "-") term)*
    term       := factor (("*" | "/") factor)*
    factor     := number | "(" expression ")"

Values are Fractions, so division is exact. A number is ASCII digits without sign. Lengths are bounded before anything is
parsed, so a hostile answer costs no more than an honest one; nothing here ever calls eval.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import cache, lru_cache

MAX_CHARACTERS, MAX_TOKENS, MAX_DIGITS = 512, 128, 9
_TOKEN = re.compile(r"[0-9]+|[-+*/()]|[ \t\r\n]+")

# A tree is (value,) for a number, or (value, operator, left, right). Plain tuples: they compare, sort and hash by content.
Tree = tuple


class ExpressionError(ValueError):
    """The text is no expression of this grammar, or its value does not exist."""


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """The value of an expression and the numbers in it, left to right. Raises ExpressionError."""
    tokens = _tokens(text)
    numbers = [int(token) for token in tokens if token[0] in "0123456789"]
    value, end = _expression(tokens, 0)
    if end != len(tokens):
        raise ExpressionError(f"{tokens[end]!r} after a complete expression")
    return value, numbers


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"longer than {MAX_CHARACTERS} characters")
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"{text[at]!r} is not a number, an operator or a parenthesis")
        at = match.end()
        if not match[0].isspace():
            tokens.append(match[0])
        if len(match[0]) > MAX_DIGITS and match[0][0] in "0123456789":
            raise ExpressionError(f"a number has more than {MAX_DIGITS} digits")
    if len(tokens) > MAX_TOKENS:
        raise ExpressionError(f"longer than {MAX_TOKENS} tokens")
    return tokens


def _expression(tokens: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _term(tokens, at)
    while at < len(tokens) and tokens[at] in "+-":
        right, end = _term(tokens, at + 1)
        value, at = (value + right if tokens[at] == "+" else value - right), end
    return value, at


def _term(tokens: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _factor(tokens, at)
    while at < len(tokens) and tokens[at] in "*/":
        right, end = _factor(tokens, at + 1)
        if tokens[at] == "/" and right == 0:
            raise ExpressionError("division by zero")
        value, at = (value * right if tokens[at] == "*" else value / right), end
    return value, at


def _factor(tokens: list[str], at: int) -> tuple[Fraction, int]:
    token = tokens[at] if at < len(tokens) else "the end"
    if token[0] in "0123456789":
        return Fraction(int(token)), at + 1
    if token != "(":
        raise ExpressionError(f"{token!r} where a number or '(' was expected")
    value, at = _expression(tokens, at + 1)
    if at >= len(tokens) or tokens[at] != ")":
        raise ExpressionError("a '(' is not closed")
    return value, at + 1


def apply(operator: str, left: int, right: int, limit: int) -> int | None:
    """The whole number in 0..limit that `left operator right` makes, or None."""
    if operator == "/":
        value = left // right if right and left % right == 0 else -1
    else:
        value = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return value if 0 <= value <= limit else None


@cache
def all_trees(numbers: tuple[int, ...], operators: str, limit: int) -> tuple[Tree, ...]:
    """Every different tree that uses each number of the sorted tuple once, with all values in 0..limit, in a fixed order.
    Trees that differ only in the order of the operands of + or *, or of equal operands, count once."""
    if len(numbers) == 1:
        return ((numbers[0],),)
    found: set[Tree] = set()
    for left_numbers, right_numbers in _splits(numbers):
        for left in all_trees(left_numbers, operators, limit):
            for right in all_trees(right_numbers, operators, limit):
                found.update(_joined(left, right, operators, limit))
    return tuple(sorted(found, key=repr))


def _splits(numbers: tuple[int, ...]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The ways to cut a sorted multiset into two non-empty ones, each pair once."""
    pairs = set()
    for mask in range(1, 1 << (len(numbers) - 1)):
        left = tuple(n for i, n in enumerate(numbers) if mask >> i & 1)
        right = tuple(n for i, n in enumerate(numbers) if not mask >> i & 1)
        pairs.add((max(left, right), min(left, right)))
    return pairs


def _joined(left: Tree, right: Tree, operators: str, limit: int) -> list[Tree]:
    joined = []
    greater, smaller = (left, right) if repr(left) >= repr(right) else (right, left)
    for operator in operators:
        one_way = (
            operator in "+*" or left[0] == right[0]
        )  # x - y and y - x of equal values are the same attempt
        pairs = [(greater, smaller)] if one_way else [(left, right), (right, left)]
        for a, b in pairs:
            value = apply(operator, a[0], b[0], limit)
            if value is not None:
                joined.append((value, operator, a, b))
    return joined


@lru_cache(maxsize=1 << 18)
def written(tree: Tree, flips: int) -> tuple[tuple[str, ...], str]:
    """(equations in the order of working, the expression in one line): ("3 * 7 = 21", "21 - 1 = 20") and "( 3 * 7 ) - 1".

    Bit k of `flips` swaps the operands of inner node k (in that order) where the operator allows it."""
    equations: list[str] = []

    def walk(node: Tree) -> str:
        if len(node) == 1:
            return str(node[0])
        value, operator, left, right = node
        texts = [walk(child) for child in (left, right)]
        operands = [str(left[0]), str(right[0])]
        texts = [
            text if len(child) == 1 else f"( {text} )"
            for text, child in zip(texts, (left, right), strict=True)
        ]
        if flips >> len(equations) & 1 and operator in "+*":
            texts.reverse()
            operands.reverse()
        equations.append(f"{operands[0]} {operator} {operands[1]} = {value}")
        return f" {operator} ".join(texts)

    text = walk(tree)
    return tuple(equations), text


def operators_ok(operators: Sequence[str]) -> bool:
    return (
        bool(operators) and len(set(operators)) == len(operators) and set(operators) <= set("+-*/")
    )
