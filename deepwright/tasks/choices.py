"""Questions with choices: shown with a letter each, answered by the letter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from deepwright.refusals import quoted

Row = Mapping[str, Any]


def ask_with_choices(row: Row, question: str) -> str:
    """The question with a line for each choice, or with them as they are where they are a text."""
    found = _choices(row)
    lines = [f"{label}. {text}" for label, text in found.items()] or [_column(row).strip()]
    return "\n".join([question, *lines, "Answer with the letter of the right choice alone."])


def letter(row: Row, answer: object) -> str:
    """The label of the right choice, which is given by label, place (from 0) or text."""
    found = _choices(row)
    labels = list(found) or list(ascii_uppercase)
    if isinstance(answer, int) and not isinstance(answer, bool):
        if found and 0 <= answer < len(labels) and str(answer) not in labels:
            return labels[answer]
        answer = str(answer)
    if isinstance(answer, str):
        said = re.sub(r"^\((\w)\)$|^(\w)[.)]$", r"\1\2", answer.strip()[:200])
        by_text = [label for label, text in found.items() if text == answer.strip()]
        if said in labels or len(by_text) == 1:
            return said if said in labels else by_text[0]
    raise ValueError(f"no answer: {quoted(answer, 60)} is none of the choices {', '.join(labels)}")


def _column(row: Row) -> Any:
    return row.get("choices") or row.get("options")


def _choices(row: Row) -> dict[str, str]:
    """Label -> text; {} where the choices are one text, which labels them itself."""
    given = _column(row)
    if isinstance(given, str):
        return {}
    if isinstance(given, Mapping) and isinstance(given.get("text"), list):  # ARC
        labels, texts = given.get("label"), given["text"]
        labels = list(ascii_uppercase[: len(texts)]) if labels is None else labels
    elif isinstance(given, Mapping):
        labels, texts = list(given), list(given.values())
    else:
        labels, texts = list(ascii_uppercase), given
    if not isinstance(texts, list) or not isinstance(labels, list) or not 1 < len(texts) <= 26:
        raise ValueError(f"its choices are {quoted(given, 60)}, expected 2 to 26 texts")
    if not all(isinstance(text, (str, int, float)) for text in texts):
        raise ValueError(f"its choices are {quoted(given, 60)}, expected texts")
    marked = r"^\(?{}[.):]\s*"  # "A) five": the letter stands there already
    return {
        str(label): re.sub(marked.format(re.escape(str(label))), "", str(text).strip())
        for label, text in zip(labels, texts)
    }
