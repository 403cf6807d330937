"""What the stages of the R1 recipe share: where each keeps its model, how one starts from another, how each is trained and judged.

A stage is run again from the start of its unfinished step: samples that are drawn stay, training resumes from its checkpoint, evaluations are not
repeated. So a run that was killed anywhere ends with the same table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from deepwright import weights
from deepwright.model import Transformer
from deepwright.numerics import compute_dtype
from deepwright.recipe.harvest import kept_documents
from deepwright.recipe.journal import Journal
from deepwright.recipe.judge import Judge, reinforce, sampler_of
from deepwright.recipe.plan import Plan, works_of
from deepwright.recipe.session import model_folder
from deepwright.recipe.settings import R1Settings
from deepwright.recipe.times import TRAINING
from deepwright.rl.config import GRPOConfig
from deepwright.sampler import Sampler
from deepwright.tasks import Task
from deepwright.tasks.requests import Requests
from deepwright.text import Tokenizer
from deepwright.train.sft import SFTConfig, sft


@dataclass(frozen=True)
class Recipe:
    """One run of the recipe."""

    settings: R1Settings
    folder: Path
    journal: Journal
    tokenizer: Tokenizer

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def max_tokens(self) -> int:
        return self.settings.rl.max_tokens

    @cached_property
    def task(self) -> Task:
        """As RL pays it; made once, since a task lists its problems when it is first asked."""
        return self.settings.task.make()

    @cached_property
    def check(self) -> Task:
        """The task by whose own check every stage is judged."""
        return self.settings.task.judge()

    @cached_property
    def transfer(self) -> dict[str, Task]:
        """Tasks that nothing is trained on, by what tells them from the run's own."""
        return self.settings.task.variants(self.settings.evaluation.transfer)

    def task_paying(self, language_reward: float) -> Task:
        """The task with a reward for keeping to one language, where it has several; else, and where the user's own reward is paid, as it is."""
        choice = self.settings.task
        if not language_reward or choice.reward or len(getattr(self.check, "languages", ())) < 2:
            return self.task
        return dataclasses.replace(
            choice, options=(*choice.options, f"language_reward={language_reward}")
        ).make()

    @cached_property
    def requests(self) -> Requests | None:
        """The general requests of a run whose task asks in languages of its own; a chat model's run has none."""
        languages = getattr(self.task, "languages", ())
        return (
            Requests(self.settings.task.seed, languages)
            if languages and self.settings.corpus.requests
            else None
        )

    @cached_property
    def plan(self) -> Plan:
        """What the run has before it, for who watches it."""
        asked = self.requests.size("held_out") if self.requests else 0
        return Plan(works_of(self.settings, asked), self.journal.times)

    def place(self, stage: str) -> Path:
        """The folder of a stage, made before its long work: what that gives is written there or
        nowhere, should the run folder be gone by then."""
        (self.folder / stage).mkdir(exist_ok=True)
        return self.folder / stage

    def sampler(self, model: Transformer) -> Sampler:
        return sampler_of(self.settings.sampler, self.folder, model, self.tokenizer)

    def model_of(self, stage: str, asking: str) -> Transformer:
        """The model at the end of a stage, with fp32 masters. ValueError where that stage is not there."""
        try:
            given = self.settings.start if stage == "base" else ""
            place = model_folder(given) if given else model_folder(self.folder / stage, (".",))
        except ValueError:
            raise ValueError(
                f"stage {asking} starts from {stage}, of which {self.folder} holds no whole checkpoint: run {stage} first"
            ) from None
        return weights.load(place, torch.float32)[0]

    def judge(self, model: Transformer, *, suffix: str = "", task: Task | None = None) -> Judge:
        s, own = self.settings, task is None
        return Judge(
            s.evaluation, self.check if own else task, self.sampler(model), self.tokenizer, self.journal, s.rl.max_tokens, s.seed, suffix,
            self.transfer if own else {},
        )  # fmt: skip

    def judged(self, stage: str, step: int, model: Transformer) -> None:
        """On the run's problems and, where there are any, on held-out requests."""
        with model.computing(compute_dtype(self.settings.rl.compute)[0]):
            self.judge(model).in_full(stage, step, last=stage == self.settings.last)
            if self.requests:
                self.judge(model, suffix=" requests", task=self.requests).in_full(stage, step)

    def fine_tune(
        self, stage: str, model: Transformer, kept: Path, config: SFTConfig
    ) -> Transformer:
        """`model` trained on the samples in a file, and judged."""
        longest = min(config.length, model.config.max_position_embeddings)
        documents = kept_documents(kept, self.tokenizer, longest)
        with self.journal.times.of(stage, TRAINING):
            trainer = sft(
                config,
                model,
                self.tokenizer,
                documents,
                self.folder / stage,
                self.journal.tracker,
                seed=self.seed,
                stage=stage,
            )
        self.judged(stage, trainer.steps, model)
        return model

    def reinforce(
        self,
        stage: str,
        model: Transformer,
        task: Task,
        config: GRPOConfig,
        watch: Callable[[], dict[str, float]] = dict,
    ) -> Transformer:
        """`model` trained by GRPO, and judged."""
        whole = partial(self.plan.left, stage, TRAINING)
        reinforce(stage, config, model, task, self.judge(model), self.folder, watch, whole)
        self.judged(stage, config.steps, model)
        return model
