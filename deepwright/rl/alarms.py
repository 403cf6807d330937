"""Alarms: what goes wrong in reinforcement learning while the reward still looks fine, said in a sentence, and what to do then.

A rule is a pure function of the records of all rounds so far, oldest first; None means nothing is wrong. Single rounds swing by 20 points with a
dozen prompts, so rules compare moving averages over `window` rounds; only a number that is not finite rings at once. Records are part of the
checkpoint and nothing reads a clock, so a resumed run rings at the same step. A rule looks at no weights: it sees what a reader of the curves sees.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from deepwright.refusals import expect_fields
from deepwright.rl.advantages import mean

Record = Mapping[str, float | None]  # None: the value was not finite

SOLVED = 0.9  # accuracy at which a policy may be as sure of itself as it likes
WATCHED = (
    "accuracy", "reward", "format_rate", "entropy", "mean_length", "repetition", "pass_at_1", "verifier_failures", "completions", "loss",
    "grad_norm", "skipped_steps", "log_prob_gap_mean", "temperature", "reward_helpful", "win_rate",
)  # fmt: skip


@dataclass(frozen=True)
class AlarmConfig:
    """When an alarm rings, and what follows. An average is one over `window` rounds."""

    # warn: say it. pause: save and stop. roll_back: go on from the newest checkpoint that is older than the window, with other problems and
    # samples and half the learning rate.
    policy: Literal["off", "warn", "pause", "roll_back"] = "warn"
    window: int = 10  # rounds
    entropy_floor: float = (
        0.05  # nats/token: an average below it rings while less than 90% is right
    )
    entropy_rise: float = (
        2.0  # times the lowest average so far at the same temperature, and 0.3 nats above it
    )
    length_floor: float = (
        0.3  # of the longest average so far, while accuracy is no higher than it was then
    )
    repetition: float = 0.5  # average share of repeated runs of tokens
    kind_fall: float = 0.2  # of one kind's average below its best, and four standard errors, while the mean is higher than then
    reward_rise: float = 0.2  # points, over held-out evaluations that do not rise
    evaluations: int = 4  # that many held-out evaluations
    win_rate_fall: float = 0.05  # of the held-out win rate, over as many evaluations in the same way, while the reward rises
    verifier_failures: float = 0.05  # average share of completions
    sampler_gap: float = 0.2  # nats: average gap of log-probabilities; a sampler that kept old weights, or another temperature
    roll_backs: int = 3  # at most; the next alarm pauses

    def __post_init__(self) -> None:
        if self.policy not in ("off", "warn", "pause", "roll_back"):
            raise ValueError(
                f"policy is {self.policy!r}, expected 'off', 'warn', 'pause' or 'roll_back'"
            )
        for f in fields(self)[1:]:
            # a standard error and a comparison need two
            least = {"window": 2, "evaluations": 2}.get(f.name, 0)
            if not least <= getattr(self, f.name) < math.inf:
                raise ValueError(
                    f"{f.name} of the alarms is {getattr(self, f.name)}, expected at least {least}"
                )


def not_finite(records: Sequence[Record], c: AlarmConfig) -> str | None:
    bad = [name for name, value in records[-1].items() if value is None]
    before, now = (
        (record.get("skipped_steps") or 0)
        for record in (records[-2] if len(records) > 1 else {}, records[-1])
    )
    skipped = "an update was left out because its gradient was not finite" if now > before else None
    return f"{bad[0]} is not a number" if bad else skipped


def entropy_collapse(records: Sequence[Record], c: AlarmConfig) -> str | None:
    entropy, accuracy = (
        _averages(records, "entropy", c.window),
        _averages(records, "accuracy", c.window),
    )
    rings = entropy and entropy[-1] < c.entropy_floor and accuracy[-1] < SOLVED
    return (
        f"entropy averages {entropy[-1]:.3f} nats at {accuracy[-1]:.0%} right: the samples of a problem become the same"
        if rings
        else None
    )


def entropy_explosion(records: Sequence[Record], c: AlarmConfig) -> str | None:
    alike = [
        record for record in records if record.get("temperature") == records[-1].get("temperature")
    ]
    entropy = _averages(alike, "entropy", c.window)
    rings = entropy and entropy[-1] > max(c.entropy_rise * min(entropy), min(entropy) + 0.3)
    return (
        f"entropy averages {entropy[-1]:.2f} nats and was {min(entropy):.2f}: the policy is turning into noise"
        if rings
        else None
    )


def length_collapse(records: Sequence[Record], c: AlarmConfig) -> str | None:
    length, accuracy = (
        _averages(records, "mean_length", c.window),
        _averages(records, "accuracy", c.window),
    )
    longest = max(range(len(length)), key=length.__getitem__, default=0)
    rings = (
        length
        and length[-1] < c.length_floor * length[longest]
        and accuracy[-1] <= accuracy[longest]
    )
    return (
        f"completions average {length[-1]:.0f} tokens and were {length[longest]:.0f}, without more right answers"
        if rings
        else None
    )


def repetition(records: Sequence[Record], c: AlarmConfig) -> str | None:
    share = _averages(records, "repetition", c.window)
    return (
        f"{share[-1]:.0%} of the completions' runs of tokens are repeats"
        if share and share[-1] > c.repetition
        else None
    )


def reward_without_gain(records: Sequence[Record], c: AlarmConfig) -> str | None:
    """Held-out figures (`pass_at_1`, put there by the caller's evaluation) stay while the training reward rises: it is being gamed."""
    found = _never_better(records, c, "pass_at_1", "reward", by_halves=True)
    # A reward that nears its limit rises little more while the problems are unlearned: what they lose counts as well.
    rings = (
        found
        and found[3] - found[2] > c.reward_rise / 2
        and (found[3] - found[2]) + (found[0] - found[1]) > c.reward_rise
    )
    return (
        f"reward rose from {found[2]:.2f} to {found[3]:.2f}, held-out accuracy from {found[0]:.1%} to {found[1]:.1%}"
        if rings
        else None
    )


def over_optimised(records: Sequence[Record], c: AlarmConfig) -> str | None:
    """The reward model is pleased ever more, a judge it was not trained by ever less (`win_rate`, put there by the caller's evaluation): more
    steps on a preference reward hack it (R1 supplement, B.5). What the model itself paid counts where it is recorded, else the whole reward."""
    found = _never_better(
        records, c, "win_rate", "reward_helpful" if "reward_helpful" in records[-1] else "reward"
    )
    rings = found and found[3] - found[2] > c.reward_rise and found[0] - found[1] > c.win_rate_fall
    return (
        f"model reward up from {found[2]:.2f} to {found[3]:.2f}, win rate down from {found[0]:.1%} to {found[1]:.1%}"
        if rings
        else None
    )


def kind_falls(records: Sequence[Record], c: AlarmConfig) -> str | None:
    """One kind of problem is unlearned for the sake of another: only accuracy per kind shows it."""
    for kind in sorted(
        {name for record in records for name in record if name.startswith("accuracy/")}
    ):
        asked = [record for record in records if record.get(kind) is not None]
        values, own, mean = (
            _series(asked, kind),
            _averages(asked, kind, c.window),
            _averages(asked, "accuracy", c.window),
        )
        best = max(range(len(own)), key=own.__getitem__, default=0)
        if not own or mean[-1] <= mean[best]:
            continue
        error = math.sqrt(
            sum(
                statistics.variance(part)
                for part in (values[best : best + c.window], values[-c.window :])
            )
            / c.window
        )
        if own[best] - own[-1] > max(c.kind_fall, 4 * error):
            return f"{kind.partition('/')[2]!r} fell from {own[best]:.0%} to {own[-1]:.0%} right while all together rose to {mean[-1]:.0%}"
    return None


def verifier_failures(records: Sequence[Record], c: AlarmConfig) -> str | None:
    failed, asked = (
        _averages(records, name, c.window) for name in ("verifier_failures", "completions")
    )
    rings = failed and asked and failed[-1] > c.verifier_failures * asked[-1]
    return (
        f"the verifier failed on {failed[-1] / asked[-1]:.0%} of the completions" if rings else None
    )


def sampler_gap(records: Sequence[Record], c: AlarmConfig) -> str | None:
    gap = _averages(records, "log_prob_gap_mean", c.window)
    return (
        f"sampler and trainer differ by {gap[-1]:.2f} nats a token"
        if gap and gap[-1] > c.sampler_gap
        else None
    )


_ALL = (not_finite, entropy_collapse, entropy_explosion, length_collapse, repetition, reward_without_gain, over_optimised, kind_falls,
        verifier_failures, sampler_gap)  # fmt: skip
RULES: dict[str, Callable[[Sequence[Record], AlarmConfig], str | None]] = {
    rule.__name__: rule for rule in _ALL
}


@dataclass
class Alarms:
    """The loop calls `step` once a round. `state` goes into the checkpoint."""

    config: AlarmConfig
    records: list[dict[str, float | None]] = field(default_factory=list)
    ringing: list[str] = field(default_factory=list)
    roll_backs: int = 0

    def step(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Takes the metrics of a round; returns the alarms that begin with it, by name. One that goes on ringing is not repeated."""
        seen = {
            name: value
            for name, value in values.items()
            if name in WATCHED or name.startswith("accuracy/")
        }
        self.records.append(
            {name: float(value) if math.isfinite(value) else None for name, value in seen.items()}
        )
        rules = {} if self.config.policy == "off" else RULES
        found = {
            name: sentence
            for name, rule in rules.items()
            if (sentence := rule(self.records, self.config))
        }
        begun = {name: sentence for name, sentence in found.items() if name not in self.ringing}
        self.ringing = list(found)
        return begun

    def state(self) -> dict[str, Any]:
        return {"records": self.records, "ringing": self.ringing, "roll_backs": self.roll_backs}

    @classmethod
    def from_state(cls, config: AlarmConfig, state: Mapping[str, Any]) -> Alarms:
        """The inverse of `state`. ValueError for what it never gave."""
        kinds = {"records": list[dict[str, float | None]], "ringing": list[str], "roll_backs": int}
        expect_fields(state, "the saved alarms", kinds)
        return cls(config, **state)


def _never_better(
    records: Sequence[Record], c: AlarmConfig, judge: str, paid: str, by_halves: bool = False
) -> tuple[float, float, float, float] | None:
    """First and last figure of the judge in the last `evaluations` held-out evaluations, if none is above the one before it, and the average of
    what was paid up to each of the two. `by_halves`: if the last is not above the first, nor the mean of the later half above the earlier one's;
    figures on 100 problems swing by 5 points, and of four about one level some almost always rises. Only rounds that paid it count: a preference
    may be rewarded in the last part of a run alone."""
    records = [record for record in records if record.get(paid) is not None]
    judged = [
        (record[judge], end)
        for end, record in enumerate(records, 1)
        if record.get(judge) is not None
    ][-c.evaluations :]
    half, figures = c.evaluations // 2, [figure for figure, _ in judged]
    if len(judged) < c.evaluations or (
        not by_halves and any(later > before for before, later in itertools.pairwise(figures))
    ):
        return None
    if figures[-1] > figures[0] or statistics.fmean(figures[-half:]) > statistics.fmean(
        figures[:half]
    ):
        return None
    first, last = (
        mean(_series(records[max(0, end - c.window) : end], paid))
        for _, end in (judged[0], judged[-1])
    )
    return judged[0][0], judged[-1][0], first, last


def _series(records: Sequence[Record], name: str) -> list[float]:
    return [value for record in records if (value := record.get(name)) is not None]


def _averages(records: Sequence[Record], name: str, window: int) -> list[float]:
    """Moving averages over `window` rounds that have the value; [] while there are fewer."""
    values = _series(records, name)
    return [mean(values[end - window : end]) for end in range(window, len(values) + 1)]
