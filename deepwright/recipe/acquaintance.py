"""Who a model is, for somebody about to talk to it: its size, how it was made, what it can read.

A model with a vocabulary of words reads these alone, so a prompt of its own task is shown. Facts
come from the run that it lies in; a model without one is told by its config alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deepwright.config import ModelConfig
from deepwright.files import read_toml
from deepwright.recipe.resolve import fill
from deepwright.recipe.session import CONFIG, run_of
from deepwright.recipe.settings import TaskChoice
from deepwright.refusals import quoted
from deepwright.tasks import Countdown
from deepwright.text import Tokenizer
from deepwright.weights.hub import on_hub

MOST_WORDS = 300  # that are listed
FIRST = 20  # problems of which one is shown


@dataclass(frozen=True)
class Acquaintance:
    """`asked`: the model as its user named it; `place`: where it was found."""

    asked: str
    place: Path
    config: ModelConfig
    tokenizer: Tokenizer

    @property
    def size(self) -> str:
        """Its name, family, parameters and context."""
        c = self.config
        active = f" ({c.active_parameters:,} active)" if c.active_parameters < c.parameters else ""
        name = self.asked if on_hub(self.asked) else self.place
        context = f"context {c.max_position_embeddings:,} tokens"
        return f"{name}: {c.model_type}, {c.parameters:,} parameters{active}, {context}"

    @property
    def made(self) -> str:
        """By which run, on what, beginning with which model; '' where it lies in no run."""
        run, settings = run_of(self.place), self._settings
        if run is None or not settings:
            return ""
        within = [*self.place.resolve().relative_to(run).parts]
        stage = [f"stage {within[0]}"] if len(within) == 3 else []
        step = [within[-1].replace("-", " ")] if within else []
        task = settings.get("task")
        learned = settings.get("data") or (task.get("name") if isinstance(task, dict) else "")
        on = [f"on {learned}"] if learned else []
        start = settings.get("start") or settings.get("model")
        begun = [f"beginning with {start}"] if isinstance(start, str) else []
        return ", ".join([f"Made by the run {run.name}", *stage, *step, *on, *begun])

    @property
    def reads(self) -> str:
        """What a vocabulary of words holds; '' for one that reads any text."""
        words = self.tokenizer.words
        if words is None:
            return ""
        numbers = [int(word) for word in words if word.isdecimal()]
        among = f" and the numbers {min(numbers)} to {max(numbers)}" if numbers else ""
        return f"It reads {len(words) - len(numbers)} words{among}, nothing else"

    @cached_property
    def example(self) -> str:
        """A prompt that a model with a vocabulary of words can answer; '' where none is known, or
        where it reads any text."""
        if self.tokenizer.words is None:
            return ""
        for prompt in self._prompts():
            with contextlib.suppress(ValueError):
                self.tokenizer.encode(prompt)
                return prompt
        return ""

    @property
    def for_example(self) -> str:
        return f"; for example: {self.example}" if self.example else ""

    def unknown(self, word: str) -> str:
        """What to say of a word that it cannot read."""
        return f"{quoted(word, 60)} is no word of this model's. {self.reads}{self.for_example}"

    def listed(self) -> str:
        """The words of its vocabulary, where it has one that can be listed."""
        words = [word for word in self.tokenizer.words or () if not word.isdecimal()]
        return f"Its words: {' '.join(words)}" if 0 < len(words) <= MOST_WORDS else ""

    @cached_property
    def _settings(self) -> dict[str, Any]:
        run = run_of(self.place)
        with contextlib.suppress(ValueError, OSError):  # a damaged file is no reason not to talk
            return read_toml(run / CONFIG) if run else {}
        return {}

    def _prompts(self) -> Iterator[str]:
        """Of the run's task, in English where it asks in several languages; then of the task that
        vocabularies of words are made for."""
        with contextlib.suppress(ValueError, OSError):
            choice = fill(TaskChoice(), self._settings.get("task", {}), CONFIG)
            task = choice.judge()
            first = range(min(FIRST, task.size("held_out")))
            prompts = [task.problem(i, "held_out").prompt for i in first]
            yield next((prompt for prompt in prompts if prompt.isascii()), prompts[0])
        yield Countdown().prompt((3, 7, 1), 20)
