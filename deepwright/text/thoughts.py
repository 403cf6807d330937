"""How a completion is laid out: <think> a thought </think> <answer> an answer </answer>, and the words of self-checking.

`ThoughtParser` tells thought from content in text that arrives in pieces; data, reinforcement learning and the server share it. Its rules:
1. A completion has at most one thought, and it comes first: it is open from the start when the prompt ended with the opening tag,
   or opens where nothing but blanks stands before the tag.
2. A thought ends at the first closing tag. Without one, everything is thought.
3. All after it is content, as is everything where no thought opened: tags in it are ordinary text.
4. Text is handed on as it stands, line breaks included. Left out are the two tags that count, blanks before the opening one, and an
   opening tag that the model repeats at the start of a thought that its prompt had already opened.
`read_tags` is stricter: it is the format that a reward pays for.
"""

from __future__ import annotations

from typing import NamedTuple

THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)
# what an author writes after an attempt that failed, and after one that succeeded
WAIT, YES = ("wait", "yes")


def read_tags(completion: str) -> tuple[str, str] | str:
    """(thought, answer) of a completion that is exactly <think>..</think> <answer>..</answer>, or what is wrong with it.

    Both must hold at least one word: an empty think that passes would teach the model to answer without thinking while its
    format looks perfect. Each tag must stand once and in order, with only blanks outside: no answer before the thought,
    none repeated, nothing after. Linear in the length of the completion."""
    for tag in TAGS:
        count = completion.count(tag)
        if count != 1:
            return f"{tag} stands {count} times, expected once"
    places = [completion.index(tag) for tag in TAGS]
    if places != sorted(places):
        return "the tags are out of order"
    before, rest = completion.split(THINK)
    thought, rest = rest.split(END_THINK)
    between, rest = rest.split(ANSWER)
    answer, after = rest.split(END_ANSWER)
    if before.strip() or between.strip() or after.strip():
        return "text outside the tags"
    if not thought.strip():
        return "the thought is empty"
    if not answer.strip():
        return "the answer is empty"
    return thought, answer


class Delta(NamedTuple):
    """What a piece of text added to each side."""

    reasoning: str
    content: str


def ends_in_thought(prompt: str) -> bool:
    """Whether what follows this prompt is a thought already. A tag further back is something that the user wrote."""
    return prompt.rstrip().endswith(THINK)


class ThoughtParser:
    """Incremental: pieces may be cut anywhere, and the deltas add up to what `split_thought` makes of the whole text.

    What could be the beginning of a tag waits until it is decided. Linear in the length of the text."""

    def __init__(
        self, inside: bool = False, opening: str = THINK, closing: str = END_THINK
    ) -> None:
        """`inside`: the prompt ended in an open thought (`ends_in_thought`)."""
        self.inside = inside  # a thought is open
        self._opening, self._closing = opening, closing
        self._begun = False  # decided whether an opening tag stands first
        self._blanks: list[str] = []  # before anything is decided
        self._held = ""

    def feed(self, piece: str) -> Delta:
        self._held += piece
        if not self._begun:
            bare = self._held.lstrip()
            self._blanks.append(self._held[: len(self._held) - len(bare)])
            self._held = bare
            if bare != self._opening and self._opening.startswith(bare):
                return Delta("", "")
            opens = bare.startswith(self._opening)
            self._held = bare[len(self._opening) :] if opens else "".join(self._blanks) + bare
            self.inside, self._begun, self._blanks = self.inside or opens, True, []
        thought, tag, rest = self._held.partition(self._closing)
        if tag and self.inside:
            self.inside, self._held = False, ""
            return Delta(thought, rest)
        waits = (
            max(n for n in range(len(self._closing)) if self._held.endswith(self._closing[:n]))
            if self.inside
            else 0
        )
        ready, self._held = (
            self._held[: len(self._held) - waits],
            self._held[len(self._held) - waits :],
        )
        return Delta(ready, "") if self.inside else Delta("", ready)

    def finish(self) -> Delta:
        """What was still waiting, once no more text comes."""
        rest = "".join(self._blanks) + self._held
        self._blanks, self._held, self._begun = [], "", True
        return Delta(rest, "") if self.inside else Delta("", rest)


def split_thought(text: str, inside: bool = False) -> Delta:
    """(thought, content) of a whole completion."""
    parser = ThoughtParser(inside)
    first, last = parser.feed(text), parser.finish()
    return Delta(first.reasoning + last.reasoning, first.content + last.content)
