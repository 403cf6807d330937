"""The words of the small worlds that are learned from nothing, in two written languages, and how consistently a text keeps to one of them.

R1 section 2.3.2: language consistency is the share of words in the target language among all words of the thought. Numbers, operators,
people and tags belong to no language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Language:
    nums: str  # opens a Countdown prompt
    make: str
    colon: str  # ends a prompt
    wait: str  # what an author writes after an attempt that failed
    yes: str  # and after one that succeeded
    answer: str
    says: Mapping[
        str, tuple[str, str]
    ]  # request -> (how it is asked, its best answer with {} for what is asked); the first word is the polite one
    things: Mapping[str, tuple[str, tuple[str, ...]]]  # class -> (its name, its members)
    joint: str  # between two things
    rude: str

    @property
    def puzzle_words(self) -> tuple[str, ...]:
        return self.nums, self.make, self.colon, self.wait, self.yes, self.answer

    @cached_property
    def request_words(self) -> tuple[str, ...]:
        """In the order of a vocabulary, each once."""
        texts = [text for pair in self.says.values() for text in pair] + [self.joint, self.rude]
        texts += [text for name, members in self.things.values() for text in (name, *members)]
        return tuple(dict.fromkeys(word for text in texts for word in text.split() if word != "{}"))

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset((*self.puzzle_words, *self.request_words))


def _things(*lists: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {
        name: (own, tuple(members))
        for name, (own, *members) in zip(("animals", "colours", "fruits"), map(str.split, lists))
    }


LANGUAGES = {
    "en": Language(
        "nums", "make", ":", "wait", "yes", "answer",
        {"greet": ("greet", "hello {} how are you"), "thank": ("thank", "thanks {} very kind of you"), "name": ("name", "here are some {}")},
        _things("animals cat dog cow hen fox owl", "colours red blue green grey pink gold", "fruits apple plum pear fig lime kiwi"),
        "and", "go away stupid",
    ),
    "zh": Language(
        "数", "得", "：", "等等", "对", "答案",
        {"greet": ("问候", "你好 {} 最近 可好"), "thank": ("感谢", "谢谢 {} 您 非常 客气 了"), "name": ("列举", "这里 有些 {}")},
        _things("动物 猫 狗 牛 鸡 狐狸 猫头鹰", "颜色 红 蓝 绿 灰 粉 金", "水果 苹果 李子 梨 无花果 青柠 猕猴桃"),
        "和", "走开 笨蛋",
    ),
}  # fmt: skip
WAITS, YESES = ({getattr(one, name) for one in LANGUAGES.values()} for name in ("wait", "yes"))


def check_languages(names: Iterable[str]) -> None:
    names = tuple(names)
    if not names or len(set(names)) < len(names) or not set(names) <= LANGUAGES.keys():
        raise ValueError(
            f"languages is {list(names)}, expected some of {sorted(LANGUAGES)}, each once"
        )


def language_of(prompt: str) -> str:
    """The language of a prompt, by the colon that ends it."""
    return next(
        (name for name, one in LANGUAGES.items() if prompt.rstrip().endswith(one.colon)), "en"
    )


def consistency(text: str, language: str) -> float | None:
    """Share of `language` among the words of `text` that belong to some language; None where none does."""
    words = [word for word in text.split() if any(word in one.words for one in LANGUAGES.values())]
    return sum(word in LANGUAGES[language].words for word in words) / len(words) if words else None
