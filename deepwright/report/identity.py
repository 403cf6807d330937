"""What a run is: its name and state, a paragraph, and the facts that are needed to run it again."""

from __future__ import annotations

from deepwright.report.figures import count, duration, escape, number, or_unknown
from deepwright.report.frame import paragraph
from deepwright.report.records import Run


def title(run: Run) -> str:
    """Name and state, and what has to be known before any figure is read."""
    status = "running" if run.running else str(run.facts.get("status"))
    pill = f'<span class="pill {escape(status)}">{escape(status)}</span>'
    name = escape(run.folder.resolve().name)
    return f'<h1><span translate="no">{name}</span> {pill}</h1>{_banner(run)}'


def about(run: Run) -> str:
    """One paragraph, and the facts that are needed to run it again."""
    facts = {
        "command": f"<code>{escape(run.setting('command') or 'not recorded')}</code>",
        "seed": escape(or_unknown(run.setting("seed"))),
        "version": escape(or_unknown(run.setting("deepwright_version") or run.setting("version"))),
        "machine": escape(or_unknown(run.setting("machine"))),
        "started": escape(or_unknown(run.facts.get("started"))),
        "wall time": escape(duration(run.seconds) + (" so far" if run.running else "")),
    }
    listed = "".join(
        f"<dt>{name}</dt><dd{'' if name == 'wall time' else _AS_IS}>{value}</dd>"
        for name, value in facts.items()
        if value != "unknown"
    )
    return f'<section id="about">{paragraph(describe(run))}<dl>{listed}</dl></section>'


def describe(run: Run) -> str:
    """What was trained, on what, how, and how far it is, in two or three sentences."""
    total, active = number(run.facts.get("parameters")), number(run.facts.get("active_parameters"))
    layers, experts, chosen = (
        run.setting(n) for n in ("num_hidden_layers", "n_routed_experts", "num_experts_per_tok")
    )
    part = f", of which {count(active)} work on each token" if active != total else ""
    size = f" of {count(total)} parameters{part}" if total and active else ""
    shape, start = "", f"starts from {run.setting('start')}"  # of which [model] says nothing
    if run.has("base"):
        start = "starts from random weights and is pre-trained on the corpus described below"
        if layers and experts and chosen:
            shape = f" ({layers} layers, {experts} routed experts in a layer, {chosen} chosen for each token)"
    if run.has("sft"):
        start = f"starts from {run.setting('model')} and is fine-tuned on the conversations of {run.setting('data')}"
    return (
        f"A {run.setting('model_type') or 'language'} model{size}{shape} {start}{_learning(run)}. "
        f"{'So far' if run.running else 'In all'}: {' and '.join(_done(run)) or 'nothing yet'}."
        f"{' The later stages of R1 follow.' if run.beyond_zero else ''}"
    )


def _done(run: Run) -> list[str]:
    read, tuned, steps = run.last("base", "tokens"), run.last("sft", "tokens"), run.rl_steps
    done = [f"{count(read)} tokens of pre-training"] if read else []
    done += [f"{count(tuned)} tokens of fine-tuning"] if tuned else []
    return done + ([f"{count(steps)} steps of reinforcement learning"] if steps else [])


def _learning(run: Run) -> str:
    if not run.has("zero"):
        return ""
    task = (run.after or run.before or {}).get("task") or "a task"
    rules = f"learns {task} by reinforcement learning alone: rewards come from fixed rules, and no written answer is trained on in that stage"
    return f", and then {rules}" if run.has("base") else f" and {rules}"


def _banner(run: Run) -> str:
    if run.setting("quick") is not True:
        return ""
    text = "It shows that all parts work together. It is too short to learn anything: its figures prove nothing."
    return f'<p class="banner"><b>Quick run.</b> {text}</p>'


_AS_IS = ' translate="no"'
