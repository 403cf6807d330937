"""Where a reference answer stands in what data files hold: numbers, lists of one, solutions.

By these rules, in this order; what none of them finds is left out, never taken whole, since nobody
could be right against it:

1. a number, or a list (also as the text of JSON or Python) whose only member it is;
2. the last \\boxed{..} of a text (MATH);
3. what follows its last #### on that line: GSM8K's last line, or a number wherever it stands;
4. what follows its last "the answer is" or "answer:", to the end of that sentence;
5. the text itself, where it can be judged: a number, a few words, an expression; no sentence,
   no program and no object of JSON.

Tags around an answer (<answer>..</answer>) are taken off before.
"""

from __future__ import annotations

import ast
import math
import re
from decimal import Decimal

from deepwright.files import parse_json
from deepwright.refusals import quoted
from deepwright.tasks.answers import judgeable, number
from deepwright.tasks.completions import last_boxed

LONGEST = 400  # characters of a reference
MAX_WORDS = 6  # of a reference in words, or beside an expression
SENTENCE = 4  # as many words that end with a full stop are one
_BOX = re.compile(r"\\f?box(?:ed)?(?![A-Za-z])\s*")
_SAID = re.compile(r"(?i)\banswer(?:\*\*)?\s*(?:is|:|=)+[\s:*]*|答案\s*[是为:\uff1a]+\s*")
_SENTENCE_END = re.compile(r"[.\u3002](?:\s|$)|\n")
_GROUPS = re.compile(r"-?[0-9]{1,3}(?:[ \u00a0\u202f][0-9]{3})+(?:\.[0-9]+)?")  # 1 200
_COUNTED = re.compile(  # 15 dollars
    rf"({_GROUPS.pattern}|\S+)\s+(?:\([a-z .-]+\)|[a-z .-]+)", re.IGNORECASE
)
# Words: of LaTeX neither a command nor what a matrix begins and ends with.
_LETTERS = re.compile(r"\\(?:begin|end)\{\w+\}(?:\{[^{}]*\})?|\\[A-Za-z]+|[^\W\d_]{2,}")
# What makes a sentence of words: as an answer they would be a person's prose.
_PROSE = set(
    "is are was were be been has have had equals get gets got we he she it they there this that so"
    " thus then therefore hence because since not let find".split()
)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_OTHER_DATA = re.compile(  # an object of JSON, a program
    r"^\s*\{\s*[\"']|^ *(?:def|class) \w+.*:|^ *(?:import|from) \w+|^#include|^ *return\b",
    re.MULTILINE,
)
_MISSING = {"proof", "notfound", "not found", "n/a", "nan", "null", "none"}


def reference(value: object) -> str:
    """The reference answer that one cell of a data file holds. ValueError says why it has none."""
    if isinstance(value, (list, tuple)):
        return _only_one(value)
    if isinstance(value, str) and value.lstrip().startswith('["'):
        return _only_one(parse_json(value[: 10 * LONGEST], "its answer"))
    if isinstance(value, str) and value.lstrip().startswith("['"):
        return _only_one(_python_list(value.strip()))
    return _single(value)


def _python_list(text: str) -> list[object]:
    """How pandas writes a column of lists into CSV: "['2']"."""
    try:
        return list(ast.literal_eval(text[: 10 * LONGEST]))
    except (ValueError, SyntaxError, RecursionError):
        raise ValueError(f"no answer found in {quoted(text, 80)}") from None


def _only_one(members: list[object] | tuple[object, ...]) -> str:
    found = {_single(member) for member in members[:100] if member not in (None, "")}
    if len(found) != 1:
        raise ValueError(f"no answer: {len(found)} of them in {quoted(members, 60)}, expected one")
    return found.pop()


def _single(value: object) -> str:
    if isinstance(value, str):
        return _in_text(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float, Decimal)) and math.isfinite(value):
        return str(int(value)) if value == int(value) else format(Decimal(str(value)), "f")
    raise ValueError(f"no answer: {quoted(value, 60)} is neither a text nor a number")


def _in_text(text: str) -> str:
    text = next(reversed(_TAGGED.findall(text)), text)
    found = last_boxed(text) or _behind_hashes(text) or _behind_words(text) or text
    if not _is_answer(found.strip()):
        raise ValueError(f"no answer found in {quoted(text, 80)}")
    return _tidy(found)


def _is_answer(text: str) -> bool:
    """A number, a few words or an expression: neither a sentence nor a sign that one is missing."""
    if len(text) > LONGEST or not re.search(r"\w", text) or "####" in text or _BOX.search(text):
        return False
    if text.casefold().rstrip(".") in _MISSING or _OTHER_DATA.search(text) or judgeable(text):
        return False
    if number(text) is not None:
        return True
    words = [word.casefold() for word in _LETTERS.findall(text) if word[0] != "\\"]
    most = SENTENCE - 1 if text.endswith((".", "\u3002")) else MAX_WORDS
    return len(words) <= most and not _PROSE.intersection(words)


def _behind_hashes(text: str) -> str | None:
    """A heading of Markdown, of which only a line without a number reminds, is no answer."""
    _, hashes, rest = text.rpartition("####")
    line, _, more = rest.strip().partition("\n")
    if not hashes or not line or len(line) > LONGEST:
        return None
    counted = _without_unit(line)
    return counted if number(counted) is not None or not more.strip() else None


def _behind_words(text: str) -> str | None:
    if not (said := list(_SAID.finditer(text))):
        return None
    return _SENTENCE_END.split(text[said[-1].end() :][: 2 * LONGEST], maxsplit=1)[0]


def _without_unit(line: str) -> str:
    """ "15 dollars" -> "15"; all else as it is."""
    found = _COUNTED.fullmatch(line.rstrip("."))
    counted = _joined(found[1]) if found else ""
    return counted if number(counted) is not None else _joined(line)


def _joined(answer: str) -> str:
    """ "1 200" -> "1200"; all else as it is."""
    return re.sub(r"\s", "", answer) if _GROUPS.fullmatch(answer) else answer


def _tidy(answer: str) -> str:
    """Without blanks and stars around it and blanks between thousands, a unit in parentheses
    ("9 (apples)") or a full stop at its end."""
    answer = answer.strip().strip("*").strip()
    if number(answer) is None:
        answer = answer.rstrip(".\u3002")
    in_parentheses = re.search(r"\([a-z .-]+\)$", answer, re.IGNORECASE)
    return _without_unit(answer) if in_parentheses else _joined(answer)
