"""From token ids to a score: the rules that training rollouts and evaluations share, so that both mean the same by "right"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deepwright.sampler import Completion, StopReason
from deepwright.tasks import Problem, Score, Task, Verdict, safe_score
from deepwright.text import Tokenizer

EncodePrompt = Callable[[str], Sequence[int]]

# A completion that did not end by itself is wrong, whatever it holds, and earns nothing for its format: it has not answered. The verifier never sees it.
CUT = Score(0.0, Verdict.WRONG, "cut at the token limit", {"accuracy": 0.0, "format": 0.0})


def completion_text(tokenizer: Tokenizer, completion: Completion) -> str:
    """What a person or a verifier reads: all tokens but the final stop token. Special tokens elsewhere stay visible."""
    ids = completion.token_ids[:-1] if completion.stop is StopReason.STOP else completion.token_ids
    return tokenizer.decode(ids, specials=True)


def score_completion(task: Task, problem: Problem, completion: Completion, text: str) -> Score:
    """The task's score of `text`; CUT where the completion hit its limit; FAILED where the check itself raised."""
    return CUT if completion.stop is not StopReason.STOP else safe_score(task, problem, text)
