"""Inference-time scaling: how right a model is when its thought may have so many tokens, and when so many of its answers vote.

Budget forcing (s1, arXiv 2501.19393 section 3.1): a thought that is still open after `budget` tokens is closed by force, and the model answers with
what it has. Left out: the other direction, a thought made longer by refusing its end. Votes are cons@k (R1 section 3) for k = 1, 2, 4, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from deepwright.evaluate.estimators import Estimate, cons_at_k
from deepwright.evaluate.evaluation import Generation
from deepwright.refusals import expect_each
from deepwright.sampler import Completion, Sampler, Sampling, StopReason
from deepwright.seeds import stream
from deepwright.tasks import Verdict
from deepwright.text import Tokenizer
from deepwright.text.thoughts import END_THINK, ThoughtParser, ends_in_thought

ANSWER = 112  # purpose of a random stream: the seed of the second call


@dataclass(frozen=True)
class Budgeted:
    """Implements the Sampler protocol around another sampler, in two calls of it; `max_tokens` of what is asked gives way to the two limits here.

    1. At most `budget` tokens (an opening tag that the model writes counts). A completion that stops by then is done, as is one cut by the context.
    2. Every other one continues with at most `answer_tokens` more, as a prompt of its own. In front of them stands the closing tag, or what is
       missing of it, where the thought is open (a prompt may have opened it) or not even begun. Nothing is forced where the thought has been closed,
       or where the completion began with something else: it has no thought to close (the rules of text/thoughts.py).
    A result holds all tokens, a forced one with log-probability 0 (certain), and the stop reason of its last call. Errors are those of the sampler:
    a prompt that fills the context together with its thought leaves no room for an answer.
    """

    sampler: Sampler
    tokenizer: Tokenizer
    budget: int
    answer_tokens: int

    def __post_init__(self) -> None:
        expect_each(
            self, ("budget", "answer_tokens"), lambda tokens: tokens >= 1, "at least 1 token"
        )
        if self.tokenizer.decode(self.closing_ids, specials=True).strip() != END_THINK:
            raise ValueError(
                f"{END_THINK!r} is not in the vocabulary, so no thought can be closed by force"
            )

    @cached_property
    def closing_ids(self) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(END_THINK))

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """[P][n] completions. Streams depend on a position in the completion, and the second call counts it from 0: it has a seed of its own."""
        first_Pn = self.sampler.sample(prompts, replace(sampling, max_tokens=self.budget))
        cut = {
            (p, j): one
            for p, first_n in enumerate(first_Pn)
            for j, one in enumerate(first_n)
            if self._goes_on(one)
        }
        forced = {
            (p, j): self.missing_ids(prompts[p], one.token_ids) for (p, j), one in cut.items()
        }
        asked = [[*prompts[p], *one.token_ids, *forced[p, j]] for (p, j), one in cut.items()]
        seed = int(stream(sampling.seed, ANSWER, 0).random() * 2**48)
        answers = (
            self.sampler.sample(
                asked, replace(sampling, max_tokens=self.answer_tokens, n=1, seed=seed)
            )
            if asked
            else []
        )
        whole = {
            place: joined(cut[place], forced[place], answer)
            for place, (answer,) in zip(cut, answers, strict=True)
        }
        return [
            [whole.get((p, j), one) for j, one in enumerate(first_n)]
            for p, first_n in enumerate(first_Pn)
        ]

    def _goes_on(self, one: Completion) -> bool:
        return one.stop is StopReason.LENGTH and len(one.token_ids) >= self.budget

    def missing_ids(self, prompt: Sequence[int], ids: tuple[int, ...]) -> tuple[int, ...]:
        """What closes the thought; () where nothing is to be closed. The text decides: a tag's last token may hold a line break as well."""
        text, inside = (
            self.tokenizer.decode(ids, specials=True),
            ends_in_thought(self.tokenizer.decode(prompt, specials=True)),
        )
        if END_THINK in text or ThoughtParser(inside).feed(text).content:
            return ()
        tag = self.closing_ids
        return tag[max(n for n in range(len(tag)) if ids[len(ids) - n :] == tag[:n]) :]


def joined(thought: Completion, forced: tuple[int, ...], answer: Completion) -> Completion:
    certain = (0.0,) * len(forced)
    return Completion(
        thought.token_ids + forced + answer.token_ids,
        thought.log_probs + certain + answer.log_probs,
        answer.stop,
    )


def votes(
    generations: Sequence[Generation], counts: Sequence[int] | None = None
) -> dict[int, Estimate]:
    """votes -> accuracy of the most frequent answer among that many, with its standard error over problems; by the rules of `cons_at_k`.

    `generations`: those of one evaluation. `counts`: by default 1, 2, 4, ... as far as there are samples; ValueError where there are fewer.
    Problems with a completion whose verifier failed are left out, as everywhere."""
    of_problem: dict[int, list[Generation]] = {}
    for one in generations:
        of_problem.setdefault(one.problem, []).append(one)
    whole = [
        answers
        for answers in of_problem.values()
        if all(one.verdict != Verdict.FAILED.value for one in answers)
    ]
    answers_Pn, correct_Pn = (
        [[one.answer for one in n] for n in whole],
        [[one.correct for one in n] for n in whole],
    )
    fewest = min(map(len, whole), default=1)
    return {
        k: cons_at_k(answers_Pn, correct_Pn, k)
        for k in counts or [2**power for power in range(fewest.bit_length())]
    }
