"""The curves of a report: reinforcement learning, pre-training, fine-tuning, the stages after R1-Zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deepwright.metrics import GLOSSARY
from deepwright.report.charts import Line, heat_map, plot
from deepwright.report.figures import PLUS_MINUS, count, number, percent
from deepwright.report.frame import grid, not_yet, paragraph, section
from deepwright.report.records import Point, Run, moving_average, table_in

GREY, BLUE, ORANGE, GREEN, PURPLE, OCHRE = 6, 1, 2, 3, 4, 5
# the stage whose model a stage of reinforcement learning starts from, and whose evaluation is its step 0
STARTS = {
    "zero": "base",
    "reasoning_rl": "cold_start",
    "without_language_reward": "cold_start",
    "align": "finetune",
    "student_by_rl": "student",
}


def reinforcement(run: Run) -> str:
    """Everything that moves while the model learns by reward."""
    if not any(record.get("stage") == "zero" for record in run.metrics):
        return section(
            "zero", "Reinforcement learning", not_yet("it starts when pre-training has ended.")
        )
    return section(
        "zero",
        "Reinforcement learning, step by step",
        paragraph(_averaging(run), "soft"),
        grid(accuracy(run) if run.beyond_zero else "", _smooth(run, "mean_length", "Answer length"), _smooth(run, "self_check_rate", "Self-check rate"),
             _smooth(run, "self_checks_per_answer", "Self-checks per answer"),
             _several(run, "Self-check: righter or not?", _SELF_CHECK, "Accuracy among the completions that check themselves at least once, "
                      "and among the others.", unit="fraction"),
             _judgement(run), _smooth(run, "turned_right_rate", "Turned right")),
        paragraph(self_check_sentence(run)),
        grid(_several(run, "Reward and its parts", _REWARDS, GLOSSARY["reward"].sentence, unit="points"),
             _several(run, "Format and truncation", _RATES, "Completions that keep the asked format, and completions cut at the token limit.",
                      unit="fraction"),
             _smooth(run, "entropy", "Entropy"), _smooth(run, "zero_variance_rate", "Groups without variance"),
             _several(run, "Sampler against trainer", _GAP, GLOSSARY["log_prob_gap_mean"].sentence, unit="nats", average=False, log=True),
             _several(run, "Probability ratio, new to old policy", _RATIO, "1 when each batch is used for one update only.", average=False,
                      zero=False),
             _unless_zero(run, "kl", "Divergence from the reference"),
             _unless_zero(run, "clip_fraction", "Clipped tokens"), _plain(run, "zero", "grad_norm", "Gradient norm"),
             _plain(run, "zero", "learning_rate", "Learning rate")),
    )  # fmt: skip


def pre_training(run: Run) -> str:
    """Losses, balance of the experts, and how far the extra prediction head gets."""
    if not any(record.get("stage") == "base" for record in run.metrics):
        return section("base", "Pre-training", not_yet("no step of pre-training has been logged."))
    loads = run.loads("base")
    maps = [
        heat_map(f"Expert load, step {count(step)}", load, _MAP if place == 0 else "")
        for place, (step, load) in enumerate(_ends(loads))
    ]
    series = run.series
    balance = [Line("batches, average", _average(run, "base", "max_vio"), BLUE),
               Line("single batches", series("base", "max_vio"), BLUE, "faint"),
               Line("whole validation set", series("base", "max_vio_global"), ORANGE, "dots")]  # fmt: skip
    checker = [
        Line("right attempt: says yes", series("base", "checker_yes"), GREEN),
        Line("wrong attempt: says no", series("base", "checker_no"), ORANGE),
    ]
    return section(
        "base",
        "Pre-training: the base model",
        _drafts(run),
        grid(loss(run, "base") if run.has("zero") else "",
             _plain(run, "base", "mtp_loss", "Loss of the token after next", zero=False),
             _plain(run, "base", "bits_per_byte", "Bits per byte", zero=False),
             _plain(run, "base", "mtp_acceptance", "Drafts accepted"),
             plot("Balance of the experts (MaxVio)", balance, sentence=GLOSSARY["max_vio"].sentence), *maps,
             _plain(run, "base", "balance_loss", "Balance loss", zero=False),
             _plain(run, "base", "dead_experts", "Experts without a token"),
             plot("Can it tell right from wrong?", checker, unit="fraction", sentence=_CHECKER),
             _plain(run, "base", "learning_rate", "Learning rate"), _plain(run, "base", "grad_norm", "Gradient norm"),
             _plain(run, "base", "tokens_per_second", "Speed")),
    )  # fmt: skip


def loss(run: Run, stage: str) -> str:
    """Training and validation loss of pre-training or fine-tuning."""
    lines = [
        Line("training", run.series(stage, "loss"), BLUE, "faint"),
        Line("training, average", _average(run, stage, "loss"), BLUE),
        Line("validation", run.series(stage, "validation_loss"), ORANGE, "dots"),
        Line(
            "validation, averaged weights",
            run.series(stage, "validation_loss_ema"),
            GREEN,
            "dots",
        ),
    ]
    sentence = GLOSSARY["loss"].sentence if stage == "base" else _TARGETS
    return plot("Loss", lines, unit="nats/token", zero=False, sentence=sentence, wide=True)


def stretched(run: Run) -> str:
    """The losses of the phases in which the context was stretched; "" where it was not."""
    drawn = [
        _plain(run, stage, "loss", f"Loss in phase {place}", zero=False)
        for place, stage in enumerate(run.phases, 1)
    ]
    lead = paragraph(_STRETCHED, "soft")
    return section("stretched", "A longer context", lead, grid(*drawn)) if drawn else ""


def fine_tuning(run: Run) -> str:
    """What `sft` logs at each step; "" for a run that is something else."""
    if not run.has("sft"):
        return ""
    drawn = (
        _plain(run, "sft", "mtp_loss", "Loss of the token after next", zero=False),
        _plain(run, "sft", "grad_norm", "Gradient norm"),
        _plain(run, "sft", "learning_rate", "Learning rate"),
        _plain(run, "sft", "max_vio", "Balance of the experts (MaxVio)"),
        _plain(run, "sft", "tokens_per_second", "Speed"),
    )
    return section("sft", "Fine-tuning, step by step", grid(*drawn))  # its loss opens the page


def later(run: Run) -> str:
    """A few curves of every stage after R1-Zero; "" where there are none."""
    languages = [
        _stages(run, "Accuracy", "accuracy", _LANGUAGE, "pass_at_1"),
        *(
            _stages(run, title, name, _LANGUAGE, name)
            for title, name in (
                ("One language", "language_consistency"),
                ("Answer length", "mean_length"),
            )
        ),
    ]
    aligned = [
        _several(
            run, "Reward and its parts", (*_REWARDS, *_MODELS), _PAID, unit="points", stage="align"
        ),
        plot(
            "Win rate over the model before",
            [_wins(run)],
            unit="fraction",
            sentence=GLOSSARY["win_rate"].sentence,
        ),
        plot(
            "Accuracy on the run's problems",
            [_held_out(run, "pass_at_1", "pass_at_1_se", stage="align")],
            unit="fraction",
            sentence=_KEPT,
        ),
    ]
    students = [_stages(run, title, name, _ALONE, held) for title, name, held in _STUDENT]
    tuned = [
        plot(title, [Line(label, _average(run, stage, name), colour) for stage, label, colour in stages], unit=GLOSSARY[name].unit,
             sentence=GLOSSARY[name].sentence, zero=False)
        for title, name, stages in (("Loss of fine-tuning", "loss", _TUNED), ("Pairs and labels judged right", "preference_accuracy", _RANKED))
    ]  # fmt: skip
    groups = {"Reasoning with and without a reward for one language": languages, "Alignment": aligned,
              "The student by reinforcement learning alone": students, "Fine-tuning and reward models": tuned}  # fmt: skip
    drawn = "".join(
        f"<h3>{title}</h3>{found}" for title, figures in groups.items() if (found := grid(*figures))
    )
    return (
        section("later", "After R1-Zero, step by step", paragraph(_DOTS, "soft"), drawn)
        if drawn
        else ""
    )


def _stages(
    run: Run, title: str, name: str, stages: Sequence[tuple[str, str, int]], held: str
) -> str:
    """One metric of some stages in one figure, (stage, label, colour), with dots for the held-out figure `held`."""
    lines = [Line(label, _average(run, stage, name), colour) for stage, label, colour in stages]
    error = "pass_at_1_se" if held == "pass_at_1" else ""
    several = len(stages) > 1
    lines += [
        _held_out(run, held, error, f"{label}, held out" if several else "held out", colour, stage)
        for stage, label, colour in stages
    ]
    return plot(
        title,
        lines,
        unit=GLOSSARY[name].unit,
        sentence=_ACCURACY if name == "accuracy" else GLOSSARY[name].sentence,
    )


def _wins(run: Run) -> Line:
    """Held-out win rates of alignment, the last one as run.json has it; against itself a model wins half."""
    points = [(0.0, 0.5), *run.series("align", "win_rate")]
    known, end = table_in(run.facts, "win_rate"), run.series("align", "reward")
    if (last := number(known.get("after"))) is not None and end:
        points = [*(point for point in points if point[0] != end[-1][0]), (end[-1][0], last)]
    errors = [None] * (len(points) - 1) + [number(known.get("standard_error"))]
    return Line(
        "held out",
        points if len(points) > 1 else [],
        ORANGE,
        "dots",
        errors if len(points) > 1 else [],
    )


def _drafts(run: Run) -> str:
    """How many draft tokens of the MTP module the model accepts: run.json's {"mtp_acceptance": {"greedy", "sampled", "positions"}}."""
    found = run.facts.get("mtp_acceptance")
    known = [
        f"{percent(share)} {how}"
        for how in ("greedy", "sampled")
        if isinstance(found, dict) and (share := number(found.get(how))) is not None
    ]
    if not known:
        return ""
    places = number(found.get("positions"))
    over = f" over {count(places)} positions" if places else ""
    return paragraph(
        f"Of the tokens that the MTP module drafts, the finished base model accepts {' and '.join(known)}{over}."
    )


def self_check_sentence(run: Run) -> str:
    """Whether answers that re-check themselves are righter, from the last held-out evaluation; "" if it was not measured."""
    last = run.after or run.before or {}
    rate, right, wrong = (
        number(last.get(k))
        for k in ("self_check_rate", "accuracy_with_self_check", "accuracy_without_self_check")
    )
    answers = (number(last.get("problems")) or 0) * (number(last.get("samples")) or 1)
    if rate is None or right is None or wrong is None or answers == 0:
        return ""
    with_check, without = rate * answers, (1 - rate) * answers
    return (
        f"Are answers with a self-check righter? In the last held-out evaluation {_share(right, with_check)} with a self-check were right, "
        f"and {_share(wrong, without)} without (binomial errors). This compares answers, it is no experiment: harder problems may call for "
        "more self-checks."
    )


# What stands together in one figure: metric, label, colour.
_SELF_CHECK = (
    ("correct_with_self_check", "with self-check", GREEN),
    ("correct_without_self_check", "without", GREY),
)
_JUDGED = (
    ("checker_yes", "accepts the target", GREEN),
    ("checker_no", "turns down the rest", ORANGE),
    ("equations_right", "equations true", GREY),
)
_REWARDS = (
    ("reward", "all", BLUE),
    ("reward_accuracy", "accuracy", GREEN),
    ("reward_format", "format", ORANGE),
    ("reward_language", "language", PURPLE),
)
_RATES = (("format_rate", "format kept", BLUE), ("truncated_rate", "cut at the limit", ORANGE))
_MODELS = (("reward_helpful", "helpful", OCHRE), ("reward_safe", "safe", GREY))
_LANGUAGE = (("reasoning_rl", "with it", BLUE), ("without_language_reward", "without it", GREY))
_ALONE = (("student_by_rl", "training", BLUE),)
_STUDENT = (("Accuracy", "accuracy", "pass_at_1"), ("Answer length", "mean_length", "mean_length"))
_TUNED = (
    ("cold_start", "cold start", BLUE),
    ("finetune", "fine-tuning", GREEN),
    ("distill", "student, taught", PURPLE),
)
_RANKED = (("reward_helpful", "helpful", OCHRE), ("reward_safe", "safe", GREY))
_GAP = (("log_prob_gap_mean", "mean", BLUE), ("log_prob_gap_max", "largest", ORANGE))
_RATIO = (("ratio_mean", "mean", BLUE), ("ratio_max", "largest", ORANGE))
_ACCURACY = "Share of sampled answers that are right. Held out: pass@1 on problems that no stage of training has seen."
_STRETCHED = "After pre-training the positions are stretched by YaRN and the model is trained on, in rows of each phase's own length."
_TARGETS = "Mean negative log-likelihood of the tokens that the assistant says; validation: of conversations that are never trained on."
_DOTS = "Lines are averages over training steps, dots held-out evaluations; step 0 is the model that a stage starts from."
_PAID = (
    "Reasoning is paid by rules, general answers by two reward models, and both for their format."
)
_KEPT = (
    "Held-out pass@1 while general answers are rewarded too: it shows whether reasoning is kept."
)
_JUDGEMENT = "Held out: verdicts on its own attempts against the truth, and its arithmetic."
_CHECKER = "Verdicts of the base model on attempts, against the truth. Without this, checking oneself cannot pay."
_MAP = "A row for each layer with experts. No colour: the mean load; orange is more (full colour: 2.8 times or above), blue is less."


def _share(value: float, answers: float) -> str:
    error = math.sqrt(max(value * (1 - value), 0.0) / answers) if answers >= 1 else 0.0
    return f"{100 * value:.1f} {PLUS_MINUS} {100 * error:.1f}% of about {count(round(answers))} answers"


def _averaging(run: Run) -> str:
    width = _width(run.series("zero", "accuracy"))
    steps = (
        "Lines are single steps"
        if width == 1
        else f"Faint lines are single steps, strong lines the mean of the last {width} steps"
    )
    return (
        f"{steps}, dots held-out evaluations with one "
        "standard error. Single steps see few prompts and swing; the dots are the figures to quote."
    )


def _width(points: list) -> int:
    return max(1, min(10, len(points) // 4))


def _average(run: Run, stage: str, name: str) -> list[Point]:
    points = run.series(stage, name)
    return moving_average(points, _width(points))


def _held_out(
    run: Run,
    name: str,
    error: str = "",
    label: str = "held out",
    colour: int = ORANGE,
    stage: str = "zero",
) -> Line:
    """The dots of a curve: every held-out evaluation at the temperature of the first one, one for each step."""
    chosen = {}
    for evaluation in run.held_out:
        step = 0.0 if evaluation.get("stage") == STARTS[stage] else number(evaluation.get("step"))
        same = run.before is None or evaluation.get("temperature") == run.before.get("temperature")
        if (
            evaluation.get("stage") in (STARTS[stage], stage)
            and step is not None
            and same
            and number(evaluation.get(name)) is not None
        ):
            chosen[step] = evaluation
    if stage == "zero" and run.before is not None and number(run.before.get(name)) is not None:
        chosen[0.0] = run.before
    steps = sorted(chosen)
    points = [(step, number(chosen[step][name]) or 0.0) for step in steps]
    return Line(
        label,
        points,
        colour,
        "dots",
        [number(chosen[step].get(error)) for step in steps] if error else (),
    )


def _smooth(run: Run, name: str, title: str) -> str:
    metric, single = GLOSSARY[name], Line("single steps", run.series("zero", name), BLUE, "faint")
    lines = [Line("training", _average(run, "zero", name), BLUE), single, _held_out(run, name)]
    return plot(title, lines, unit=metric.unit, sentence=metric.sentence)


def _plain(run: Run, stage: str, name: str, title: str, zero: bool = True) -> str:
    metric = GLOSSARY[name]
    return plot(
        title,
        [Line(title, run.series(stage, name), BLUE)],
        unit=metric.unit,
        sentence=metric.sentence,
        zero=zero,
    )


def _unless_zero(run: Run, name: str, title: str) -> str:
    return _smooth(run, name, title) if any(value for _, value in run.series("zero", name)) else ""


def accuracy(run: Run) -> str:
    lines = [
        Line("training prompts, average", _average(run, "zero", "accuracy"), BLUE),
        Line("single steps", run.series("zero", "accuracy"), BLUE, "faint"),
        _held_out(run, "pass_at_1", "pass_at_1_se"),
    ]
    return plot("Accuracy", lines, unit="fraction", sentence=_ACCURACY, wide=True)


def _judgement(run: Run) -> str:
    lines = [_held_out(run, name, label=label, colour=colour) for name, label, colour in _JUDGED]
    return plot("Are its own checks right?", lines, unit="fraction", sentence=_JUDGEMENT)


def _several(
    run: Run, title: str, curves: Sequence[tuple[str, str, int]], sentence: str, *, unit: str = "1", average: bool = True, stage: str = "zero",
    **axis: bool,
) -> str:  # fmt: skip
    """Some metrics of reinforcement learning, (name, label, colour), in one figure."""
    lines = [
        Line(label, _average(run, stage, name) if average else run.series(stage, name), colour)
        for name, label, colour in curves
    ]
    return plot(title, lines, unit=unit, sentence=sentence, **axis)


def _ends(loads: list) -> list:
    return loads[:1] + loads[-1:] if len(loads) > 1 else loads
