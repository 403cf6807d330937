"""Where a rise in accuracy came from: keeping the format, guessing better, or searching. Exact: the parts sum to the rise.

With f the share of completions in the asked format (a right answer always is), and of those
    g = share that is right without a failed first attempt        (a better guess, or an answer without any visible attempt)
    s = share that is right although the first attempt failed     (an answer that was searched for)
accuracy is f (g + s), and from base (0) to after (1)
    accuracy_1 - accuracy_0 = (f1 - f0)(g0 + s0)  +  f1 (g1 - g0)  +  f1 (s1 - s0)
                                   format              guessing          searching
Format is what the better format alone would have brought at the base's accuracy given format. An attempt fails when its value is not the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deepwright.evaluate.evaluation import Evaluation


@dataclass(frozen=True)
class Decomposition:
    """Parts of a rise in pass@1. `searching` is None where the task's attempts cannot be read: `guessing` is then all that is not format."""

    before: float
    after: float
    format: float
    guessing: float
    searching: float | None

    @property
    def rise(self) -> float:
        return self.after - self.before

    @property
    def parts(self) -> dict[str, float]:
        if self.searching is None:
            return {"format": self.format, "better answers": self.guessing}
        return {
            "format": self.format,
            "better first attempt": self.guessing,
            "searching": self.searching,
        }

    @property
    def sentence(self) -> str:
        listed = [f"{100 * value:+.1f} are {_MEANING[name]}" for name, value in self.parts.items()]
        return (
            f"pass@1 went from {100 * self.before:.1f}% to {100 * self.after:.1f}%: of these {100 * self.rise:+.1f} points "
            f"{', '.join(listed[:-1])} and {listed[-1]}."
        )

    def record(self) -> dict[str, Any]:
        return {"parts": self.parts, "sentence": self.sentence}


_MEANING = {
    "format": "format alone (at the base's accuracy given format)",
    "better answers": "better answers in that format",
    "better first attempt": "answers right without a failed first attempt",
    "searching": "answers found after a first attempt that failed",
}


def decompose(base: Evaluation, after: Evaluation) -> Decomposition:
    """Splits after.pass_at_1 - base.pass_at_1. ValueError unless both evaluated the same task and split at the same settings."""
    for name in ("task", "split", "problems", "temperature", "top_p", "max_tokens"):
        if getattr(base, name) != getattr(after, name):
            raise ValueError(
                f"{name} is {getattr(base, name)!r} before and {getattr(after, name)!r} after, expected the same"
            )
    guess0, search0 = _given_format(base)
    guess1, search1 = _given_format(after)
    readable = base.turned_right_rate is not None and after.turned_right_rate is not None
    guessing, searching = (
        after.format_rate * (guess1 - guess0),
        after.format_rate * (search1 - search0),
    )
    return Decomposition(
        before=base.pass_at_1,
        after=after.pass_at_1,
        format=(after.format_rate - base.format_rate) * (guess0 + search0),
        guessing=guessing if readable else guessing + searching,
        searching=searching if readable else None,
    )


def _given_format(evaluation: Evaluation) -> tuple[float, float]:
    """(g, s). Nothing in the format means nothing right: both 0."""
    if evaluation.format_rate == 0:
        assert evaluation.pass_at_1 == 0, "a right answer outside the asked format"
        return 0.0, 0.0
    searched = evaluation.turned_right_rate or 0.0
    return (
        evaluation.pass_at_1 - searched
    ) / evaluation.format_rate, searched / evaluation.format_rate
