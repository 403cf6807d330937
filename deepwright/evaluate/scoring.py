"""From token ids to a score: the rules that training rollouts and evaluations share, so that both mean the same by "right"."""

from __future__ import annotations

from collections.abc import Sequence

from deepwright.sampler import Completion, StopReason
from deepwright.tasks import Problem, Sampled, Score, Task, Verdict, score_all
from deepwright.text import Tokenizer

# A completion that did not end by itself is wrong, whatever it holds, and earns nothing for its format: it has not answered. The verifier never sees it.
CUT = Score(0.0, Verdict.WRONG, "cut at the token limit", {"accuracy": 0.0})


def prompt_ids(tokenizer: Tokenizer, problem: Problem) -> list[int]:
    """What the model continues: the problem's conversation in the model's own chat template, or its prompt as one user message."""
    return (
        tokenizer.encode(tokenizer.render(problem.messages))
        if problem.messages
        else tokenizer.encode_prompt(problem.prompt)
    )


def completion_text(tokenizer: Tokenizer, completion: Completion) -> str:
    """What a person or a verifier reads: all tokens but the final stop token. Special tokens elsewhere stay visible."""
    ids = completion.token_ids[:-1] if completion.stop is StopReason.STOP else completion.token_ids
    return tokenizer.decode(ids, specials=True)


def score_completions(
    task: Task,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    texts: Sequence[str],
    step: int = 0,
    steps: int = 1,
) -> list[Score]:
    """The task's score of each text, all in one call of the task; CUT where the completion hit its
    limit (the verifier never sees it); FAILED where the check itself broke. `step` of `steps`:
    where training stands, for rewards that ask."""
    ended = [
        place for place, completion in enumerate(completions) if completion.stop is StopReason.STOP
    ]
    sampled = Sampled([completion.token_ids for completion in completions], step, steps).of(ended)
    asked, said = [problems[place] for place in ended], [texts[place] for place in ended]
    scores = iter(score_all(task, asked, said, sampled))
    return [
        next(scores) if completion.stop is StopReason.STOP else CUT for completion in completions
    ]
