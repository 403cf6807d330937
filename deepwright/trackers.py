"""A run's records for other tools: TensorBoard, live or afterwards, and CSV.

metrics.jsonl stays what counts; the rest follows from it. An event file can only be added to, and a TensorBoard that looks at one does not find its way
from a file that is gone. So where a run takes records back (a roll-back) the file says from which step on what it has said counts no longer, and where
a run is gone on with, a new file says so of all files before it and tells the records again: no step is shown twice. Lists (the load of every
expert) stay in metrics.jsonl. No torch; TensorBoard's own package writes its format.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from deepwright.files import naming, read_records, write_whole
from deepwright.metrics import GLOSSARY
from deepwright.refusals import expect, require

FOLDER = "tensorboard"  # in the folder of a run
PREFIX = "events.out.tfevents."
WHERE = ("stage", "step", "time")
_NUMBERS = count()  # of the event files of this process

Record = dict[str, Any]


def numbers(record: Record) -> dict[str, float]:
    """The metrics of a record that are single numbers."""
    return {
        name: value
        for name, value in record.items()
        if name not in WHERE and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


# ---- TensorBoard


class EventFile:
    """One event file: the numbers of one stage, on their way to disk as soon as they are added."""

    def __init__(self, folder: Path) -> None:
        require("tensorboard", "writing TensorBoard's files", "tensorboard")
        from tensorboard.summary.writer.record_writer import RecordWriter

        # read in the order of their names
        name = f"{int(time.time())}.{platform.node()}.{os.getpid():08d}.{next(_NUMBERS):06d}"
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._named = folder / (PREFIX + name), set[str]()
        with naming(self.path):
            self._file = self.path.open("wb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self.forget(0)
        self.flush()

    def forget(self, step: int) -> None:
        """What was said of this step and those after it, in this file and earlier ones, counts no longer."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._write(step=step, session_log=SessionLog(status=SessionLog.START))

    def add(self, record: Record) -> None:
        """The numbers of a record, each with what the glossary says about it when it comes first."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=value, metadata=self._metadata(name))
            for name, value in numbers(record).items()
            if name.partition("/")[0] in GLOSSARY
        ]
        self._write(step=record["step"], wall_time=record["time"], summary=Summary(value=values))

    def _metadata(self, name: str) -> Any:
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

        known = GLOSSARY.get(name.partition("/")[0])
        if known is None or name in self._named:
            return None
        self._named.add(name)
        said = f"{known.sentence} Unit: {known.unit}."
        plugin = SummaryMetadata.PluginData(plugin_name="scalars")
        return SummaryMetadata(display_name=name, summary_description=said, plugin_data=plugin)

    def _write(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event.setdefault("wall_time", time.time())
        with naming(self.path):
            self._records.write(Event(**event).SerializeToString())

    def flush(self) -> None:
        with naming(self.path):
            self._records.flush()

    def close(self) -> None:
        with naming(self.path):
            self._file.close()


class TensorBoard:
    """A folder with a folder for each stage, which TensorBoard shows as one run each. Opening it tells `records` anew, in place of all that was told before.

    ValueError where the package is missing; OSError names a file that cannot be written."""

    def __init__(self, folder: Path, records: Iterable[Record] = ()) -> None:
        self.folder = folder
        self._files: dict[str, EventFile] = {}
        require("tensorboard", "writing TensorBoard's files", "tensorboard")
        for record in records:
            self._file(record["stage"]).add(record)
        for file in self._files.values():
            file.flush()

    def add(self, record: Record) -> None:
        file = self._file(record["stage"])
        file.add(record)
        file.flush()

    def rewind(self, stage: str, step: int) -> None:
        """The records of a stage after `step` were taken back."""
        if stage in self._files:
            self._files[stage].forget(step + 1)
            self._files[stage].flush()

    def _file(self, stage: str) -> EventFile:
        """ValueError for a stage that is no name of a folder."""
        if stage not in self._files:
            expect(Path(stage).name == stage, "a record's stage", stage, "the name of a stage")
            self._files[stage] = EventFile(self.folder / stage)
        return self._files[stage]

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()


def to_tensorboard(records: Path, folder: Path) -> None:
    """What a run has logged, as event files in a new folder. ValueError where the folder is not empty, or no record is there."""
    found = _read(records)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: expected a new folder for TensorBoard")
    TensorBoard(folder, found).close()


# ---- CSV


def to_csv(records: Path, file: Path) -> None:
    """What a run has logged as one table: a row for each record, a column for each metric, empty where it was not logged. The file appears whole."""
    found = _read(records)
    rows = [{name: record.get(name) for name in WHERE} | numbers(record) for record in found]
    names = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    table = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(file, text.getvalue())


def _read(records: Path) -> list[Record]:
    found = read_records(records, {"stage": str, "step": int, "time": float})
    if not found:
        raise ValueError(f"{records} has no record: the run has not logged anything yet")
    return found
