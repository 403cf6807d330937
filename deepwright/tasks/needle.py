"""A needle in a haystack, small enough to be learned from nothing: whose number is which, said once somewhere in a long text.

    the sun is warm . note bado 17 . the bird seems far . ... recall bado 17 . ... finally bado 17

Sentences of a few words stand around notes of numbers, and any number that was noted may be recalled
later; the last sentence of a text always does so. Every word is one token of the task's own
vocabulary, so `length` is the number of tokens. A training document recalls many numbers, at every
distance that fits into it; a held-out problem is a text of `length` words with the asked number
noted at one of `depths` depths (0: the begin), other notes before and after it, and nothing recalled
before its end. Names, numbers and sentences are drawn anew for each text: there is nothing to know
but where to look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from deepwright.refusals import expect
from deepwright.seeds import pick, stream
from deepwright.tasks.task import Problem, Score, Split, Verdict

_DOCUMENT, _ASKED = 56, 57  # purposes of random streams
NAMES = tuple(
    first + second
    for first in ("ba", "de", "fi", "go", "hu", "ka", "le", "mi")
    for second in ("do", "na", "pi", "re", "su", "ta", "ve", "xi")
)
PLACES = ("sun", "moon", "bird", "tree", "river", "stone", "wind", "rain", "house", "road", "hill",
          "cloud", "fish", "horse", "field", "lamp")  # fmt: skip
DOES = ("is", "was", "stays", "seems", "looks", "grows")
HOW = ("warm", "cold", "quiet", "bright", "old", "near", "far", "small", "great", "slow", "green",
       "grey")  # fmt: skip
NOTED_IN_HAY = 0.1  # of the sentences of a held-out text
FEWEST = 4  # notes before the first is recalled: of fewer a guess is right too often to learn more
SHORTEST = 32  # words of a training document
KEYS = 20  # different numbers
_LAST = 3  # words of the last sentence of a document


@dataclass(frozen=True)
class Needle:
    """`length`: words of a text. Of its sentences that are no hay `noted` note a number, and the others recall
    one; in a held-out text one sentence in ten notes a number."""

    seed: int = 0
    length: int = 512
    depths: int = 11  # at which the asked number stands: 0, 10 .. 100% for 11
    noted: float = 0.3
    held_out: int = 2200

    name = "needle"

    def __post_init__(self) -> None:
        expect(32 <= self.length <= 1 << 20, "length", self.length, "32 to 1048576 words")
        expect(2 <= self.depths <= 101, "depths", self.depths, "2 to 101")
        expect(self.held_out >= 1, "held_out", self.held_out, "at least 1")
        expect(0 < self.noted < 1, "noted", self.noted, "a share between 0 and 1")

    def document(self, i: int) -> str:
        """Training document i, of up to `length` words. Short ones are as likely as long ones on a
        logarithmic scale, and how much of one is hay differs from none to nearly all: looking up
        is learned where little else is to be read, long before it is found in much hay."""
        rng = stream(self.seed, _DOCUMENT, i)
        length = int(SHORTEST * (self.length / SHORTEST) ** rng.random())
        hay = rng.random()
        known: dict[str, int] = {}
        words: list[str] = []
        while True:
            noted = dict(known)
            if rng.random() < hay and (known or len(words) < length // 2):
                sentence = _sentence(rng)
            elif len(known) < len(NAMES) and (rng.random() < self.noted or len(known) < FEWEST):
                sentence = self._statement(rng, known)
            else:
                sentence = [*_recalled("recall", rng, known), "."]
            if noted and len(words) + len(sentence) > length - _LAST:
                return " ".join([*words, *_recalled("finally", rng, noted)])
            words += sentence

    def labelled(self, i: int) -> tuple[str, str]:
        """(kind, document): what a mixed corpus asks for."""
        return "haystacks", self.document(i)

    def problem(self, i: int, split: Split) -> Problem:
        """Held-out problem i; the training problems are others of the same kind."""
        if split == "held_out" and not 0 <= i < self.held_out:
            raise ValueError(f"item {i} of held_out: expected 0 to {self.held_out - 1}")
        rng = stream(self.seed, _ASKED, 2 * i + (split == "held_out"))
        depth = i % self.depths / (self.depths - 1)
        known: dict[str, int] = {}
        needle = self._statement(rng, known)
        (name,) = known
        question = ["finally", name]
        room = self.length - len(needle) - len(question)
        hay = list(self._hay(rng, known, room))
        place = _nearest(hay, depth * room)
        words = [word for sentence in [*hay[:place], needle, *hay[place:]] for word in sentence]
        text = " ".join([*words, *question])
        return Problem(i, text, str(known[name]), f"depth {round(100 * depth):>3}%")

    def _hay(self, rng: Random, known: dict[str, int], room: int) -> Iterator[list[str]]:
        """Sentences of at most `room` words in all, with other notes among them."""
        while True:
            states = rng.random() < NOTED_IN_HAY and len(known) < len(NAMES)
            sentence = self._statement(rng, known) if states else _sentence(rng)
            room -= len(sentence)
            if room < 0:
                return
            yield sentence

    def _statement(self, rng: Random, known: dict[str, int]) -> list[str]:
        name = pick(rng, [name for name in NAMES if name not in known])
        known[name] = int(rng.random() * KEYS)
        return ["note", name, str(known[name]), "."]

    def size(self, split: Split) -> int:
        return self.held_out

    def score(self, problem: Problem, completion: str) -> Score:
        """Right is the number as the first word."""
        said = re.match(r"\s*([0-9]+)\b", completion, re.ASCII)
        if said is None:
            return Score(0.0, Verdict.MALFORMED, "says no number")
        right = said[1] == problem.answer
        parts = {"accuracy": float(right), "format": 0.0}
        verdict = Verdict.CORRECT if right else Verdict.WRONG
        return Score(float(right), verdict, f"says {said[1]}", parts)

    def tokenizer_words(self) -> tuple[str, ...]:
        return ("note", "recall", "finally", ".", "the", *PLACES, *DOES, *HOW, *NAMES)

    @property
    def largest_number(self) -> int:
        return KEYS - 1


def _recalled(word: str, rng: Random, known: dict[str, int]) -> list[str]:
    name = pick(rng, list(known))
    return [word, name, str(known[name])]


def _sentence(rng: Random) -> list[str]:
    return ["the", pick(rng, PLACES), pick(rng, DOES), pick(rng, HOW), "."]


def _nearest(hay: Sequence[Sequence[str]], words: float) -> int:
    """How many sentences come before the place after about so many words."""
    passed, best = 0, 0
    for place, sentence in enumerate(hay, 1):
        if abs(passed + len(sentence) - words) <= abs(passed - words):
            best = place
        passed += len(sentence)
    return best
