"""What `rl` and `sft` take where nothing is named: settings with their values and reasons, chosen for a model, a task or documents, and a machine.

Pure rules: the same question has the same answer, at any hour (no clock is read here; `estimate.py` says afterwards how long it will really take). They
stand between the defaults and whatever a TOML file or an option names, which wins, and which the other choices follow. The numbers come from runs of this
project (docs/log.md, configs/) and from published ones; each rule says which.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from deepwright.config import ModelConfig

# (parameters, learning rate). RL: the laptop model and SmolLM2 as measured here, and as published for 7B (DeepSeekMath section 4.2; GRPO's usual one).
RL_RATES = ((1.4e6, 4e-4), (1.35e8, 2e-5), (7e9, 1e-6))
# Fine-tuning: the laptop model as measured here, and R1's students of 1.5B and 70B (R1 supplement, B.4.3), at 64 documents a step.
SFT_RATES = ((1.4e6, 1e-3), (1.5e9, 1e-4), (7e10, 2e-5))
SFT_BATCH = 64
# Going on with a trained model on a text: a tenth of what models of about that size were pre-trained at (SmolLM2 3e-3, Llama 7B 3e-4), and the laptop's.
TEXT_RATES = ((1.4e6, 4e-4), (1.35e8, 3e-4), (7e9, 3e-5))
TEXT_TOKENS = 8192  # in a step
SMALL = 20_000_000  # parameters: below, models of small worlds, whose steps take a second or so; above, language models
CORE_FLOPS = 1.5e11  # operations a second of a CPU core, in products of a step: measured on cores with bfloat16
ACCELERATOR_FLOPS = 1e14  # assumed; none was tried
STEP_SECONDS, RUN_SECONDS, EVALUATION_SECONDS = 25.0, 900.0, 90.0  # aimed at
STATE_BYTES = 16  # of a parameter: weight, gradient, two moments, in fp32
TOKEN_BYTES = 68  # of a token in a micro-batch, for each layer and channel: measured on SmolLM2, 1.1 MB in all
USED = 0.6  # of the memory
UPDATES = 60  # that fine-tuning makes at least, of documents that allow it


@dataclass(frozen=True)
class Choice:
    """A setting by its dotted name, what it becomes, and why, in a phrase."""

    setting: str
    value: Any
    reason: str


@dataclass(frozen=True)
class TaskFacts:
    """What is known of a task before anything is sampled: lengths in tokens of its first training problems."""

    prompt: int  # mean, as the model is given it
    longest_prompt: int
    question: int  # mean, without template, examples and instruction
    answer: int  # the longest reference, in the task's layout
    shown: bool  # worked examples stand before the question
    thinks: bool  # a thought is asked for, or the model's template opens one
    train: int  # problems
    held_out: int


@dataclass(frozen=True)
class DataFacts:
    """Documents to fine-tune on."""

    documents: int
    longest: int  # tokens


@dataclass(frozen=True)
class Machine:
    cores: int
    memory: int  # bytes
    accelerator: bool = False

    @property
    def flops(self) -> float:
        return ACCELERATOR_FLOPS if self.accelerator else CORE_FLOPS * self.cores

    @property
    def words(self) -> str:
        return (
            "the accelerator" if self.accelerator else f"{self.cores} core{'s' * (self.cores > 1)}"
        )


class Taking:
    """Takes choices one after the other; what the user named is theirs, and what follows sees it."""

    def __init__(self, asked: Any, named: Collection[str]) -> None:
        self._asked, self._named = asked, named
        self.choices: list[Choice] = []

    def asked(self, setting: str) -> Any:
        value = self._asked
        for name in setting.split("."):
            value = getattr(value, name)
        return value

    def __call__(self, setting: str, value: Any, reason: str) -> Any:
        """The value that holds."""
        if setting in self._named:
            return self.asked(setting)
        self.choices.append(Choice(setting, value, reason))
        return value


def rl_choices(
    asked: Any, named: Collection[str], model: ModelConfig, task: TaskFacts, machine: Machine
) -> list[Choice]:
    """For `asked` (RLSettings with what the user named, `named` by dotted names, the rest at its defaults)."""
    take, small = Taking(asked, named), model.parameters < SMALL
    size, mini = _millions(model), asked.rl.mini_batches
    take(
        "rl.learning_rate",
        rate_of(model, RL_RATES),
        f"{size} parameters: on the line through {_between(RL_RATES)}",
    )
    take("rl.compute", "auto", "the format that trains faster here, timed once for the machine")
    usual = _answers(take, model, task)
    many, why = (
        (12, "enough for most groups to have variance")
        if small
        else (8, "as in configs/smollm2.toml")
    )
    if not small and task.prompt >= 4 * usual:
        many, why = 16, f"of about {usual} tokens after prompts of {task.prompt}, more cost little"
    samples = take("rl.samples", many, why)
    packed = take(
        "rl.pack_groups",
        task.prompt >= usual and not asked.rl.replay_routing,
        f"prompts of {task.prompt} tokens beside answers of about {usual}",
    )
    again = asked.rl.resample
    if not small and asked.rl.zero_variance == "drop":
        again = take(
            "rl.resample", 2, "where few problems tell answers apart, more are asked (DAPO)"
        )
    pass_, here = model.forward_flops(task.prompt + usual), machine.flops
    group = task.prompt + samples * usual
    trained = group if packed else samples * (task.prompt + usual)
    # Of a problem: rollouts, and an update at three passes. Where others were asked as well, half of the groups were not trained on.
    seconds = pass_ * ((1 + again) * group + (1.5 if again else 3) * trained) / here
    prompts = take(
        "rl.prompts",
        min(_within(STEP_SECONDS / seconds, 8, 32, 4), max(1, task.train)),
        f"a step of about {STEP_SECONDS:g} s on {machine.words}, of 8 to 32 problems",
    )
    step = prompts * seconds
    steps = take(
        "rl.steps",
        _whole(_within(RUN_SECONDS / step, 40, 100, 10), mini),
        f"a quarter of an hour, of 40 to 100 steps; --resume --rl.steps {_whole(200, mini)} goes on",
    )
    if steps >= 4 * mini:
        take("rl.evaluate_every", _whole(steps // 4, mini), "three short evaluations on the way")
    if step > 5 and asked.rl.alarms.policy != "roll_back":
        take("rl.checkpoint_every", _whole(10, mini), "what a kill may cost, in slow steps")
    if prompts < 32:
        until = take("rl.constant_until", 0.2, "steps on few groups are noisy: the rate falls soon")
        take("rl.final_ratio", 1.0 if until == 1 else 0.1, "the last steps settle")
    if not small:
        _warmth(take)
        _memory(take, "rl", model, machine, "rl.micro_batch_tokens")
    _judging(take, pass_ * (task.prompt + (1 if small else 4) * usual) / here, small, task, machine)
    return take.choices


def _answers(take: Taking, model: ModelConfig, task: TaskFacts) -> int:
    """Takes the longest completion: a reference answer, and room to think as the task asks for it. Returns what one may usually be, in tokens."""
    factor, least, why = (
        (8, 192, "for a thought, which is asked for") if task.thinks
        else (2, 32, "to think as briefly as the examples") if task.shown
        else (4, 64, "to think")
    )  # fmt: skip
    room = max(least, factor * task.question)
    context = max(1, model.max_position_embeddings - task.longest_prompt)
    chosen = min(-(-(task.answer + room) // 8) * 8, context)
    reason = f"reference answers of up to {task.answer} tokens, {room} more {why}"
    tokens = take("rl.max_tokens", chosen, reason)
    return max(1, min(tokens, task.answer + room // (8 if task.shown else 4)))


def _warmth(take: Taking) -> None:
    """As configs/smollm2.toml found it, where a language model soon gives one answer only."""
    why = "a policy that is sure of its form gives one answer, with nothing to compare"
    if take("rl.entropy_target", 0.1, why) is not None:
        hottest = round(1.3 * take.asked("rl.temperature"), 3)
        take("rl.hottest", hottest, "beyond it texts end in noise")


def _judging(take: Taking, seconds: float, small: bool, task: TaskFacts, machine: Machine) -> None:
    """`seconds`: what a problem takes to be asked."""
    many = _within(EVALUATION_SECONDS / (1.5 * seconds), 40, 200, 20)
    problems = take(
        "evaluation.problems",
        max(1, min(many, task.held_out)),
        f"all {task.held_out} that are held out"
        if task.held_out <= many
        else f"an evaluation of about {EVALUATION_SECONDS:g} s on {machine.words}, of 40 to 200 problems",
    )
    if not small:
        take("evaluation.samples", 4, "of each, for pass@1 and pass@4")
        take("evaluation.also", (0.0,), "greedy: what the model gives already is the bar")
    take("evaluation.problems_between", max(1, min(100, problems // 2)), "half of them on the way")


def sft_choices(
    asked: Any, named: Collection[str], model: ModelConfig, data: DataFacts, machine: Machine
) -> list[Choice]:
    """The same for SFTSettings."""
    take, many = Taking(asked, named), data.documents
    epochs = take("sft.epochs", 3 if many < 1000 else 2, f"{many:,} documents")
    wanted = 2 ** int(math.log2(max(1, many * epochs // UPDATES)))
    rows = take(
        "sft.batch_rows",
        min(max(wanted, 4), 128, many),
        f"{UPDATES} updates or more of {many:,} documents, of 4 to 128 in each",
    )
    rate = rate_of(model, SFT_RATES, math.sqrt(min(1.0, rows / SFT_BATCH)))
    take(
        "sft.learning_rate",
        rate,
        f"{_millions(model)} parameters: on the line through {_between(SFT_RATES)} for {SFT_BATCH} documents a step, "
        f"by the root of {rows} / {SFT_BATCH}",
    )
    steps = -(-many * epochs // rows)
    take("sft.warmup_steps", min(20, steps // 20), f"a twentieth of {steps} steps")
    take("sft.compute", "auto", "the format that trains faster here, timed once for the machine")
    tokens = _memory(take, "sft", model, machine)
    take(
        "sft.micro_rows",
        min(rows, max(1, tokens // data.longest)),
        f"about {tokens:,} tokens at once, or all; the longest document has {data.longest:,}",
    )
    return take.choices


def text_choices(
    asked: Any, named: Collection[str], model: ModelConfig, machine: Machine
) -> list[Choice]:
    """The same for PretrainSettings of a model that goes on with a text."""
    take, size, schedule = Taking(asked, named), _millions(model), "pretrain.schedule."
    context = model.max_position_embeddings
    length = take("pretrain.length", min(context, 1024), f"of the context of {context:,}")
    rows = take(
        f"{schedule}batch_rows",
        max(1, TEXT_TOKENS // length),
        f"about {TEXT_TOKENS:,} tokens in a step",
    )
    take(f"{schedule}batch_rows_start", 0, "a trained model needs no small batches to begin with")
    each = 3 * model.forward_flops(length) / length / machine.flops
    steps = max(20, int(RUN_SECONDS / each / (rows * length)))
    take(
        f"{schedule}total_tokens",
        steps * rows * length,
        f"{steps} steps: a quarter of an hour on {machine.words}, or 20 steps; --resume with more goes on",
    )
    take(
        f"{schedule}learning_rate",
        rate_of(model, TEXT_RATES),
        f"{size} parameters: on the line through {_between(TEXT_RATES)}",
    )
    take(f"{schedule}warmup_steps", steps // 10, f"a tenth of {steps} steps")
    for bound, value in (("constant_until", 0.1), ("cosine_until", 1.0), ("tail_until", 1.0)):
        take(f"{schedule}{bound}", value, "a cosine over the whole")
    take("pretrain.compute", "auto", "the format that trains faster here, timed once for it")
    tokens = _memory(take, "pretrain", model, machine)
    take("pretrain.micro_rows", min(rows, max(1, tokens // length)), f"about {tokens:,} tokens")
    take("pretrain.validate_every", max(1, steps // 4), "four times on the way")
    take("pretrain.checkpoint_every", max(1, steps // 4), "as often")
    take("evaluation.validation_rows", 16, f"of {length:,} tokens")
    return take.choices


def _memory(
    take: Taking, section: str, model: ModelConfig, machine: Machine, setting: str = ""
) -> int:
    """Tokens of a micro-batch; where `setting` names the count it is taken too."""
    state = STATE_BYTES * model.parameters
    if state > machine.memory / 2:
        why = f"{state / 1e9:.0f} GB of weights, gradients and moments beside {machine.memory / 1e9:.0f} GB"
        take(f"{section}.optimizer.moments", "bfloat16", why)
    each = TOKEN_BYTES * model.num_hidden_layers * model.hidden_size
    room = (USED * machine.memory - state) / each
    most = 2048 if model.parameters < SMALL else 4096
    tokens = 2 ** int(math.log2(min(most, max(512, room))))
    why = f"{tokens * each / 1e9:.1f} GB beside {state / 1e9:.1f} GB of weights and moments"
    return take(setting, tokens, why) if setting else tokens


def rate_of(
    model: ModelConfig, anchors: Sequence[tuple[float, float]], factor: float = 1.0
) -> float:
    """Straight lines between the anchors on logarithmic axes, level beyond them; two digits."""
    sizes = [size for size, _ in anchors]
    size = min(max(model.parameters, sizes[0]), sizes[-1])
    place = max(1, next(n for n, other in enumerate(sizes) if size <= other))
    (small, high), (large, low) = anchors[place - 1], anchors[place]
    share = math.log(size / small) / math.log(large / small)
    return float(f"{factor * high * (low / high) ** share:.1e}")


def _between(anchors: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{rate:g} at {_count(size)}" for size, rate in anchors)


def _count(number: float) -> str:
    size, letter = next(
        ((size, letter) for size, letter in ((1e9, "B"), (1e6, "M")) if number >= size), (1e3, "K")
    )
    return f"{number / size:.3g}{letter}"


def _millions(model: ModelConfig) -> str:
    return _count(model.parameters)


def _within(value: float, least: int, most: int, step: int) -> int:
    """The value in whole steps, from `least` to `most`."""
    return min(max(int(value // step) * step, least), most)


def _whole(count: int, mini_batches: int) -> int:
    """Rounds are not cut: the next multiple of the mini-batches of one."""
    return -(-count // mini_batches) * mini_batches
