"""Where the answer stands in a completion: one reader, strict or as usual; the boxes of solutions.

`strict` is what a reward pays for: the layout exactly as asked, once, behind a thought that is not
empty. `usual` is for evaluating other people's models, which repeat their answer, switch thinking
off or have their thought opened by the prompt: what counts is the content after the thought, and
one answer in it, however often it stands there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

from deepwright.text.thoughts import ANSWER, END_ANSWER, END_THINK, THINK, read_tags

Layout = Literal["tags", "boxed"]
Reading = Literal["strict", "usual"]
READINGS: tuple[Reading, ...] = ("strict", "usual")
BOX = "\\boxed"
_BOXES = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
# \boxed 9: TeX boxes the next sign, people mean the number or the word. Not the beginning of
# something longer; where a reward is paid, nothing but the end of the formula may follow.
_NAKED = re.compile(r"\s*(-?[0-9]+(?:[.,/][0-9]+)*|[A-Za-z]+)")
_GOES_ON = re.compile(r"\s*(?:[-+*/^_=(\[{<>]|\\[A-Za-z])|[^\W_]")
_FORMULA_ENDS = re.compile(r"\s*(?:\$|\\\)|\\\]|[.。]?\s*$)")


def read_completion(
    completion: str,
    layout: Layout,
    reading: Reading = "strict",
    same: Callable[[str, str], bool] = str.__eq__,
) -> tuple[str, str] | str:
    """(thought or what stands before the answer, answer), or what is wrong with the layout.

    `same` says of two answers whether they are one, for `usual`. Linear in the length."""
    if reading == "usual":
        return _read_usual(completion, layout, same)
    return read_tags(completion) if layout == "tags" else read_boxed(completion)


def read_boxed(completion: str) -> tuple[str, str] | str:
    """(what stands before it, answer) of a completion with exactly one balanced \\boxed{..} that is
    not empty, or what is wrong.

    A thought may come first, whether its <think> stands in the completion or ended the prompt; then
    the box stands after </think>, the thought is not empty, and there is one thought."""
    opened, closed = completion.count(THINK), completion.count(END_THINK)
    if opened > 1 or closed > 1 or opened > closed:
        return (
            f"{THINK} stands {opened} times and {END_THINK} {closed} times, "
            "expected one thought that ends"
        )
    thought, _, rest = completion.rpartition(END_THINK)
    before, _, inside = thought.rpartition(THINK)
    if before.strip() or THINK in rest:
        return "text before the thought"
    if closed and not inside.strip():
        return "the thought is empty"
    count = rest.count(BOX)
    if count != 1:
        return f"{BOX} stands {count} times{' after the thought' if closed else ''}, expected once"
    answer = _boxed(rest, rest.index(BOX) + len(BOX), strict=True)
    if answer is None:
        return f"{BOX} without balanced braces"
    return (completion, answer) if answer.strip() else f"{BOX} is empty"


def _read_usual(
    completion: str, layout: Layout, same: Callable[[str, str], bool]
) -> tuple[str, str] | str:
    thought, _, content = completion.rpartition(END_THINK)
    if THINK in content:
        return "the thought does not end"
    if layout == "tags":
        found = [text for text in _tagged(content) if text.strip()]
        found = [_innermost(text) for text in found]
    else:
        found = [_innermost(text) for text in boxes(content) if text.strip()]
    if not found:
        return f"no {'answer in tags' if layout == 'tags' else BOX} after the thought"
    if not all(one == found[-1] or same(one, found[-1]) for one in found[:-1]):
        return f"{len(found)} answers that are not the same"
    return thought or completion, found[-1]


def _tagged(content: str) -> Iterator[str]:
    for piece in content.split(ANSWER)[1:]:
        text, closed, _ = piece.partition(END_ANSWER)
        if closed:
            yield text


def _innermost(text: str) -> str:
    """The answer in a box that holds nothing but another one."""
    while (found := _BOXES.search(text)) and (inner := _boxed(text, found.end())) is not None:
        if not inner.strip():
            break
        text = inner
    return text


def boxes(text: str) -> list[str]:
    """What the boxes of a text hold, in order; boxes within boxes belong to the outer one."""
    found, place = [], 0
    while match := _BOXES.search(text, place):
        inside = _boxed(text, match.end())
        place = match.end() + (len(inside) if inside is not None else 0)
        if inside is not None:
            found.append(inside)
    return found


def last_boxed(text: str) -> str | None:
    """The last box of a reference solution, as MATH writes its answers: \\boxed{9}, \\boxed {9},
    \\boxed 9, \\fbox{9}. None where there is none."""
    places = [match.end() for match in _BOXES.finditer(text)]
    return _boxed(text, places[-1]) if places else None


def _boxed(text: str, start: int, strict: bool = False) -> str | None:
    """What a box holds whose command ends at `start`: in braces, or the number or word after it."""
    rest = text[start:]
    if rest.lstrip().startswith("{"):
        return braced(rest.lstrip())
    found = _NAKED.match(rest)
    if found is None or _GOES_ON.match(rest, found.end()):
        return None
    return found[1] if not strict or _FORMULA_ENDS.match(rest, found.end()) else None


def braced(text: str) -> str | None:
    """What the braces that open `text` hold; None where they do not open or do not close.

    \\{ and \\} are characters, not braces."""
    if not text.startswith("{"):
        return None
    depth, escaped = 0, False
    for i, letter in enumerate(text):
        if not escaped and letter in "{}":
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return text[1:i]
        escaped = letter == "\\" and not escaped
    return None
