"""The engine's nouns: a Request asks for n Sequences; a Prefill is a prompt that one or many sequences wait for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from deepwright.sampler import Completion, Sampling


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt and what was asked of it. `limit` is max_tokens, cut where the context ends."""

    number: int
    prompt: tuple[int, ...]
    sampling: Sampling
    prompt_index: int
    limit: int


@dataclass(eq=False)
class Sequence:
    """Sample number `sample` of a request. `token_ids` holds its tokens only while it waits: a running one's are in Rows."""

    request: Request
    sample: int
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, int]:
        """Age: the youngest sequence is preempted first, so that the oldest always gets to its end."""
        return self.request.number, self.sample

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.request.prompt + tuple(self.token_ids)


@dataclass(eq=False)
class Prefill:
    """Tokens to bring into the cache once, and the sequences that fork from them.

    `blocks` is empty until the scheduler gave it room for all its tokens; `done` of them are in the cache;
    `last_hidden_D` is the final hidden state of the last token once all are.
    """

    tokens: tuple[int, ...]
    sequences: list[Sequence]
    blocks: list[int] = field(default_factory=list)
    done: int = 0
    last_hidden_D: torch.Tensor | None = None

    @property
    def remaining(self) -> int:
        return len(self.tokens) - self.done


@dataclass(frozen=True)
class Finished:
    """What `Engine.step` hands back: sample `sample` of request `request` has ended."""

    request: int
    sample: int
    completion: Completion
