"""The page in Chinese: looks up every text of a finished page in chinese.toml and hands the script what it found, to swap the two in place.

So the modules that write the page know one language, and a text without an entry shows in English. An entry is a whole text or one sentence of it;
{0}, {1} stand for what varies, which is itself looked up. Left in English: <pre> and <code>, whatever says translate="no", and the hints that a browser
shows where a pointer rests (title), as there are thousands in a map of experts.
"""

from __future__ import annotations

import html
import re
import tomllib
from functools import lru_cache
from pathlib import Path

ENTRIES: dict[str, str] = tomllib.loads(
    (Path(__file__).parent / "chinese.toml").read_text(encoding="utf-8")
)
SAID_BY_SCRIPT = ("step", "This page was last rewritten {0} minutes ago: the run may have stopped.")
LONGEST = 400  # characters of a text that is held against the entries with gaps

_GAP = re.compile(r"\\\{(\d)\\\}")
# so that the closest one counts
_LONGEST_FIRST = sorted((entry for entry in ENTRIES if "{0}" in entry), key=len, reverse=True)
_GAPPED = [
    (re.compile(_GAP.sub(r"(?P<_\1>.+?)", re.escape(entry))), ENTRIES[entry])
    for entry in _LONGEST_FIRST
]
_SENTENCE_END = re.compile(r"(?<=[.?!]) ")
_AS_IT_STANDS = re.compile(
    r"<(pre|code)\b.*?</\1>|<[^<>]+ translate=\"no\">[^<]*|<title>[^<]*", re.DOTALL
)
_TEXTS = re.compile(r'>([^<>]+)<|label="([^"]+)"')


def translations(body: str) -> dict[str, str]:
    """Text on the page, or in its script -> Chinese."""
    return {text: found for text in (*texts(body), *SAID_BY_SCRIPT) if (found := chinese(text))}


def texts(body: str) -> list[str]:
    """Every different text that a reader can see, in order."""
    shown = _TEXTS.findall(_AS_IT_STANDS.sub("", body))
    return list(dict.fromkeys(html.unescape(element or attribute) for element, attribute in shown))


@lru_cache(maxsize=4096)
def chinese(text: str) -> str | None:
    """The entry for a whole text, those of all its sentences, or one with gaps; None where there is none."""
    if text in ENTRIES:
        return ENTRIES[text]
    if (bare := text.strip()) != text:
        return text.replace(bare, found) if bare and (found := chinese(bare)) else None
    sentences = _SENTENCE_END.split(text)
    if len(sentences) > 1 and all(found := [chinese(sentence) for sentence in sentences]):
        return "".join(filter(None, found))
    for pattern, entry in _GAPPED if len(text) <= LONGEST else ():
        if match := pattern.fullmatch(text):
            return entry.format(
                *(chinese(part) or part for _, part in sorted(match.groupdict().items()))
            )
    return None
