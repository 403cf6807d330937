"""An expression in the signs that math-verify reads without loss, or nothing.

Its parser passes over what it does not know: primes, transposes, degrees, the base of a number, the
case of a letter. So an expression goes there only when every sign in it is known here; the others
are equal as written or not at all.
"""

from __future__ import annotations

import re
from itertools import pairwise

from deepwright.tasks.normal_form import tokens

_KNOWN = {
    f"\\{name}"
    for name in (
        "frac sqrt binom sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp"
        " sum prod lfloor rfloor lceil rceil cdot times div pi infty overline vec hat"
        " alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho"
        " sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi"
        " Omega ell"
    ).split()
}
_SETS = {f"\\{name}" for name in "mathbb cup cap setminus { } in emptyset le ge ne".split()}
_PLAIN = set("+-/^_(){}[]|!,.=")
_SETS_PLAIN = {"<", ">"}
_PRIMED = re.compile(r"([A-Za-z]|\\[A-Za-z]+)((?:_\{[^{}]*\})?)(?:\^\{ ?('+) ?\}|('+))")
_TRANSPOSED = re.compile(r"([A-Z])\^\{ ?(?:T|\\top|\\text\{T\}) ?\}")
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?\^\{ ?\\circ ?\}")
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])")
_LOST = re.compile(
    r"'|\\circ|[0-9] ?_|\^\{ ?T ?\}|!\s*!|[0-9]{5,} ?!|\\overline\{ ?[0-9]|\.\s*\\|\. ?[^0-9 ]|\.$"
    r"|\\vec.*\\times"  # a product with an order
)
_TOWER = re.compile(r"\^\{[^{}]*(?:[0-9]{6}|[0-9] ?\^)")


def formula(text: str, sets: bool = False) -> str | None:
    """`text`, in normal form, as LaTeX that means the same to the parser; None where it may not.

    `sets`: unions, intervals and relations are known as well."""
    text = re.sub(r"\\text\{ ?([A-Za-z]) ?\}", r" \1 ", text)
    text = _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
    text = _PRIMED.sub(_prime, text)
    text = _TRANSPOSED.sub(r"\1_{T}", text)
    text = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    if _LOST.search(text) or _TOWER.search(text):
        return None
    found = [token for token in tokens(text) if not token.isspace()]
    signs = _KNOWN | _PLAIN | (_SETS | _SETS_PLAIN if sets else set())
    known = all(
        token in signs or (token.isascii() and (token.isalpha() or token[0].isdigit()))
        for token in found
    )
    return _joined(found) if found and known else None


def _prime(match: re.Match[str]) -> str:
    """x' as x_{p}: a letter of its own."""
    primes = "p" * len(match[3] or match[4])
    return f"{match[1]}_{{{match[2][2:-1]}{primes}}}"


def _joined(found: list[str]) -> str:
    """Letters apart, so that no two are read as one name."""
    out = [found[0]]
    for before, token in pairwise(found):
        letters = before[-1].isalpha() and token[0].isalpha()
        out.append(" " + token if letters else token)
    return "".join(out)
