"""What `eval`, `generate` and `chat` can be asked: one flat frozen dataclass for each command. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from deepwright.sampler import Sampling

Folder = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
Prompt = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]


@dataclass(frozen=True)
class EvalRequest:
    """Scores a saved model on problems that it was not trained on, with error bars."""

    folder: Folder  # a checkpoint: a Hugging Face folder with its tokenizer, or a run folder (its last one)
    task: str = "countdown"  # which problems
    problems: int = 200  # how many of them
    samples: int = 4  # completions of each
    split: Literal["held_out", "train"] = "held_out"
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256  # longest completion
    seed: int = 0  # of the samples
    task_seed: int | None = None  # of the problems; None: that of the run that the folder lies in, else 0
    threads: int = 0  # 0: as many as torch takes


@dataclass(frozen=True)
class GenerateRequest:
    """Continues one prompt and prints what comes."""

    folder: Folder  # a checkpoint, or a run folder (its last one)
    prompt: Prompt  # one user message
    raw: bool = False  # continue the text as it stands, without the chat template
    n: int = 1  # completions
    max_tokens: int = 256
    temperature: float = 0.6
    top_p: float = 0.95
    seed: int = 0
    threads: int = 0  # 0: as many as torch takes

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens, self.temperature, self.top_p, n=self.n, seed=self.seed)


@dataclass(frozen=True)
class ChatRequest:
    """A conversation on the terminal; an empty line or Ctrl-D ends it."""

    folder: Folder  # a checkpoint, or a run folder (its last one)
    forget: bool = False  # every message starts a new conversation
    max_tokens: int = 1024
    temperature: float = 0.6
    top_p: float = 0.95
    seed: int = 0
    threads: int = 0  # 0: as many as torch takes

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens, self.temperature, self.top_p, seed=self.seed)
