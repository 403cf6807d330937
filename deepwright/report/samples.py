"""Answers in their own words: the same problems before and after, one problem at every stage, documents of fine-tuning, and how many samples were kept to
learn from. Chosen by order alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from deepwright.report.figures import count, escape, number, percent
from deepwright.report.frame import fold, not_yet, paragraph, section, table
from deepwright.report.records import HARVESTS, STAGES, Run, step_of

LONGEST_SAMPLE, MOST_PAIRS, MOST_STEPS, MOST_PROBLEMS = 1500, 8, 10, 3


def samples(run: Run) -> str:
    """The same held-out problems answered before and after, not chosen by hand, and one answer at some steps in between."""
    title = "Samples before and after"
    if not run.samples:
        return section("samples", title, not_yet("no completion has been saved."))
    shown = [s for s in run.samples if s.get("split", "held_out") == "held_out"] or run.samples
    last_step = max((step_of(s) for s in shown if s.get("stage") == "zero"), default=0)
    first, last = _first_of_prompt(shown, "base", 0), _first_of_prompt(shown, "zero", last_step)
    prompts = [prompt for prompt in first if prompt in last][:MOST_PAIRS]
    pairs = "".join(
        f'<h3><code>{clip(prompt)}</code></h3><div class="pair">{sample(first[prompt], "before")}{sample(last[prompt], "after")}</div>'
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
    along = "".join(sample(s, f"step {step_of(s):g}", with_prompt=True) for s in some)
    return section(
        "samples",
        title,
        lead,
        pairs,
        fold("Answers along the way", f'<div class="pair">{along}</div>'),
    )


def tuned(run: Run) -> str:
    """Conversations answered before and after fine-tuning, beside what they hold; "" where none were asked."""
    asked = [s for s in run.samples if s.get("stage") == "sft"]
    last = max((step_of(s) for s in asked), default=0)
    before, after = (
        {str(s.get("prompt")): s for s in asked if step_of(s) == step} for step in (0, last)
    )
    if not asked:
        return ""
    shown = "".join(
        f'<h3><code>{clip(prompt)}</code></h3><div class="pair">{sample(before[prompt], "before") if prompt in before else ""}'
        f"{sample(one, 'after') if last else ''}{_expected(one)}</div>"
        for prompt, one in list((after or before).items())[:MOST_PAIRS]
    )
    return section("tuned", "Samples before and after", paragraph(_TUNED, "soft"), shown)


def continued(run: Run) -> str:
    """How a base model goes on with beginnings of held-out texts, at its last validation; "" where it was not asked to."""
    texts = [s for s in run.samples if s.get("kind") == "text"]
    last = [s for s in texts if (s.get("stage"), s.get("step")) == (texts[-1].get("stage"), texts[-1].get("step"))]  # fmt: skip
    if not texts:
        return ""
    label = f"step {step_of(texts[-1]):g}"
    shown = "".join(sample(s, label, with_prompt=True) for s in last[:MOST_PAIRS])
    return section(
        "continued",
        "How it goes on with texts",
        paragraph(_CONTINUED, "soft"),
        f'<div class="pair">{shown}</div>',
    )


def _expected(record: dict[str, Any]) -> str:
    answer = record.get("answer")
    return sample({"completion": answer}, "in the data") if answer else ""


def kept(run: Run) -> str:
    """How many samples were kept to learn from, and why the others were not; "" where none were drawn."""
    places = [place for place in HARVESTS if place in run.dropped]
    if not places:
        return ""
    sizes = {
        place: {
            why: n for why in run.dropped[place] if (n := number(run.dropped[place][why])) and n > 0
        }
        for place in places
    }
    totals = {place: sum(sizes[place].values()) for place in places}
    reasons = sorted(
        {why for place in places for why in sizes[place]},
        key=lambda why: (why != "kept", -sum(sizes[p].get(why, 0) for p in places)),
    )
    rows = [
        [escape(why), *(_bar(sizes[p].get(why, 0.0), totals[p], why) for p in places)]
        for why in reasons
    ]
    rows.append(["all", *(count(totals[place]) for place in places)])
    return section(
        "kept",
        "Samples kept to learn from",
        paragraph(_KEPT, "soft"),
        table(["", *(_PLACES[p] for p in places)], rows, 9),
    )


def across(run: Run) -> str:
    """The first held-out problems that most stages answered, each as every stage answers it; "" for a run that stops at R1-Zero."""
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    for record in run.samples:
        if str(record.get("stage")) in STAGES and record.get("split", "held_out") == "held_out":
            answers.setdefault(str(record.get("prompt", "")), {})[str(record["stage"])] = (
                record  # the last step counts
            )
    if not run.beyond_zero or not answers:
        return ""
    first, *others = sorted(answers, key=lambda prompt: -len(answers[prompt]))[:MOST_PROBLEMS]
    more = (
        fold("More problems", *(_answers(prompt, answers[prompt]) for prompt in others))
        if others
        else ""
    )
    return section(
        "across",
        "One problem, answered by every stage",
        paragraph(_ACROSS, "soft"),
        _answers(first, answers[first]),
        more,
    )


def _answers(prompt: str, of: dict[str, dict[str, Any]]) -> str:
    shown = "".join(sample(of[stage], title) for stage, title in STAGES.items() if stage in of)
    return f'<h3><code>{escape(prompt)}</code></h3><div class="pair">{shown}</div>'


def _first_of_prompt(
    records: Sequence[dict[str, Any]], stage: str, step: float
) -> dict[str, dict[str, Any]]:
    """prompt -> its first answer at a step of a stage; of the base, at any step."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.get("stage") == stage and (stage == "base" or step_of(record) == step):
            found.setdefault(str(record.get("prompt", "")), record)
    return found


def sample(record: dict[str, Any], label: str, with_prompt: bool = False) -> str:
    verdict = str(record.get("verdict", "")).lower()
    kind = verdict if verdict in ("correct", "wrong", "malformed", "failed") else "soft"
    prompt = f"<q>{clip(record.get('prompt', ''))}</q> " if with_prompt else ""
    length = number(record.get("length"))
    size = f"{count(length)} tokens " if length is not None else ""
    return (
        f'<div class="sample"><header><span>{escape(label)}</span><span>{size}<b class="{kind}">{escape(verdict)}</b></span></header>'
        f"<pre>{prompt}{highlight(clip(record.get('completion', '')))}</pre></div>"
    )


def clip(text: Any) -> str:
    """Escaped text of bounded length."""
    text = str(text)
    rest = len(text) - LONGEST_SAMPLE
    return (
        escape(text)
        if rest <= 0
        else f"{escape(text[:LONGEST_SAMPLE])} \u2026 ({count(rest)} more characters)"
    )


def highlight(escaped: str) -> str:
    """Marks the words of self-checking, and lets the tags step back."""

    def mark(match: re.Match[str]) -> str:
        if match["tag"]:
            return f"<q>{match[0]}</q>"
        return f'<mark class="{"yes" if match["yes"] else "wait"}">{match[0]}</mark>'

    return _MARKED.sub(mark, escaped)


def _bar(size: float, total: float, why: str) -> str:
    if not size:
        return ""
    colour, share = 3 if why == "kept" else 6, size / total
    return f'<div class="stack thin"><s class="c{colour}" style="width:{100 * share:.1f}%"></s></div>{count(size)} ({percent(share)})'


_MARKED = re.compile(
    r"(?P<wait>\b(?:no )?wait\b|等等)|(?P<yes>\byes\b|(?<!\S)对(?!\S))|(?P<tag>&lt;/?(?:think|answer)&gt;)",
    re.IGNORECASE,
)

_PLACES = {
    "cold_start": "cold start, from R1-Zero",
    "rejection/reasoning": "fine-tuning, reasoning",
    "rejection/general": "fine-tuning, general requests",
}
_KEPT = "Many samples are drawn, few are kept. One that fails for several reasons counts under the first."
_ACROSS = "Chosen by order alone: the first held-out problems of this run, each with its first sample at the end of every stage."
_CONTINUED = "Beginnings of held-out documents, marked, and what the model adds at temperature 0.8; the first ones, nobody chose them."
_TUNED = (
    "The first conversations of the validation file, or of the training file where there is none, up to what the assistant says; always the likeliest "
    "token. Chosen by order alone."
)
