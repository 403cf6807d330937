"""Which of the choices A to J an answer names: alone, with its text behind it, or several."""

from __future__ import annotations

import re

from deepwright.tasks.values import Value, words

LETTERS = "ABCDEFGHIJ"
_NAMED = re.compile(r"(?:(?:option|choice|选项?) ?)?\(?([a-j])(?:[).:]\s*(\S.*)|\)?)", re.DOTALL)
# What follows the letter is the choice's text, and not another letter or a change of mind.
_ANOTHER = re.compile(r"\b(?:and|or|not)\b|\(?\b[a-j]\b[).:]|^[a-j]$")


def is_choice(value: Value) -> bool:
    """One of the letters A to J."""
    return len(value.text) == 1 and value.text in LETTERS


def choice(reference: Value) -> str:
    """The letter, where the reference is one: C, (C), \\text{C}; else ''."""
    letter = words(reference.text).upper()
    said = is_choice(reference) or (reference.kind == "words" and len(letter) == 1)
    return letter if said and letter in LETTERS else ""


def chosen(answer: Value) -> str:
    """The letter that an answer names: (C), C), C. 12, (C) 12, option C, 选C; else ''."""
    found = _NAMED.fullmatch(words(answer.text))
    if found is None or answer.kind not in ("words", "expression", "ratio"):
        return ""
    return "" if found[2] and _ANOTHER.search(found[2]) else found[1].upper()


def several(value: Value) -> str:
    """As "ACD" for ACD and for A, C, D; '' where two letters or more are not all there is."""
    letters = "".join(map(choice, value.parts)) if value.kind == "list" else value.text
    letters = "".join(sorted(letters)) if len(letters) == len(value.parts) else letters
    run = re.fullmatch(f"[{LETTERS}]{{2,}}", letters) and list(letters) == sorted(set(letters))
    return letters if run else ""
