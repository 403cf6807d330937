"""The worded parts of a report: what the run is, what came out, where the gain came from, samples, corpus, limits, glossary."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from deepwright.intervals import wilson
from deepwright.metrics import GLOSSARY
from deepwright.report.charts import stacked_bar, whisker
from deepwright.report.figures import (
    ARROW,
    GLUE,
    MINUS,
    PLUS_MINUS,
    TIMES,
    compact,
    count,
    duration,
    escape,
    number,
    percent,
    percent_range,
    percent_with_error,
)
from deepwright.report.frame import fold, grid, not_yet, paragraph, section, table
from deepwright.report.records import Run, by_count, interval_in, table_in
from deepwright.report.spread import measured_for

BEFORE, AFTER = 6, 1  # colours
LONGEST_SAMPLE, MOST_PAIRS, MOST_STEPS = 1500, 8, 10


def identity(run: Run) -> str:
    """Title, state, one paragraph, and the facts that are needed to run it again."""
    status = "running" if run.running else str(run.facts.get("status"))
    name = run.folder.resolve().name
    pill = f'<span class="pill {escape(status)}">{escape(status)}</span>'
    facts = {
        "command": f"<code>{escape(run.setting('command') or 'not recorded')}</code>",
        "seed": escape(_or_unknown(run.setting("seed"))),
        "version": escape(_or_unknown(run.setting("deepwright_version") or run.setting("version"))),
        "machine": escape(_or_unknown(run.setting("machine"))),
        "started": escape(_or_unknown(run.facts.get("started"))),
        "wall time": escape(duration(run.seconds) + (" so far" if run.running else "")),
    }
    listed = "".join(
        f"<dt>{name}</dt><dd{'' if name == 'wall time' else _AS_IS}>{value}</dd>"
        for name, value in facts.items()
        if value != "unknown"
    )
    return f'<h1><span translate="no">{escape(name)}</span> {pill}</h1>{_banner(run)}{paragraph(describe(run))}<dl>{listed}</dl>'


def describe(run: Run) -> str:
    """What was trained, on what, how, and how far it is, in two or three sentences."""
    total, active = number(run.facts.get("parameters")), number(run.facts.get("active_parameters"))
    layers, experts, chosen = (
        run.setting(n) for n in ("num_hidden_layers", "n_routed_experts", "num_experts_per_tok")
    )
    part = f", of which {count(active)} work on each token" if active != total else ""
    size = f" of {count(total)} parameters{part}" if total and active else ""
    tokens, steps = run.last("base", "tokens"), run.rl_steps
    done = [f"{count(tokens)} tokens of pre-training"] if tokens else []
    done += [f"{count(steps)} steps of reinforcement learning"] if steps else []
    shape, start = "", f"starts from {run.setting('start')}"  # of which [model] says nothing
    if run.has("base"):
        start = "starts from random weights and is pre-trained on the corpus described below"
        if layers and experts and chosen:
            shape = f" ({layers} layers, {experts} routed experts in a layer, {chosen} chosen for each token)"
    return (
        f"A {run.setting('model_type') or 'language'} model{size}{shape} {start}{_learning(run)}. "
        f"{'So far' if run.running else 'In all'}: {' and '.join(done) or 'nothing yet'}."
        f"{' The later stages of R1 follow.' if run.beyond_zero else ''}"
    )


def _learning(run: Run) -> str:
    if not run.has("zero"):
        return ""
    task = (run.after or run.before or {}).get("task") or "a task"
    rules = f"learns {task} by reinforcement learning alone: rewards come from fixed rules, and no written answer is trained on in that stage"
    return f", and then {rules}" if run.has("base") else f" and {rules}"


def headline(run: Run) -> str:
    """Held-out figures before and after reinforcement learning, with their errors."""
    before, after = run.before, run.after
    title = "R1-Zero on held-out problems" if run.beyond_zero else "Result on held-out problems"
    if before is None:
        return section(
            "result", title, not_yet("the first held-out evaluation follows pre-training.")
        )
    tiles = [
        _tile("pass@1", before, after, "pass_at_1", "pass_at_1_se"),
        *(
            _tile(f"cons@{k}", _at_k(before, k), _at_k(after, k), "cons", "cons_se")
            for k in _largest_k(before, after)
        ),
        _tile("Self-check rate", before, after, "self_check_rate"),
        _tile("Self-checks per answer", before, after, "self_checks_per_answer"),
        _tile("Answer length", before, after, "mean_length"),
        _tile("Format kept", before, after, "format_rate"),
    ]
    waits = (
        ""
        if after
        else not_yet("reinforcement learning has not been evaluated; below is the base model.")
    )
    return section(
        "result",
        title,
        f"<p>{escape(headline_sentence(run))}</p>",
        waits,
        grid(*tiles),
        paragraph(_how_measured(run), "soft"),
        _by_kind(before, after),
        fold(f"All {len(run.evaluations)} evaluations", _all_evaluations(run)),
    )


def headline_sentence(run: Run) -> str:
    """The main result in one sentence."""
    before, after = run.before or {}, run.after
    if after is None:
        return f"Before reinforcement learning one sampled answer is right with probability {_pass_at_1(before)} (pass@1)."
    share = {
        place: number(e.get("pass_at_1")) or 0.0
        for place, e in enumerate(run.held_out)
        if e.get("stage") == "base"
    }
    best = max(share, key=share.__getitem__, default=None)
    better = best is not None and share[best] > (number(before.get("pass_at_1")) or 0.0)
    also = (
        f" Sampled otherwise, the base itself reaches {percent(share[best])} ({run.held_out[best].get('label')})."
        if better
        else ""
    )
    went = f"went from {_pass_at_1(before)} to {_pass_at_1(after)} after {_step(after):g} steps"
    return f"The chance that one sampled answer is right (pass@1) {went}.{also}"


def decomposition(run: Run) -> str:
    """How much of the rise is format, better guessing, search."""
    found = _shares(run.decomposition, "parts")
    if not found:
        return section(
            "rise",
            "What the rise is made of",
            not_yet("it is worked out from the evaluations before and after."),
        )
    bar = stacked_bar(found, lambda value: f"{100 * value:+.1f} points".replace("-", MINUS))
    return section(
        "rise",
        "What the rise is made of",
        paragraph(str(run.decomposition.get("sentence", ""))),
        bar,
    )


def corpus(run: Run) -> str:
    """What the base model had read before it learned by reward, said plainly."""
    known, title = run.corpus, "What was in the base corpus"
    if not known:
        return section("corpus", title, not_yet("corpus.json has not been written."))
    found = _shares(known, "shares")
    samples = "".join(
        f'<div class="sample"><pre>{_highlight(_clip(text))}</pre></div>'
        for text in _strings(known.get("samples"))[:6]
    )
    return section(
        "corpus",
        title,
        f"<h3>{escape(known['title'])}</h3>" if known.get("title") else "",
        *(paragraph(text) for text in _strings(known.get("paragraphs"))),
        stacked_bar(found, lambda value: percent(value)) if found else "",
        f'<h3>Documents from it</h3><div class="pair">{samples}</div>' if samples else "",
    )


def samples(run: Run) -> str:
    """The same held-out problems answered before and after, not chosen by hand, and one answer at some steps in between."""
    title = "Samples before and after"
    if not run.samples:
        return section("samples", title, not_yet("no completion has been saved."))
    shown = [s for s in run.samples if s.get("split", "held_out") == "held_out"] or run.samples
    last_step = max((_step(s) for s in shown if s.get("stage") == "zero"), default=0)
    first, last = _first_of_prompt(shown, "base", 0), _first_of_prompt(shown, "zero", last_step)
    prompts = [prompt for prompt in first if prompt in last][:MOST_PAIRS]
    pairs = "".join(
        f'<h3><code>{_clip(prompt)}</code></h3><div class="pair">{sample(first[prompt], "before")}{sample(last[prompt], "after")}</div>'
        for prompt in prompts
    )
    note = f"The first {len(prompts)} problems that both were asked, in their order; nobody chose them."
    lead = (
        paragraph(note, "soft")
        if prompts
        else not_yet("the same problem has not been answered both before and after.")
    )
    steps = [s for s in run.samples if s.get("stage") == "zero"] or run.samples
    some = (
        [steps[place * (len(steps) - 1) // max(1, MOST_STEPS - 1)] for place in range(MOST_STEPS)]
        if len(steps) >= MOST_STEPS
        else steps
    )
    along = "".join(sample(s, f"step {_step(s):g}", with_prompt=True) for s in some)
    return section(
        "samples",
        title,
        lead,
        pairs,
        fold("Answers along the way", f'<div class="pair">{along}</div>'),
    )


def limits(run: Run) -> str:
    """What a reader must not conclude."""
    seed, rate = run.setting("seed"), number((run.before or {}).get("self_check_rate"))
    failures, skipped = (
        sum(value for _, value in run.series("zero", "verifier_failures")),
        run.last("base", "skipped_steps"),
    )
    found = [
        "This was a quick run: it passes through every part once and its figures prove nothing."
        if run.setting("quick") is True
        else "",
        f"The one seed of this run is {seed}." if seed is not None else "",
        _LIMITS[0],
        _other_runs(run),
        *_LIMITS[1:],
        f"{percent(rate)} of the base model's answers held a self-check before any reward: its corpus has them. Reinforcement learning "
        "did not invent them; it changes how often and how well they are used."
        if rate
        else "",
        f"{count(failures)} completions could not be checked because the check itself failed; they were left out."
        if failures
        else "",
        f"{count(skipped)} updates were left out because loss or gradient was not finite."
        if skipped
        else "",
        f"{count(run.not_finite)} logged values were not finite: null in metrics.jsonl, missing in the curves."
        if run.not_finite
        else "",
    ]
    return section(
        "limits",
        "What this does not show",
        "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in found if text) + "</ul>",
    )


def _other_runs(run: Run) -> str:
    """How far single runs of these settings lie apart, where that was measured."""
    if (found := measured_for(run)) is None:
        return ""
    ends = [
        f"{name} at {found.range_of(stage)}"
        for stage, name in (("zero", "R1-Zero"), ("align", "R1"))
        if found.range_of(stage)
    ]
    return (
        f"{len(found.runs)} runs of these settings, of several seeds, number formats and "
        f"instruction sets, had {' and '.join(ends)}."
    )


def glossary(run: Run) -> str:
    """Every metric that this run logged, with its unit, its last value and one sentence."""
    seen: dict[str, Any] = {}
    for record in run.metrics:
        seen |= {name: value for name, value in record.items() if name in GLOSSARY}
    if not seen:
        return section("glossary", "Glossary", not_yet("nothing has been logged."))
    last = {
        name: "" if number(value) is None else compact(number(value))
        for name, value in seen.items()
    }
    rows = [
        [f"<code>{name}</code>", *map(escape, (m.sentence, m.unit, last[name]))]
        for name, m in GLOSSARY.items()
        if name in seen
    ]
    listed = table(["metric", "meaning", "unit", "last"], rows, numeric=3)
    return section("glossary", "Glossary", fold(f"The {len(rows)} metrics of this run", listed))


_LIMITS = (
    "It is one run. The errors are those of sampling problems and answers, without the luck of training: another seed can end elsewhere.",
    "The task is small and closed, and held-out problems are like the trained ones: nothing here speaks of other tasks or large models.",
    "Part of any rise may be format, and a better choice among ways of answering that the base already had.",
    "That answers with a self-check are righter, or less right, does not show that the self-check is the cause.",
    "Training accuracy is measured on prompts that are trained on. Only the held-out figures are results.",
    "Times are those of this machine while it was doing whatever else it was doing.",
)


def _banner(run: Run) -> str:
    if run.setting("quick") is not True:
        return ""
    text = "It shows that all parts work together. It is too short to learn anything: its figures prove nothing."
    return f'<p class="banner"><b>Quick run.</b> {text}</p>'


def _shares(record: dict[str, Any], name: str) -> list[tuple[str, float]]:
    return [
        (str(part), value)
        for part, share in table_in(record, name).items()
        if (value := number(share)) is not None
    ]


def _pass_at_1(evaluation: dict[str, Any]) -> str:
    figure = number(evaluation.get("pass_at_1")), number(evaluation.get("pass_at_1_se"))
    return percent_with_error(*figure, interval=interval_in(evaluation, "pass@1"))


def _or_unknown(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _spread(error: float | None, interval: tuple[float, float] | None) -> str:
    """An error of 0 says nothing: all or nothing was right, and the interval says more."""
    if not error and interval:
        return f"<small> ({percent_range(interval)})</small>"
    return "" if error is None else f"<small> {PLUS_MINUS}{GLUE}{100 * error:.1f}</small>"


def _tile(
    title: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    name: str,
    error_name: str = "",
) -> str:
    first, last = (number((evaluation or {}).get(name)) for evaluation in (before, after))
    first_error, last_error = (
        number((evaluation or {}).get(error_name)) for evaluation in (before, after)
    )
    if first is None and last is None:
        return ""
    digits = {"mean_length": 1, "self_checks_per_answer": 2}.get(name)
    share = digits is None

    def show(value: float | None) -> str:
        return percent(value) if share else f"{value:.{digits}f}" if value is not None else "?"

    high = 1.0 if share else 1.15 * max(first or 0.0, last or 0.0, 1e-9)
    spread = [
        _spread(error, interval_in(evaluation, title))
        for error, evaluation in ((first_error, before), (last_error, after))
    ]
    reached = f"<em>{show(last)}</em>" if last is not None else "<small>not yet</small>"
    figure = (
        f"<small>{show(first)}{spread[0]} {ARROW}</small> {reached}{spread[1]}"
        if after is not None
        else show(first) + spread[0]
    )
    said = (
        f"{PLUS_MINUS} one standard error; "
        if any(PLUS_MINUS in one for one in spread)
        else "tokens; "
        if name == "mean_length"
        else ""
    )
    marks = [
        (first, first_error, BEFORE, f"before: {show(first)}"),
        (last, last_error, AFTER, f"after: {show(last)}"),
    ]
    return (
        f'<div class="tile"><h3>{escape(title)}</h3><div class="big">{figure}</div>{whisker(marks, high)}'
        f'<p class="note">{escape(said + _sizes(before, after))}</p></div>'
    )


def _sizes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    sizes = [f"{_size(e, 'problems')} {TIMES} {_size(e, 'samples')}" for e in (before, after) if e]
    return "n = " + (sizes[0] if len(set(sizes)) == 1 else f" {ARROW} ".join(sizes))


def _size(evaluation: dict[str, Any], name: str) -> str:
    return count(number(evaluation.get(name)))


def _how_measured(run: Run) -> str:
    last = run.after or run.before or {}
    return (
        f"n is problems {TIMES} samples of each. Grey: before, colour: after; bars are one standard error, with all samples of a problem "
        f"as one cluster. Temperature {_or_unknown(last.get('temperature'))}. Held-out problems are kept out of the corpus and of training."
    )


def _largest_k(before: dict[str, Any], after: dict[str, Any] | None) -> list[int]:
    """The largest k with a consensus figure, before or after, as a list of at most one."""
    ks = [k for e in (after, before) for k in by_count(e, "cons_at_k")]
    return [max(ks)] if ks else []


def _at_k(evaluation: dict[str, Any] | None, k: int) -> dict[str, Any] | None:
    """The evaluation with its consensus among k under "cons", and that figure's error if one is known."""
    of_k = {
        short: table_in(evaluation, name).get(str(k))
        for short, name in (("cons", "cons_at_k"), ("cons_se", "cons_at_k_se"))
    }
    return None if evaluation is None else evaluation | of_k


def _by_kind(before: dict[str, Any], after: dict[str, Any] | None) -> str:
    first, last = _kinds(before), _kinds(after)
    if len(first | last) < 2:
        return ""
    rows = []
    for kind in sorted(first | last):
        marks = [
            (*found[kind][:2], colour, kind)
            for found, colour in ((first, BEFORE), (last, AFTER))
            if kind in found
        ]
        cells = [_of_kind(*found[kind]) if kind in found else "" for found in (first, last)]
        n = count(next(found[kind][2] for found in (last, first) if kind in found))
        rows.append(
            [
                escape(kind),
                *map(escape, cells),
                escape(n),
                f'<div style="min-width:120px">{whisker(marks)}</div>',
            ]
        )
    head = [
        "kind of problem",
        "before",
        "after",
        "problems",
        f"0 to 100% ({PLUS_MINUS} is binomial over problems, an upper bound)",
    ]
    return fold("Accuracy by kind of problem", table(head, rows, numeric=1))


def _of_kind(value: float, error: float, problems: float) -> str:
    return percent_with_error(value, error, interval=wilson(value, problems))


def _kinds(evaluation: dict[str, Any] | None) -> dict[str, tuple[float, float, float]]:
    """kind -> (accuracy, the most that its standard error over n problems can be, n)."""
    found = {}
    for kind, pair in table_in(evaluation, "by_kind").items():
        if (
            isinstance(pair, list)
            and len(pair) == 2
            and number(pair[0]) is not None
            and (number(pair[1]) or 0) >= 1
        ):
            found[str(kind)] = (
                float(pair[0]),
                math.sqrt(max(pair[0] * (1 - pair[0]), 0.0) / pair[1]),
                float(pair[1]),
            )
    return found


def _all_evaluations(run: Run) -> str:
    rows = []
    for e in run.evaluations:
        cells = [
            e.get("label") or e.get("stage"),
            f"{_step(e):g}",
            _or_unknown(e.get("temperature")),
            _sizes(e, None).removeprefix("n = "),
        ]
        cells += [
            _pass_at_1(e),
            *(
                ", ".join(
                    f"@{k} {percent(number(v))}" for k, v in table_in(e, f"{name}_at_k").items()
                )
                for name in ("cons", "pass")
            ),
        ]
        cells += [
            percent(number(e.get(name)))
            for name in ("format_rate", "self_check_rate", "truncated_rate")
        ]
        rows.append([escape(cell) for cell in [*cells, compact(number(e.get("mean_length")))]])
    head = [
        "evaluation",
        "step",
        "T",
        "n",
        "pass@1",
        "cons",
        "pass",
        "format",
        "self-check",
        "cut",
        "length",
    ]
    return table(head, rows)


def _first_of_prompt(
    records: Sequence[dict[str, Any]], stage: str, step: float
) -> dict[str, dict[str, Any]]:
    """prompt -> its first answer at a step of a stage; of the base, at any step."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.get("stage") == stage and (stage == "base" or _step(record) == step):
            found.setdefault(str(record.get("prompt", "")), record)
    return found


def _step(record: dict[str, Any]) -> float:
    return number(record.get("step")) or 0.0


def sample(record: dict[str, Any], label: str, with_prompt: bool = False) -> str:
    verdict = str(record.get("verdict", "")).lower()
    kind = verdict if verdict in ("correct", "wrong", "malformed", "failed") else "soft"
    prompt = f"<q>{_clip(record.get('prompt', ''))}</q> " if with_prompt else ""
    length = number(record.get("length"))
    size = f"{count(length)} tokens " if length is not None else ""
    return (
        f'<div class="sample"><header><span>{escape(label)}</span><span>{size}<b class="{kind}">{escape(verdict)}</b></span></header>'
        f"<pre>{prompt}{_highlight(_clip(record.get('completion', '')))}</pre></div>"
    )


def _clip(text: Any) -> str:
    """Escaped text of bounded length."""
    text = str(text)
    rest = len(text) - LONGEST_SAMPLE
    return (
        escape(text)
        if rest <= 0
        else f"{escape(text[:LONGEST_SAMPLE])} \u2026 ({count(rest)} more characters)"
    )


_AS_IS = ' translate="no"'
_MARKED = re.compile(
    r"(?P<wait>\b(?:no )?wait\b|等等)|(?P<yes>\byes\b|(?<!\S)对(?!\S))|(?P<tag>&lt;/?(?:think|answer)&gt;)",
    re.IGNORECASE,
)


def _highlight(escaped: str) -> str:
    """Marks the words of self-checking, and lets the tags step back."""

    def mark(match: re.Match[str]) -> str:
        if match["tag"]:
            return f"<q>{match[0]}</q>"
        return f'<mark class="{"yes" if match["yes"] else "wait"}">{match[0]}</mark>'

    return _MARKED.sub(mark, escaped)


def _strings(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
