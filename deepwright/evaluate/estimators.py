"""Estimators for repeated sampling: pass@1 with its standard error, unbiased pass@k, cons@k (DeepSeek-R1 section 3). Plain Python, no torch.

The unit of chance is the problem: the n samples of one problem are alike, so an error bar that counted them as n independent trials would be too
small. Each estimator is therefore a mean over problems of one number per problem, and its standard error that mean's (clustered by problem).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from deepwright.intervals import wilson


@dataclass(frozen=True)
class Estimate:
    value: float
    standard_error: float  # nan for a single problem: one cluster says nothing about spread
    problems: int = 1
    trials: int = 1  # of each problem

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of a share, also where all or nothing is right: Wilson's, with as many
        trials as an independent sample would need for the same standard error.

        That is p (1 - p) / se^2, but no fewer than there are problems, which are independent, and
        no more than all trials. With one trial a problem it is the usual interval; where se is 0
        because p is 0 or 1, the spread within problems is unknown, and each counts once."""
        p, se, P = self.value, self.standard_error, self.problems
        if 0 < p < 1 and se > 0:
            return wilson(p, min(P * self.trials, max(P, p * (1 - p) / se**2)))
        return wilson(p, P * self.trials if 0 < p < 1 and se == 0 else P)


def over_problems(values_P: Sequence[float], trials: int = 1) -> Estimate:
    """Mean over problems and its standard error, sd (ddof 1) / sqrt(P), of `trials` of each."""
    if not values_P:
        raise ValueError("0 problems were given, expected at least 1")
    spread = (
        statistics.stdev(values_P) / math.sqrt(len(values_P)) if len(values_P) > 1 else math.nan
    )
    return Estimate(statistics.fmean(values_P), spread, len(values_P), trials)


def pass_at_1(correct_Pn: Sequence[Sequence[bool]]) -> Estimate:
    """Mean correctness of one sample."""
    fewest = min(map(len, correct_Pn), default=1)
    return over_problems([statistics.fmean(correct_n) for correct_n in correct_Pn], fewest)


def pass_at_k(correct_Pn: Sequence[Sequence[bool]], k: int) -> Estimate:
    """Chance that at least one of k samples is right: 1 - C(n-c, k) / C(n, k) for c right ones of n, unbiased because every k-subset is counted once.

    Raises ValueError where a problem has fewer than k samples: no estimator can see what was not drawn.
    """
    fewest = _need(correct_Pn, k, "pass")
    return over_problems(
        [
            1 - math.comb(len(right_n) - sum(right_n), k) / math.comb(len(right_n), k)
            for right_n in correct_Pn
        ],
        fewest // k,
    )


def cons_at_k(
    answers_Pn: Sequence[Sequence[Hashable | None]], correct_Pn: Sequence[Sequence[bool]], k: int
) -> Estimate:
    """Accuracy of the most frequent answer among k samples.

    Rules: answers are compared by value (the caller's key). None stands for malformed or cut answers, which abstain; if all abstain the vote is wrong.
    Tied answers share the vote, so two tied values of which one is right count 1/2: the mean of a fair coin, without drawing one. An answer value is
    right as far as the samples that gave it are (all or none for a sound verifier). n samples are cut in order into n // k separate votes.
    """
    fewest = _need(answers_Pn, k, "cons")
    return over_problems(
        [
            _mean_vote(answers_n, right_n, k)
            for answers_n, right_n in zip(answers_Pn, correct_Pn, strict=True)
        ],
        fewest // k,
    )


def _mean_vote(answers_n: Sequence[Hashable | None], right_n: Sequence[bool], k: int) -> float:
    starts = range(0, len(answers_n) - k + 1, k)
    return statistics.fmean(
        _vote(answers_n[start : start + k], right_n[start : start + k]) for start in starts
    )


def _vote(answers_k: Sequence[Hashable | None], right_k: Sequence[bool]) -> float:
    counts = Counter(answer for answer in answers_k if answer is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == most]
    return statistics.fmean(
        _share(
            [right for answer, right in zip(answers_k, right_k, strict=True) if answer == winner]
        )
        for winner in winners
    )


def _share(flags: Sequence[bool]) -> float:
    return statistics.fmean(flags) if flags else math.nan


def _need(samples_Pn: Sequence[Sequence[object]], k: int, name: str) -> int:
    """The fewest samples of a problem; ValueError where there are no k."""
    fewest = min(map(len, samples_Pn), default=0)
    if not 1 <= k <= fewest:
        raise ValueError(
            f"{name}@{k} was asked for but a problem has {fewest} samples, expected 1 <= k <= samples"
        )
    return fewest
