"""A needle in a haystack, small enough to be learned from nothing: who was given which key, said once somewhere in a long text.

    the sun is warm . key of bado is 17 . a bird sings here . ... key of bado ? 17 .

Sentences of a few words stand around statements of keys; a question may ask for any key that was
stated before. Every word is one token of the task's own vocabulary, so `length` is the number of
tokens. A training document asks many questions, at every distance that fits into it; a held-out
problem is a text of `length` words with the asked key stated at one of `depths` depths (0: the
begin), other keys before and after it, and one question at the end. Names, keys and sentences are
drawn anew for each text: there is nothing to know but where to look.
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
    f"{first}{second}" for first in ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu",
    "ra", "se", "ti", "vo", "wu", "za") for second in ("do", "fa", "gi", "ke", "lu", "mo", "na", "pi",
    "re", "su", "ta", "ve", "wo", "xi", "yu", "zo")
)  # fmt: skip
PLACES = ("sun", "moon", "bird", "tree", "river", "stone", "wind", "rain", "house", "road", "hill",
          "cloud", "fish", "horse", "field", "lamp")  # fmt: skip
DOES = ("is", "was", "stays", "seems", "looks", "grows")
HOW = ("warm", "cold", "quiet", "bright", "old", "near", "far", "small", "great", "slow", "green",
       "grey")  # fmt: skip
KEYS = 100


@dataclass(frozen=True)
class Needle:
    """`length`: words of a text. Of its sentences `stated` state a key; of those of a training
    document `asked` ask for one."""

    seed: int = 0
    length: int = 512
    depths: int = 11  # at which the asked key stands: 0, 10 .. 100% for 11
    stated: float = 0.08
    asked: float = 0.15
    held_out: int = 2200

    name = "needle"

    def __post_init__(self) -> None:
        expect(32 <= self.length <= 1 << 20, "length", self.length, "32 to 1048576 words")
        expect(2 <= self.depths <= 101, "depths", self.depths, "2 to 101")
        expect(self.held_out >= 1, "held_out", self.held_out, "at least 1")
        for name in ("stated", "asked"):
            expect(0 < getattr(self, name) < 0.5, name, getattr(self, name), "a share below 0.5")

    def document(self, i: int) -> str:
        """Training document i, of `length` words or a few less."""
        rng = stream(self.seed, _DOCUMENT, i)
        known: dict[str, int] = {}
        words: list[str] = []
        while True:
            chance = rng.random()
            if known and chance < self.asked:
                name = pick(rng, list(known))
                sentence = [*_question(name), str(known[name]), "."]
            elif chance < self.asked + self.stated and len(known) < len(NAMES):
                sentence = self._statement(rng, known)
            else:
                sentence = _sentence(rng)
            if len(words) + len(sentence) > self.length:
                return " ".join(words)
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
        question = _question(name)
        room = self.length - len(needle) - len(question)
        hay = list(self._hay(rng, known, room))
        place = _nearest(hay, depth * room)
        words = [word for sentence in [*hay[:place], needle, *hay[place:]] for word in sentence]
        text = " ".join([*words, *question])
        return Problem(i, text, str(known[name]), f"depth {round(100 * depth):>3}%")

    def _hay(self, rng: Random, known: dict[str, int], room: int) -> Iterator[list[str]]:
        """Sentences of at most `room` words in all, with other keys among them."""
        while True:
            states = rng.random() < self.stated and len(known) < len(NAMES)
            sentence = self._statement(rng, known) if states else _sentence(rng)
            room -= len(sentence)
            if room < 0:
                return
            yield sentence

    def _statement(self, rng: Random, known: dict[str, int]) -> list[str]:
        name = pick(rng, [name for name in NAMES if name not in known])
        known[name] = int(rng.random() * KEYS)
        return ["key", "of", name, "is", str(known[name]), "."]

    def size(self, split: Split) -> int:
        return self.held_out

    def score(self, problem: Problem, completion: str) -> Score:
        """Right is the key as the first word."""
        said = re.match(r"\s*([0-9]+)\b", completion, re.ASCII)
        if said is None:
            return Score(0.0, Verdict.MALFORMED, "says no number")
        right = said[1] == problem.answer
        parts = {"accuracy": float(right), "format": 0.0}
        verdict = Verdict.CORRECT if right else Verdict.WRONG
        return Score(float(right), verdict, f"says {said[1]}", parts)

    def tokenizer_words(self) -> tuple[str, ...]:
        return ("key", "of", "?", ".", "the", *PLACES, *DOES, *HOW, *NAMES)

    @property
    def largest_number(self) -> int:
        return KEYS - 1


def _question(name: str) -> list[str]:
    return ["key", "of", name, "?"]


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
