"""The program in an answer that is written as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass

# Behind text on the same line too: "Solution: ```python". Two of them in a line are code within it.
_OPENING = re.compile(r"(?:(?!```|~~~).)*(`{3,}|~{3,})[ \t]*([^`\n]*)$")
_PYTHON = re.compile(r"\{?\s*\.?(?:python|py|ipython)(?:[23](?:\.\d+)?)?(?![\w+#-])", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """`info`: what stands behind the opening fence, "" for nothing."""

    info: str
    text: str

    @property
    def python(self) -> bool:
        return bool(_PYTHON.match(self.info))


def program_of(answer: str, names: Collection[str] = ()) -> str:
    """The last block that is called Python; the last without a name where none is; the last of all
    where each has another name; all of the answer where there are no blocks.

    Of blocks of one kind the last that defines one of `names`, if any does: what follows it is an
    example of its use."""
    found = list(blocks(answer))
    for wanted in ("python", "unnamed", "any"):
        kind = [
            block.text
            for block in reversed(found)
            if wanted == "any" or (block.python if wanted == "python" else not block.info)
        ]
        if kind:
            return next((text for text in kind if _defines(text, names)), kind[0])
    return answer


def _defines(text: str, names: Collection[str]) -> bool:
    either = "|".join(map(re.escape, names))
    found = rf"^(?:(?:async +def|def|class) +(?:{either})\b|(?:{either})\s*(?::[^=\n]+)?=(?!=))"
    return bool(names) and re.search(found, text, re.MULTILINE) is not None


def blocks(answer: str) -> Iterator[Block]:
    """The fenced blocks of a text in their order; the last need not be closed."""
    fence, info, inside = "", "", []
    for line in answer.splitlines(keepends=True):
        opening = _OPENING.match(line.rstrip())
        if fence and _ends(line, fence):
            yield _block(info, inside)
            fence = ""
        elif not fence and opening:
            fence, info, inside = opening[1], opening[2].strip(), []
        elif fence:
            inside.append(line)
    if fence:
        yield _block(info, inside)


def _ends(line: str, fence: str) -> bool:
    """The same characters, at least as many, at the beginning, no name directly behind them."""
    stripped = line.lstrip()
    length = len(stripped) - len(stripped.lstrip(fence[0]))
    return length >= len(fence) and not stripped[length:][:1].isalnum()


def _block(info: str, lines: list[str]) -> Block:
    return Block(info, textwrap.dedent("".join(lines)))
