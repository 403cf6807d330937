"""Reward models: a policy's trunk with one number read at the last token, trained on preferences (DeepSeek-R1 supplement, sections 3.1 and B.5).

What is helpful is learned from pairs, what is safe from labels, with the same settings. Scores compare texts under one model: where it saw pairs
alone, their zero means nothing. Router biases stay as pre-training left them, MTP modules and head as the policy has them: no gradient reaches them.
Left out: making the pairs (R1 asks a judge four times, in both orders, and balances lengths), a chain of thought before the number (V3 section
5.2.1), rewards of single steps and training on with 10% of the old pairs (DeepSeekMath section 4.1).

B texts of a micro-batch, S positions, D width, n pairs. A text is a prompt with its completion, as token ids.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from deepwright import weights
from deepwright.metrics import Tracker
from deepwright.model import Transformer
from deepwright.rl.rollout import problem_indices
from deepwright.rl.types import Row, micro_batches, pad_rows
from deepwright.text import Tokenizer
from deepwright.train.checkpoint import (
    Checkpoint,
    check_settings,
    latest_checkpoint,
    save_checkpoint,
    taking_over,
)
from deepwright.train.optimizer import Optimizer, OptimizerConfig, is_finite, require_finite
from deepwright.train.progress import INTERRUPTED, Progress, StopRequest

LOSSES = ("reward_model_loss",)
HEAD = "reward_head"  # names the vector in a folder and in a checkpoint


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt, of which the first was preferred."""

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    def texts(self) -> list[tuple[tuple[int, ...], bool]]:
        return [
            ((*self.prompt_ids, *self.chosen_ids), True),
            ((*self.prompt_ids, *self.rejected_ids), False),
        ]


@dataclass(frozen=True)
class Labelled:
    """A text that was judged by itself."""

    ids: tuple[int, ...]
    good: bool

    def texts(self) -> list[tuple[tuple[int, ...], bool]]:
        return [(self.ids, self.good)]


class RewardModel(nn.Module):
    """A copy of `policy` as trunk and a vector `head_D`, zero if not given: r = head . state of a text's last token, after the final norm."""

    def __init__(self, policy: Transformer, head_D: Tensor | None = None) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(policy).requires_grad_(True)
        self.head_D = nn.Parameter(
            torch.zeros_like(policy.norm.weight, dtype=torch.float32) if head_D is None else head_D
        )

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """-> the score of each text [B] in fp32, in one pass. ValueError for a text of less than 2 tokens."""
        # any id may pad: nothing sees what stands right of it
        batch = pad_rows([_read_at_end(ids) for ids in rows], 0, self.head_D.device)
        return self.trunk.hidden(batch.tokens_BS)[batch.completion_BS].float() @ self.head_D

    @torch.no_grad()
    def scores(self, rows: Sequence[Sequence[int]], token_budget: int = 2048) -> Tensor:
        """The same for any number of texts, without gradient, in micro-batches of at most `token_budget` tokens, padding counted."""
        scores_B = torch.zeros(len(rows), device=self.head_D.device)
        for places in micro_batches([_read_at_end(ids) for ids in rows], token_budget):
            scores_B[places] = self([rows[place] for place in places])
        return scores_B


def pairwise_loss(chosen_n: Tensor, rejected_n: Tensor) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected) of each pair [n]: by Bradley and Terry, of the chance that the chosen one is preferred."""
    return -nn.functional.logsigmoid(chosen_n - rejected_n)


def pointwise_loss(scores_B: Tensor, good_B: Tensor) -> Tensor:
    """-[y log sigmoid(r) + (1 - y) log(1 - sigmoid(r))] of each text [B], with y = 1 where it is good."""
    return -torch.where(
        good_B, nn.functional.logsigmoid(scores_B), nn.functional.logsigmoid(-scores_B)
    )


def ranked_right(scores_B: Tensor, good_B: Tensor) -> float:
    """Share of the pairs (first good text and first bad one, second and second ...) whose good one scores higher, half for a tie; nan without any."""
    good, bad = scores_B[good_B], scores_B[~good_B]
    n = min(len(good), len(bad))
    return float((1 + (good[:n] - bad[:n]).sign()).mean()) / 2


@dataclass(frozen=True)
class RewardModelConfig:
    """How a reward model is trained. Epochs, batch and learning rate are R1's (supplement, B.5). AdamW with V3's betas, a constant rate and no decay,
    which would pull towards zero and not towards the policy, are assumptions."""

    epochs: int = 1  # times that every example is read, each time in a new order
    batch: int = 256  # pairs, or labelled texts, in a step; the last step takes what is left
    learning_rate: float = 6e-6
    micro_batch_tokens: int = (
        2048  # padded tokens in one forward pass, a pair together; the result is the same
    )
    checkpoint_every: int = 25  # steps

    def __post_init__(self) -> None:
        if wrong := {
            name: value for name, value in vars(self).items() if not 0 < value < float("inf")
        }:
            raise ValueError(f"settings of the reward model are {wrong}, expected positive numbers")


def accumulate_gradient(
    model: RewardModel, examples: Sequence[Pair | Labelled], token_budget: int
) -> dict[str, float]:
    """Adds the gradient of the examples' mean loss to `.grad`, one micro-batch at a time. Returns its metrics."""
    # An example takes as many tokens, padding counted, as its longest text has, for each of its texts.
    sizes = [
        max((ids for ids, _ in example.texts()), key=len) * len(example.texts())
        for example in examples
    ]
    found = []
    for places in micro_batches([_read_at_end(ids) for ids in sizes], token_budget):
        rows, good_B = _texts([examples[place] for place in places], model.head_D.device)
        r_B = model(rows)
        losses = (
            pairwise_loss(r_B[good_B], r_B[~good_B])
            if isinstance(examples[0], Pair)
            else pointwise_loss(r_B, good_B)
        )
        (losses.sum() / len(examples)).backward()
        found.append((losses.detach(), r_B.detach(), good_B))
    losses, r_B, good_B = map(torch.cat, zip(*found))
    return {
        "reward_model_loss": float(losses.mean()),
        "preference_accuracy": ranked_right(r_B, good_B),
    }


def train_reward_model(config: RewardModelConfig, model: RewardModel, examples: Sequence[Pair | Labelled], held_out: Sequence[Pair | Labelled],
                       run_dir: str | Path, tracker: Tracker, tokenizer: Tokenizer | None, seed: int = 0, *, stage: str = "reward_model",
                       require_ranking: bool = True) -> float:  # fmt: skip
    """Trains `model` in place and returns its accuracy on `held_out`: `ranked_right` of pairs, or of good labelled texts beside bad ones.

    Continues from the last whole checkpoint of `run_dir` if there is one, bit for bit: the order of the examples follows from (seed, epoch). SIGINT or
    SIGTERM finishes the step, saves, and raises SystemExit(130). Raises ValueError (examples of two kinds or none; settings, seed or examples that
    contradict the checkpoint; with `require_ranking` an accuracy that is not above 1/2 by two standard errors), CheckpointError, TrainingDiverged.
    """
    rows, good_B = _texts(held_out, model.head_D.device)
    n = int(torch.stack((good_B, ~good_B)).sum(1).min())
    # even 4 of 4 could be chance
    if (kinds := len({type(example) for example in examples})) != 1 or (n < 5 and require_ranking):
        raise ValueError(
            f"there are {kinds} kinds of examples and {n} held-out pairs, expected 1 kind and at least 5 pairs"
        )
    optimizer = Optimizer(model, OptimizerConfig(weight_decay=0.0))
    settings = asdict(config) | {
        "seed": seed,
        "examples": hashlib.sha256(repr(list(examples)).encode()).hexdigest()[:16],
    }
    checkpoint, total, asked = latest_checkpoint(run_dir), config.epochs * len(examples), False
    step, steps = (
        _resume(checkpoint, model, optimizer, settings) if checkpoint else 0,
        -(-total // config.batch),
    )
    if hasattr(tracker, "rewind"):
        tracker.rewind(stage, step)
    progress = Progress(steps, stage, unit="steps")
    progress.start_at(step)
    with StopRequest() as stop, progress:
        while step < steps and not asked:
            places = problem_indices(len(examples), config.batch, seed, step)[
                : total - step * config.batch
            ]
            values = accumulate_gradient(
                model, [examples[place] for place in places], config.micro_batch_tokens
            )
            values["grad_norm"] = optimizer.step(config.learning_rate, step + 1).grad_norm
            step, asked = step + 1, stop.asked
            tracker.log(
                stage,
                step,
                values
                | {"skipped_steps": optimizer.skipped, "learning_rate": config.learning_rate},
            )
            progress.advance(
                1,
                f"loss {values['reward_model_loss']:.3f} | ranked right {values['preference_accuracy']:.2f}",
            )
            if step == steps:
                require_finite(values, LOSSES, step)
            due = asked or step == steps or step % config.checkpoint_every == 0
            if due and is_finite(values, LOSSES):
                tracker.flush()  # before the checkpoint: records up to it must not be lost
                state = {"counters": optimizer.counts(), "settings": settings}
                save_checkpoint(
                    run_dir,
                    step,
                    model.trunk,
                    tokenizer,
                    optimizer.tensors() | {HEAD: model.head_D},
                    state,
                )
        if stop.asked:
            progress.say(
                f"{stage} was interrupted after step {step} and is saved in {run_dir}; start it again to continue"
            )
            raise SystemExit(INTERRUPTED)
    accuracy, bound = (
        ranked_right(model.scores(rows, config.micro_batch_tokens), good_B),
        0.5 + max(n, 1) ** -0.5,
    )
    # twice a fair coin's standard error of sqrt(1/4 / n)
    if require_ranking and not accuracy > bound:
        raise ValueError(
            f"{stage}: the reward model ranks at random: {accuracy:.1%} of {n} held-out pairs, expected more than {bound:.1%}"
        )
    return accuracy


def _resume(
    checkpoint: Checkpoint, model: RewardModel, optimizer: Optimizer, settings: dict[str, object]
) -> int:
    """Takes over weights, moments and counters; returns the step. Only what moves results by rounding at most may have changed."""
    with taking_over(checkpoint):
        check_settings(checkpoint, settings, ("micro_batch_tokens", "checkpoint_every"))
        checkpoint.load_model_into(model.trunk)
        model.head_D.data.copy_(checkpoint.tensors[HEAD])
        optimizer.load(
            {name: tensor for name, tensor in checkpoint.tensors.items() if name != HEAD},
            checkpoint.state["counters"],
        )
    return checkpoint.step


def save_reward_model(model: RewardModel, tokenizer: Tokenizer, folder: str | Path) -> None:
    """The trunk as any model's folder, and the head beside it. A kill in between leaves a folder without a head, which does not open."""
    weights.save(model.trunk, tokenizer, folder)
    safetensors.torch.save_file(
        {HEAD: model.head_D.detach().cpu()}, Path(folder) / f"{HEAD}.safetensors"
    )


def load_reward_model(
    folder: str | Path, dtype: torch.dtype | None = None
) -> tuple[RewardModel, Tokenizer]:
    """What `save_reward_model` wrote. Raises ValueError as `weights.load` does, and for a folder without a head."""
    if not (path := Path(folder) / f"{HEAD}.safetensors").is_file():
        raise ValueError(f"{folder} has no {path.name}, so it holds no reward model")
    policy, tokenizer = weights.load(folder, dtype)
    return RewardModel(policy, safetensors.torch.load_file(path)[HEAD]), tokenizer


def _read_at_end(ids: Sequence[int]) -> Row:
    """A text as a row whose completion is its last token, where the score is read."""
    if len(ids) < 2:
        raise ValueError(
            f"a text has {len(ids)} tokens, expected at least 2: a prompt and a completion"
        )
    return Row(tuple(ids[:-1]), tuple(ids[-1:]), (0.0,), 0.0)


def _texts(
    examples: Sequence[Pair | Labelled], device: torch.device
) -> tuple[list[tuple[int, ...]], Tensor]:
    texts = [text for example in examples for text in example.texts()]
    return [ids for ids, _ in texts], torch.tensor(
        [good for _, good in texts], dtype=torch.bool, device=device
    )
