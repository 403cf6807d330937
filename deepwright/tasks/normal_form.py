"""One way of writing for an answer: what dresses a value is taken off, the value itself stays.

Undone are full-width and Chinese signs, unicode mathematics, LaTeX's styles, blanks and sizes, the
many names of one command, formula signs and a full stop at the end. What is left is a text of
numbers, letters, commands with braced arguments, \\text{words} and brackets, in which other modules
look for structure. Nothing is evaluated, and a sign that is not known here stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

UNSEEN = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f\\u200b-\\u200f\\ufeff\\ud800-\\udfff]")
CURRENCY = "¤"  # what a dollar sign becomes that is no border of a formula

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho ."
    " sigma tau upsilon phi chi psi omega"
)
_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "⁄": "/", "∕": "/", "×": "\\times ",
    "÷": "\\div ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "√": "\\sqrt ", "∛": "\\sqrt[3] ", "∜": "\\sqrt[4] ", "∞": "\\infty ",
    "≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≠": "\\ne ", "≈": "\\approx ",
    "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "±": "\\pm ", "∓": "\\mp ",
    "℃": "^\\circ C", "℉": "^\\circ F", "°": "^\\circ ", "º": "^\\circ ", "∠": "\\angle ",
    "△": "\\triangle ", "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"',
    "ℝ": "\\mathbb{R}", "…": "\\ldots ", "⋯": "\\ldots ", "∶": ":", "。": ".", "、": ",",
    "【": "[", "】": "]", "「": '"', "」": '"',
    "〈": "\\langle ", "〉": "\\rangle ", "⟨": "\\langle ", "⟩": "\\rangle ",
    "∖": "\\setminus ",
    **{chr(0x3B1 + i): f"\\{name} " for i, name in enumerate(_GREEK.split()) if name != "."},
}  # fmt: skip
_SIGNS = str.maketrans(_UNICODE)
_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿ]+")
_LOWERED = re.compile("[₀-₉₊₋]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")

# LaTeX names by what becomes of them: nothing, a blank, \text, or another name.
_STYLES = (
    "mathbf boldsymbol bm mathit mathsf mathnormal pmb bold displaystyle textstyle scriptstyle"
    " limits boxed fbox underline ensuremath tt bf small large Large LARGE huge checkmark qed"
    " blacksquare"
)
_BLANKS = (
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr quad qquad"
    " hfill mleft mright , ; : ! ~ | ( ) [ ]"
)
_WORDS = "text textbf textit textrm textnormal textsf mbox hbox mathrm operatorname rm"
_RENAMED = {
    **dict.fromkeys(_STYLES.split(), ""),
    **dict.fromkeys(_BLANKS.split(), " "),
    **dict.fromkeys(_WORDS.split(), "\\text"),
    **dict.fromkeys("frac dfrac tfrac cfrac nicefrac sfrac".split(), "\\frac"),
    **dict.fromkeys("binom dbinom tbinom".split(), "\\binom"),
    **dict.fromkeys("le leq leqslant leqq".split(), "\\le "),
    **dict.fromkeys("ge geq geqslant geqq".split(), "\\ge "),
    **dict.fromkeys("ne neq".split(), "\\ne "),
    **dict.fromkeys("cdot ast centerdot cdotp bullet".split(), "\\cdot "),
    **dict.fromkeys("ldots dots cdots dotsc dotsb dotsm vdots ddots".split(), "\\ldots "),
    **dict.fromkeys("vert lvert rvert mid".split(), "|"),
    **dict.fromkeys("emptyset varnothing".split(), "\\emptyset "),
    **dict.fromkeys("setminus backslash smallsetminus".split(), "\\setminus "),
    **dict.fromkeys("overline bar".split(), "\\overline"),
    **dict.fromkeys("to rightarrow longrightarrow".split(), "\\to "),
    "bigcup": "\\cup ", "bigcap": "\\cap ", "widehat": "\\hat", "lt": "<", "gt": ">", "colon": ":", "lbrace": "\\{",
    "rbrace": "\\}", "lbrack": "[", "rbrack": "]",
    "degree": "^\\circ ", "infin": "\\infty ", "prime": "'", "percent": "%", "%": "%", "#": "#",
    "$": CURRENCY, "&": "&", "_": "_", " ": " ", "pounds": "£", "euro": "€", "yen": "¥",
    "\n": " ", "approxeq": "\\approx ",
}  # fmt: skip
_COMMAND = re.compile(r"\\\\(?:\s*\[[0-9.]+ *(?:pt|em|ex|mm|cm)\])?|\\([A-Za-z]+|.)", re.DOTALL)
_RUN_ON = re.compile("q?quad([A-Za-z].*)")
_ARRAY_ARGUMENT = re.compile(r"(\\begin\{array\})\{[^{}]*\}")

FUNCTIONS = (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt pi theta max min"
    " gcd lcm"
).split()
_NAMED_IN_LETTERS = re.compile(
    r"(?<![A-Za-z\\])(sqrt|(?:arc)?(?:sin|cos|tan)|log|ln|exp|pi|theta)(?=[^A-Za-z]|$)"
)
_FUNCTION_AS_TEXT = re.compile(
    r"\\text\{ ?((?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln|exp|gcd|lcm|max|min) ?\}"
)
_INFINITE = re.compile(r"(?<![A-Za-z\\])(?:\\text\{ ?([-+]?) ?infinity ?\}|infinity(?![A-Za-z ]))")
_WORD_IN = re.compile(r"^[^=]*[^\W\d_][^=]*$")
_WORDS_ALONE = re.compile(r"\\text\s*\{([^{}]*)\}")
_LEAD_IN = re.compile(
    r"(?i)^(?:\\text\{)? ?(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final |correct )?answer\b"
    r"(?: is\b)? ?:? ?\}? ?(?=\S)"
    r"|^(?:\\text\{)?(?:(?:最终)?答案 ?[是为]? ?:?|[答解] ?:) ?\}? ?(?=\S)"
)
_END = re.compile(r"(?:[.,;: ]|\\\\)+$")
_ARROW = re.compile(
    r"^(?:(?:=|\\approx|\\therefore|\\implies|\\(?:Long|long)?[Rr]ightarrow|\\to) ?)+"
)
_OVER = re.compile(r"\{([^{}]*)\\(over|choose)(?![A-Za-z])([^{}]*)\}")
DEEPEST = 40  # brackets in brackets


@lru_cache(8192)
def normal(text: str) -> str:
    """`text` in the one way of writing. ValueError where brackets are nested beyond DEEPEST."""
    text = UNSEEN.sub("", text).strip().strip("*`").replace("~", " ")  # * and `: Markdown
    text = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _LOWERED.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _VULGAR.sub(_vulgar, text)
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)
    text = re.sub(r"(?<!\\)\{,\}|,\s*\\!\s*", ",", text)
    text = re.sub(r"\\(?:text)?color *\{[A-Za-z]+\}", "", text)
    if "\\\\begin" in text or "\\begin" not in text:  # escaped twice on its way here
        text = re.sub(r"\\\\(?=[A-Za-z\\])", r"\\", text)
    text = _COMMAND.sub(_command, text)
    text = _without_formula_signs(text)
    text = _OVER.sub(_over, _ARRAY_ARGUMENT.sub(r"\1", text))
    text = _ascii_mathematics(text)
    text = " ".join(text.split())
    text = _LEAD_IN.sub("", re.sub(r'^"(.*)"$', r"\1", _END.sub("", text)))
    text = _ARROW.sub("", text)
    lowest, highest, last = depths(text)
    if highest > DEEPEST:
        raise ValueError(f"brackets are nested {highest} deep, expected at most {DEEPEST}")
    return text if lowest or last else braced_arguments(text)


def _over(match: re.Match[str]) -> str:
    command = {"over": "frac", "choose": "binom"}[match[2]]
    return f"\\{command}{{{match[1]}}}{{{match[3]}}}"


def _vulgar(match: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return f" \\frac{{{above}}}{{{below}}}"  # the blank: 5½ is a mixed number


def _command(match: re.Match[str]) -> str:
    if match[1] is None:
        return "\\\\ "  # the end of a row
    if run_on := _RUN_ON.match(match[1]):
        return " " + run_on[1]
    return _RENAMED.get(match[1], match[0])


def _without_formula_signs(text: str) -> str:
    """$..$ are borders of formulas; an odd one beside a number is money."""
    if text.count("$") % 2:
        text = re.sub(r"\$(?=\s*-?[0-9.])|(?<=[0-9])\s*\$", CURRENCY, text, count=1)
    return text.replace("$", " ")


def _ascii_mathematics(text: str) -> str:
    """x**2, x <= 2, sqrt(2) as LaTeX has them; \\text{12} and \\text{x = 5} are no words."""
    text = re.sub(r"\\text\s+\{", r"\\text{", text)
    text = _WORDS_ALONE.sub(lambda m: m[0] if _WORD_IN.search(m[1]) else m[1], text)
    for old, new in (("**", "^"), ("*", "\\cdot "), ("<=", "\\le "), (">=", "\\ge ")):
        text = text.replace(old, new)
    text = re.sub(r"!=|\\not ?=", r"\\ne ", text).replace("==", "=").replace("+/-", "\\pm ")
    text = re.sub(r"百分之 ?([0-9]+(?:\.[0-9]+)?)", r"\1%", text)
    text = _INFINITE.sub(r"\1\\infty ", _FUNCTION_AS_TEXT.sub(r"\\\1 ", text))
    return _NAMED_IN_LETTERS.sub(r"\\\1 ", text)


# ---- arguments

_TOKEN = re.compile(
    r"\\begin\{\w+\*?\}|\\end\{\w+\*?\}|\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|[^\W\d_]|\s+|.",
    re.DOTALL,
)
OPENING, CLOSING = {"(", "[", "{", "\\{", "\\langle"}, {")", "]", "}", "\\}", "\\rangle"}
_ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1, "^": 1, "_": 1}


def tokens(text: str) -> list[str]:
    """Commands, numbers, single letters, blanks, signs; joined they are the text again."""
    return _TOKEN.findall(text)


def braced_arguments(text: str) -> str:
    """\\frac12, \\frac x2, x^2, x^-10, x_12, \\sqrt 3, \\sqrt(2), x^(n+1) with braces around each
    argument. People who write 2^10 without braces mean 2 to the 10, other than TeX."""
    if not any(name in text for name in ("{", *_ARGUMENTS)):
        return text
    left, out, before = tokens(text)[::-1], [], ""
    while left:
        if left[-1] == "{" and not re.fullmatch(r"\\[A-Za-z]+", before):
            out.append(_group(left)[1:-1])  # braces that hold no argument: {5}, {a}b
            before = "}"
            continue
        before = left.pop()
        out.append(before)
        for _ in range(_ARGUMENTS.get(before, 0)):
            if before == "\\sqrt" and _peek(left) == "[":
                out.append(_group(left))
            out.append(_argument(left, before))
    return "".join(out)


def _peek(left: list[str]) -> str:
    while left and left[-1].isspace():
        left.pop()
    return left[-1] if left else ""


def _argument(left: list[str], of: str, naked: int = 0) -> str:
    """The next argument, taken from the end of `left`, in braces; 2^\\frac12 is `naked` twice."""
    first = _peek(left)
    if first == "{":
        return _group(left)
    if first == "(" and of not in ("\\frac", "\\binom"):
        return "{" + _group(left)[1:-1] + "}"
    if not first or first in CLOSING:
        return ""
    if of in ("\\frac", "\\binom") and first.isdigit() and len(first) > 1:
        left[-1] = first[1:]
        return "{" + first[0] + "}"
    sign = left.pop()
    if sign in "+-" and of == "^" and left:
        sign += left.pop()
    count = _ARGUMENTS.get(sign, 0) if naked < 3 else 0
    return "{" + sign + "".join(_argument(left, sign, naked + 1) for _ in range(count)) + "}"


def _group(left: list[str]) -> str:
    """A bracketed group from the end of `left`, inner arguments braced as well."""
    depth, inside = 0, []
    while left:
        token = left.pop()
        depth += (token in OPENING) - (token in CLOSING)
        inside.append(token)
        if depth <= 0:
            break
    whole = "".join(inside)
    return whole[0] + braced_arguments(whole[1:-1]) + whole[-1] if len(inside) > 1 else whole


# ---- structure


def split(text: str, signs: set[str]) -> tuple[list[str], list[str]]:
    """(parts, the signs between them), cut at tokens of `signs` that stand outside all brackets."""
    parts, found, depth, current = [], [], 0, []
    for token in tokens(text):
        depth += (token in OPENING or token.startswith("\\begin")) - (
            token in CLOSING or token.startswith("\\end")
        )
        if depth == 0 and token in signs:
            parts.append("".join(current).strip())
            found.append(token)
            current = []
        else:
            current.append(token)
    return [*parts, "".join(current).strip()], found


def enclosed(text: str) -> tuple[str, str, str] | None:
    """(opening, inside, closing) where one pair of brackets holds all of the text, else None."""
    found = tokens(text)
    if len(found) < 2 or found[0] not in OPENING or found[-1] not in CLOSING:
        return None
    depth = 0
    for token in found[:-1]:
        depth += (token in OPENING) - (token in CLOSING)
        if depth == 0:
            return None
    return found[0], "".join(found[1:-1]).strip(), found[-1]


def depths(text: str) -> tuple[int, int, int]:
    """(lowest, highest, last) depth of brackets in the text; (0, n, 0) where they balance."""
    depth, seen = 0, [0]
    for token in tokens(text):
        depth += (token in OPENING) - (token in CLOSING)
        seen.append(depth)
    return min(seen), max(seen), depth
