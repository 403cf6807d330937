"""What a run writes for its reader: facts, evaluations, samples, the description of its corpus, and the report, rewritten as it goes.

Nothing here decides anything: a run without a journal would end with the same weights. An evaluation is written once, also
when a killed run is gone on with.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepwright
from deepwright.config import ModelConfig
from deepwright.data import CountdownCorpus, MixedCorpus
from deepwright.evaluate import Evaluation
from deepwright.files import (
    STEPS,
    append_records,
    cut_torn_line,
    read_json,
    read_records,
    rewind_records,
    write_json,
)
from deepwright.metrics import JsonlTracker, Mirror
from deepwright.recipe.owner import Owner
from deepwright.recipe.times import Times
from deepwright.refusals import expect_fields, quoted
from deepwright.report import write_report
from deepwright.report.records import read_run
from deepwright.report.summary import summary
from deepwright.tasks import Needle
from deepwright.trackers import FOLDER, TensorBoard
from deepwright.train.progress import say

REPORT_SECONDS = 60  # at least this long between two drafts of the report
ON_THE_WAY = "on the way"  # label of the short evaluations during RL
METRICS, EVALUATIONS, SAMPLES = "metrics.jsonl", "evaluations.jsonl", "samples.jsonl"
TEXT = "text"  # kind of the samples that go on with a text
SHOWN_PROBLEMS = 8  # held-out problems whose first sample is kept for the report

_CORPUS_TEXT = """\
Every document is generated and is about a training problem; the held-out problems never occur. Several kinds of author write side by side: people who
list true equations, people who mark attempts as right (“yes”) or wrong (“wait”), people who guess, people who try once and answer whatever came out, and
searchers who try again after a failure and often give up.

So searching and the word “wait” are in the corpus, and so is checking a result against the target. What is not in it: any sign of which author earns a
reward, or any advice to search. About four documents in ten leave out or misplace the tags that the reward asks for. The same numbers with another target
may be a training problem, so a document can show arithmetic that also solves a held-out problem, but never that problem."""

_OWN_TEXT = "A text of the user's own"
_HAYSTACK_TEXT = """\
Every document is generated: plain sentences, among them some that note a number under a name, and some that recall one noted before. Names, numbers and
sentences are drawn anew for each document, so there is nothing to know but where to look."""

Asked = Callable[[], None]  # raises where the folder is no longer the run's (`Owner.check`)


class RunTracker(JsonlTracker):
    """Metrics, and with them the short evaluations: those after the step that a stage goes on from
    are of another policy after a roll-back. `still_ours` is asked first: every stage logs its steps
    and flushes before a checkpoint, so none writes on where the run folder is gone."""

    def __init__(self, folder: Path, still_ours: Asked, mirrors: Sequence[Mirror] = ()) -> None:
        super().__init__(folder / METRICS, mirrors)
        self._still_ours = still_ours

    def log(self, stage: str, step: int, values: Mapping[str, float | list]) -> None:
        self._still_ours()
        super().log(stage, step, values)

    def flush(self) -> None:
        self._still_ours()
        super().flush()

    def rewind(self, stage: str, step: int) -> int:
        self._still_ours()
        rewind_records(
            self.path.with_name(EVALUATIONS),
            lambda e: e["stage"] == stage and e["label"] == ON_THE_WAY and e["step"] > step,
            _EVALUATION,
        )
        rewind_records(
            self.path.with_name(SAMPLES),
            lambda s: s["stage"] == stage and s.get("kind") == TEXT and s["step"] > step,
        )
        return super().rewind(stage, step)


# What is read again of run.json and evaluations.jsonl when a run is gone on with.
_FACTS = {
    "seconds": float | None,
    "base_step": int | None,
    "mtp_acceptance": dict | None,
    "times": dict[str, dict[str, float]] | None,
}
_EVALUATION = {"stage": str, "step": int, "label": str, "decomposition": dict | None}


@dataclass(frozen=True)
class _Redrawn:
    """Draws the report anew while records come in, of whatever stage."""

    draw: Callable[[], None]

    def add(self, record: dict[str, Any]) -> None:
        self.draw()

    def rewind(self, stage: str, step: int) -> None:
        """The next record will do."""


class Journal:
    """The files of one run folder that a person reads. ValueError naming one that is damaged."""

    def __init__(
        self, folder: Path, still_ours: Asked = lambda: None, mirrors: Sequence[Mirror] = ()
    ) -> None:
        self.folder, self._still_ours = folder, still_ours
        self.tracker = RunTracker(folder, still_ours, [*mirrors, _Redrawn(self.report)])
        for name in (EVALUATIONS, SAMPLES):
            cut_torn_line(folder / name)
        self._written = 0.0
        facts = folder / "run.json"
        self._facts: dict[str, Any] = read_json(facts, constants="None") if facts.exists() else {}
        expect_fields(self._facts, str(facts), _FACTS)
        if drafted := self._facts.get("mtp_acceptance"):
            expect_fields(drafted, f"{facts}: mtp_acceptance", {"greedy": float, "sampled": float})
        self._seconds_before = self._facts.get("seconds") or 0.0
        self.times = Times(self._facts.get("times") or {})
        self._begun = time.monotonic()

    def start(self, config: ModelConfig | None) -> None:
        sizes = (
            {}
            if config is None
            else {
                "parameters": config.parameters,
                "active_parameters": config.active_parameters,
                "model_type": config.model_type,
            }
        )
        command = (
            shlex.join(["deepwright", *sys.argv[1:]])
            if sys.argv[0].endswith(("deepwright", "__main__.py"))
            else None
        )
        self.facts(
            status="running",
            version=deepwright.__version__,
            command=command,
            machine=_machine(),
            **sizes,
        )
        if "started" not in self._facts:
            self.facts(started=time.strftime("%Y-%m-%d %H:%M:%S"))

    def facts(self, **known: Any) -> None:
        self._facts |= {name: value for name, value in known.items() if value is not None}
        self._facts |= {"times": self.times.table(), "seconds": self.seconds}
        self._still_ours()
        write_json(self.folder / "run.json", self._facts)

    def greet(self, what: str) -> None:
        """The first lines of a run, and a report that can be opened from then on."""
        self.start(None)
        self.report(now=True)
        say(f"{self.folder}: {what}")
        say(f"its report can be opened now: {self.folder / 'report.html'}")

    def summary(self) -> list[str]:
        """The figures that the run has reached, as lines. ValueError where the records are damaged."""
        self.full_evaluations()
        return summary(read_run(self.folder))

    @property
    def seconds(self) -> float:
        """Wall time so far, that of earlier processes of the run counted."""
        return round(self._seconds_before + time.monotonic() - self._begun, 1)

    def corpus(self, corpus: CountdownCorpus | MixedCorpus | Needle) -> None:
        self._still_ours()
        haystacks = isinstance(corpus, Needle)
        title, text = (
            ("Generated haystacks", _HAYSTACK_TEXT)
            if haystacks
            else ("A generated population of authors", _CORPUS_TEXT)
        )
        labelled = [corpus.labelled(i) for i in range(2 if haystacks else 2000)]
        counts = Counter(kind for kind, _ in labelled)
        first_of = {kind: text for kind, text in reversed(labelled)}
        write_json(self.folder / "corpus.json", {
            "title": title,
            "paragraphs": text.replace("\n\n", "\0").replace("\n", " ").split("\0"),
            "shares": {kind: number / len(labelled) for kind, number in counts.most_common()},
            "samples": list(first_of.values()),
        })  # fmt: skip

    @property
    def known(self) -> dict[str, Any]:
        return dict(self._facts)

    def full_evaluations(self) -> list[dict[str, Any]]:
        """The records of all evaluations but the short ones on the way."""
        full = [record for record in self._evaluations() if record["label"] != ON_THE_WAY]
        for record in full:
            self._read(record)  # refuses what a reader of the figures would stumble over
        return full

    def find(self, stage: str, step: int, label: str) -> Evaluation | None:
        for record in self._evaluations():
            if (record["stage"], record["step"], record["label"]) == (stage, step, label):
                return self._read(record)
        return None

    def _evaluations(self) -> list[dict[str, Any]]:
        return read_records(self.folder / EVALUATIONS, _EVALUATION)

    def _read(self, record: dict[str, Any]) -> Evaluation:
        try:
            return Evaluation.from_record(record)
        except ValueError as error:
            where = f"{self.folder / EVALUATIONS}, {quoted(record['label'])}"
            raise ValueError(f"{where}: {error}") from None

    def evaluation(
        self,
        stage: str,
        step: int,
        label: str,
        evaluation: Evaluation,
        *,
        samples: bool = False,
        **more: Any,
    ) -> None:
        self._still_ours()
        if samples:
            append_records(self.folder / SAMPLES, _shown(stage, step, evaluation))
        record = evaluation.record(stage, step, label) | more
        append_records(self.folder / EVALUATIONS, [record])
        self.report()

    def text(self, about: Sequence[str], shown: Sequence[str]) -> None:
        """What a text of the user's own holds, and how some of its documents begin."""
        self._still_ours()
        known = {"title": _OWN_TEXT, "paragraphs": list(about), "samples": list(shown)}
        write_json(self.folder / "corpus.json", known)

    def samples(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Answers that a reader is shown."""
        self._still_ours()
        append_records(self.folder / SAMPLES, records)

    def has_samples(self, stage: str, step: int) -> bool:
        found = read_records(self.folder / SAMPLES, STEPS)
        return any((one["stage"], one["step"]) == (stage, step) for one in found)

    def report(self, *, now: bool = False) -> None:
        """Writes the report anew if the last one is old enough, or `now`."""
        if now or time.monotonic() - self._written >= REPORT_SECONDS:
            self.facts()
            write_report(self.folder)
            self._written = time.monotonic()

    def finish(self, status: str) -> None:
        self.facts(status=status)
        self.report(now=True)


@contextlib.contextmanager
def keeping(owner: Owner, track: str = "none") -> Iterator[Journal]:
    """The journal of a run while it goes on. What ends it marks it as stopped; its end as finished, and says what came out."""
    journal = Journal(owner.folder, owner.check, mirrors(owner.folder, track))
    try:
        yield journal
    except BaseException:
        with contextlib.suppress(OSError, ValueError):  # what ended the run is to be said, not that
            journal.finish("stopped")  # its folder is gone or the disk full
        raise
    journal.finish("finished")
    for line in journal.summary():
        print(line)
    print(f"The report: {owner.folder / 'report.html'}")


def mirrors(folder: Path, track: str) -> list[Mirror]:
    """Who is told of a run's records besides metrics.jsonl, by the setting `track`."""
    return [TensorBoard(folder / FOLDER, read_records(folder / METRICS))] if track == "tensorboard" else []  # fmt: skip


def _shown(stage: str, step: int, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Records of the first sample of the first problems."""
    where = {"stage": stage, "step": step, "split": evaluation.split}
    for one in evaluation.generations:
        if one.sample == 0 and one.problem < SHOWN_PROBLEMS:
            yield where | {
                "prompt": one.prompt,
                "completion": one.text,
                "value": one.value,
                "verdict": one.verdict,
                "length": one.length,
                "kind": one.kind,
            }


def _machine() -> str:
    return f"{os.cpu_count()} CPU threads, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
