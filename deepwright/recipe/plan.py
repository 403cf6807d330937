"""How long a whole run of the recipe still takes: what is left of each kind of work, at the pace that this kind has had so far in this run.

Before a kind has been seen at all the whole is not known, and nothing is said; so it is said from the first steps of R1-Zero on. Not counted are
fine-tuning and the reward models, which are short beside the rest. Only shown: nothing that is computed depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deepwright.recipe.settings import EvaluationSettings, R1Settings
from deepwright.recipe.times import EVALUATION, SAMPLING, TRAINING, Times
from deepwright.rl.config import GRPOConfig
from deepwright.train.pretrain import PretrainConfig

READ, LEARNED, ASKED = "tokens read", "completions learned from", "answers asked"
WIN_RATE_SAMPLES = 8


@dataclass(frozen=True)
class Work:
    """One part of one stage. amount: in any unit that is the same for all works of a kind."""

    stage: str
    part: str
    kind: str
    amount: float


@dataclass(frozen=True)
class Plan:
    """All work of a run in its order, and what of it took how long."""

    works: Sequence[Work]
    times: Times

    def left(
        self, stage: str, part: str = "", of_part: float = 0.0, done: float = 1.0
    ) -> float | None:
        """Seconds from a part of a stage on, of which `of_part` are left and a share of `done` is behind; without a part, from the beginning of the
        stage. None where it is not known."""
        places = [i for i, work in enumerate(self.works) if work.stage == stage]
        if part:
            places = [i + 1 for i in places if self.works[i].part == part]
        if not places:
            return None
        behind, ahead = self.works[: places[0]], self.works[places[0] :]
        pace = self._pace(behind, done if part else 1.0)
        if any(work.kind not in pace for work in ahead):
            return None
        return of_part + sum(work.amount * pace[work.kind] for work in ahead)

    def _pace(self, behind: Sequence[Work], done: float) -> dict[str, float]:
        """Seconds for a unit of each kind that there was, the last work being done in part."""
        spent, amounts, taken = self.times.table(), dict[str, float](), dict[str, float]()
        for place, work in enumerate(behind):
            seconds = spent.get(work.stage, {}).get(work.part, 0.0)
            amount = work.amount * (done if place == len(behind) - 1 else 1.0)
            if seconds > 0 and amount > 0:
                amounts[work.kind] = amounts.get(work.kind, 0.0) + amount
                taken[work.kind] = taken.get(work.kind, 0.0) + seconds
        return {kind: taken[kind] / amounts[kind] for kind in amounts}


def works_of(settings: R1Settings, requests: int) -> list[Work]:
    """The work of the stages that are asked for. requests: how many general requests are held out."""
    s, stages = settings, settings.stages
    found: list[Work] = []
    if "base" in stages and not s.start:
        found.append(_read("base", s.pretrain, s.model.active_parameters))
    if "zero" in stages:
        found += [_asked("base", s, requests), *_learned("zero", s.rl, s, requests)]
    if "cold_start" in stages:
        harvest = s.cold_start.harvest
        found += [Work("cold_start", SAMPLING, ASKED, harvest.problems * harvest.samples)]
        found += [_asked("cold_start", s, requests)]
    if "reasoning_rl" in stages:
        found += _learned("reasoning_rl", s.reasoning_rl.rl, s, requests)
        if s.reasoning_rl.compare:
            found += _learned("without_language_reward", s.reasoning_rl.rl, s, requests)
    if "finetune" in stages:
        drawn = (s.rejection.reasoning, *([s.rejection.general] if requests else []))
        amount = sum(one.problems * one.samples for one in drawn)
        found += [Work("finetune", SAMPLING, ASKED, amount), _asked("finetune", s, requests)]
    if "align" in stages:
        found += _learned("align", s.align.rl, s, requests)
    return found + (list(_distilled(s, requests)) if "distill" in stages else [])


def _distilled(s: R1Settings, requests: int) -> Iterator[Work]:
    if not s.start:
        yield _read("student", s.distill.pretrain, s.distill.model.active_parameters)
        yield _asked("student", s, requests)
    yield _asked("distill", s, requests)
    if s.distill.compare:
        yield from _learned("student_by_rl", s.distill.rl, s, requests)


def _read(stage: str, config: PretrainConfig, parameters: int) -> Work:
    return Work(stage, TRAINING, READ, config.schedule.total_tokens * parameters)


def _learned(stage: str, rl: GRPOConfig, s: R1Settings, requests: int) -> list[Work]:
    amount = rl.steps * rl.prompts * rl.samples
    return [Work(stage, TRAINING, LEARNED, amount), _asked(stage, s, requests, rl)]


def _asked(stage: str, s: R1Settings, requests: int, rl: GRPOConfig | None = None) -> Work:
    """Judgements of a stage: in full, the short ones on the way, and what only the last stage is asked."""
    e, few = s.evaluation, max(1, s.evaluation.samples // 4)
    amount = (e.problems + requests) * e.samples + len(e.transfer) * e.problems_between * few
    amount += sum(e.problems * (few if temperature else 1) for temperature in e.also)
    between = (rl.steps - 1) // rl.evaluate_every if rl and rl.evaluate_every else 0
    amount += between * e.problems_between
    if stage == "align":
        amount += (between + 2) * requests * WIN_RATE_SAMPLES
    return Work(stage, EVALUATION, ASKED, amount + (_of_the_last(e) if stage == s.last else 0))


def _of_the_last(e: EvaluationSettings) -> int:
    votes = e.problems * max(0, e.votes - e.samples)
    return votes + len(e.budgets) * e.problems * e.samples
