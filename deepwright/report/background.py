"""What stands behind the figures of a report: the corpus, what a reader must not conclude, the settings, the words."""

from __future__ import annotations

from typing import Any

from deepwright.metrics import GLOSSARY
from deepwright.refusals import flatten, quoted
from deepwright.report.charts import stacked_bar
from deepwright.report.figures import compact, count, escape, number, percent
from deepwright.report.frame import fold, not_yet, paragraph, section, table
from deepwright.report.records import Run, shares_in
from deepwright.report.samples import clip, highlight
from deepwright.report.spread import measured_for


def corpus(run: Run) -> str:
    """What the base model had read before it learned by reward, said plainly."""
    known, title = run.corpus, "What was in the base corpus"
    if not known:
        return section("corpus", title, not_yet("corpus.json has not been written."))
    found = shares_in(known, "shares")
    samples = "".join(
        f'<div class="sample"><pre>{highlight(clip(text))}</pre></div>'
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
        *_ONE_RUN[run.has("zero")],
        _other_runs(run),
        *(_LIMITS if run.has("zero") else ()),
        _TIMES,
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


def settings(run: Run) -> str:
    """Every setting of the run as it was resolved; "" where config.toml is not there."""
    if not (flat := flatten(run.config)):
        return ""
    rows = [
        [f"<code>{escape(name)}</code>", f"<code>{escape(in_short(value))}</code>"]
        for name, value in flat.items()
    ]
    shown = table(["setting", "value"], rows, numeric=9)
    return section("settings", "Settings", fold(f"All {len(rows)} settings", shown))


def in_short(value: Any) -> str:
    """A value of a setting: text without its quotes, anything long cut."""
    return value[:200] if isinstance(value, str) and value else quoted(value)


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
    "The task is small and closed, and held-out problems are like the trained ones: nothing here speaks of other tasks or large models.",
    "Part of any rise may be format, and a better choice among ways of answering that the base already had.",
    "That answers with a self-check are righter, or less right, does not show that the self-check is the cause.",
    "Training accuracy is measured on prompts that are trained on. Only the held-out figures are results.",
)


def _strings(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


_ONE_RUN = {
    True: (
        "It is one run. The errors are those of sampling problems and answers, without the luck of training: another seed can end elsewhere.",
    ),
    False: (
        "It is one run: another seed can end elsewhere.",
        "A loss says how well texts of this kind are predicted, and nothing of what the model is good for.",
    ),
}
_TIMES = "Times are those of this machine while it was doing whatever else it was doing."
