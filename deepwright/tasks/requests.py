"""Requests without one right answer, in two written languages: greet somebody, thank somebody, name some things. For the stages after reasoning.

What makes an answer good is stated rules (`helpful`, `safe`), so that preferences can be generated and a reward model held against their source:
a game of a few dozen words that shows the machinery and says nothing about what people prefer. Authors answer in STYLES, from best to rude.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from random import Random
from typing import NamedTuple

from deepwright.seeds import pick, shuffled, stream
from deepwright.tasks.answers import digest
from deepwright.tasks.task import (
    Problem,
    Score,
    Split,
    check_rewards,
    framed,
    read_layout,
    score_tags,
)
from deepwright.text.languages import LANGUAGES, check_languages

_PAIR, _DOCUMENT, _ORDER = 52, 53, 54  # purposes of random streams
_HELD_OUT_OF = 4
_LONGEST = 10  # words of a concise answer
PEOPLE = tuple("ann bob cem dia eva finn gus ida jon kim leo mia noa oli pia ray".split())
OUTSIDE = -1.0  # the preference of an answer outside the layout, lower than that of any inside but the worst rude one
STYLES = ("best", "curt", "off topic", "other language", "rambling", "rude")


class Request(NamedTuple):
    language: str
    verb: str  # greet | thank | name
    what: str  # a person, or a class of things
    count: int = 0  # of things

    @property
    def most(self) -> int:
        """Of what is named in an answer."""
        return max(1, self.count)


CLASS_OF = {
    word: kind
    for one in LANGUAGES.values()
    for kind, (_, members) in one.things.items()
    for word in members
}
CLASSES = tuple(LANGUAGES["en"].things)
_JOINTS = {one.joint for one in LANGUAGES.values()}


@dataclass(frozen=True)
class Requests:
    """Every request to `PEOPLE` and for 1 to 3 things of each class; one in four, by a hash of its text, is held out."""

    seed: int = 0
    languages: tuple[str, ...] = ("en", "zh")
    format_reward: float = 0.1
    document_seed: int = 0  # of `labelled` alone

    name = "requests"

    def __post_init__(self) -> None:
        check_languages(self.languages)
        check_rewards(self, ("format_reward",))

    @cached_property
    def requests(self) -> dict[str, tuple[Request, ...]]:
        people = [
            Request(language, verb, who)
            for language, verb, who in product(self.languages, ("greet", "thank"), PEOPLE)
        ]
        things = [
            Request(language, "name", what, n)
            for language, what, n in product(self.languages, CLASSES, (1, 2, 3))
        ]
        found: dict[str, list[Request]] = {"train": [], "held_out": []}
        for request in (*people, *things):
            found["train" if digest(written(request)) % _HELD_OUT_OF else "held_out"].append(
                request
            )
        return {
            split: tuple(shuffled(stream(self.seed, _ORDER, 0), members))
            for split, members in found.items()
        }

    def size(self, split: Split) -> int:
        if split not in self.requests:
            raise ValueError(f"split is {split!r}, expected 'train' or 'held_out'")
        return len(self.requests[split])

    def problem(self, i: int, split: Split) -> Problem:
        size = self.size(split)
        if i < 0 or (split == "held_out" and i >= size):
            raise ValueError(f"item {i} of {split}: expected 0 to {size - 1}")
        request = self.requests[split][i % size]
        return Problem(
            i,
            written(request),
            answered(Random(i), request, "best"),
            request.verb,
            columns={"request": request},
        )

    def score(self, problem: Problem, completion: str) -> Score:
        """Right: helpful by every rule, and safe."""
        request = problem.columns["request"]
        return score_tags(
            completion,
            lambda answer: (helpful(request, answer) == 1 and safe(completion), "by rules"),
            self.format_reward,
        )

    def pair(self, i: int, split: Split) -> tuple[Problem, str, str]:
        """(problem, better completion, worse one) number i: two styles whose answers the rules tell apart."""
        rng = stream(self.seed, _PAIR, 2 * i + (split == "train"))
        problem = self.problem(int(rng.random() * self.size(split)), split)
        request = problem.columns["request"]
        while True:
            one, two = (completed(rng, request, pick(rng, STYLES)) for _ in range(2))
            worth = [preference(request, text) for text in (one, two)]
            if worth[0] != worth[1]:
                return (problem, one, two) if worth[0] > worth[1] else (problem, two, one)

    def labelled(self, i: int) -> tuple[str, str]:
        """(kind, document) of item i: what a base model reads, by an author of any style. Held-out requests never occur."""
        rng = stream(self.document_seed, _DOCUMENT, i)
        request = pick(rng, self.requests["train"])
        return "requests", f"{written(request)} {completed(rng, request, pick(rng, STYLES))}"

    def tokenizer_words(self) -> tuple[str, ...]:
        return (
            *PEOPLE,
            *(word for language in self.languages for word in LANGUAGES[language].request_words),
        )

    @property
    def largest_number(self) -> int:
        return 3


def written(request: Request) -> str:
    """ "name 2 animals :"."""
    own = LANGUAGES[request.language]
    what = [str(request.count), own.things[request.what][0]] if request.count else [request.what]
    return " ".join([own.says[request.verb][0], *what, own.colon])


def answered(rng: Random, request: Request, style: str) -> str:
    """What an author of the style answers."""
    other = next((name for name in LANGUAGES if name != request.language), request.language)
    own, what = LANGUAGES[other if style == "other language" else request.language], request.what
    if style == "off topic":
        what = pick(rng, [one for one in (CLASSES if request.count else PEOPLE) if one != what])
    if request.count:
        what = f" {own.joint} ".join(shuffled(rng, own.things[what][1])[: request.count])
    said = own.says[request.verb][1].format(what)
    return {"curt": what, "rude": f"{own.rude} {what}", "rambling": f"{said} {said} {said}"}.get(
        style, said
    )


def completed(rng: Random, request: Request, style: str) -> str:
    """The answer in the layout, after a thought that repeats the request."""
    return framed("tags", " ".join(written(request).split()[:-1]), answered(rng, request, style))


def helpful(request: Request, answer: str) -> float:
    """Share of four rules that an answer keeps: on the topic (it names what was asked for, each
    once, and nothing else), polite (it begins as the best answer does in either language, and its
    other words are of that one), in the language of the request (every word), concise (short, and
    no word again). The summary alone is judged."""
    said = answer.split()
    things, people, joints = (
        [word for word in said if word in known] for known in (CLASS_OF, PEOPLE, _JOINTS)
    )
    phrase = [word for word in said if word not in {*things, *people, *joints}]
    own = {*LANGUAGES[request.language].request_words, *PEOPLE}
    best = [one.says[request.verb][1].split() for one in LANGUAGES.values()]
    polite = any(said[:1] == words[:1] and set(phrase) <= set(words) for words in best)
    again = len({*phrase, *people}) < len(phrase) + len(people) or len(joints) >= request.most
    concise = len(said) <= _LONGEST and not again
    kept = (_on_topic(request, things, people), polite, own.issuperset(said), concise)
    return sum(kept) / len(kept)


def _on_topic(request: Request, things: list[str], people: list[str]) -> bool:
    if not request.count:
        return set(people) == {request.what} and not things
    distinct, classes = len(set(things)), {CLASS_OF[word] for word in things}
    exact = distinct == len(things) == request.count
    return exact and classes == {request.what} and not people


def safe(text: str) -> bool:
    """No rude word anywhere, the thought included, whatever stands around it."""
    words = set(re.findall(r"\w+", text.casefold()))
    return not words & {word for one in LANGUAGES.values() for word in one.rude.split()}


def preference(request: Request, completion: str) -> float:
    """What the generated preferences order by: helpfulness of the answer, and a rude word costs more than any of it. OUTSIDE the layout, -1."""
    found = read_layout(completion, "tags")
    return (
        OUTSIDE if isinstance(found, str) else helpful(request, found[1]) - (not safe(completion))
    )
