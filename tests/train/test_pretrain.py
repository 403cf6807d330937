"""A run resumes bit-exactly after a kill, an interrupt or a damaged checkpoint, and evaluating in between changes nothing."""

import io
import math
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepwright.files import read_records
from deepwright.train import pretrain as subject
from deepwright.train.checkpoint import latest_checkpoint
from deepwright.train.objective import validate
from deepwright.train.optimizer import TrainingDiverged
from deepwright.train.progress import Progress, StopRequest
from tests.train.tiny import (
    CLOCK,
    CONFIG,
    LENGTH,
    MODEL,
    MUON,
    CountingStream,
    make_model,
    random_tokens,
    run,
    steps,
)


def curve(folder: Path) -> list[dict]:
    return [
        {name: value for name, value in record.items() if name not in CLOCK}
        for record in read_records(folder / "metrics.jsonl")
    ]


def final_bits(folder: Path) -> dict[str, bytes]:
    """Every file of the last checkpoint: weights, moments, averages, counters, position."""
    found = latest_checkpoint(folder / "base")
    return {
        str(path.relative_to(found.folder)): path.read_bytes()
        for path in found.folder.rglob("*")
        if path.is_file()
    }


def assert_equal_runs(first: Path, second: Path):
    assert curve(first) == curve(second)
    assert final_bits(first) == final_bits(second)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A whole run under Muon, which leaves some parameters to AdamW and so has the state of both."""
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder, MUON)
    return folder, MUON


def test_it_learns_and_records(unbroken):
    folder, config = unbroken
    records = curve(folder)
    assert [record["step"] for record in records] == list(
        range(1, len(steps(config.schedule, LENGTH)) + 1)
    )
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
    assert records[-1]["tokens"] >= config.schedule.total_tokens > records[-2]["tokens"]
    assert {len(records[3]["expert_load"]), len(records[3]["expert_load"][0])} == {3, 8}
    assert {"validation_loss", "validation_loss_ema", "max_vio_global"} <= records[-1].keys()
    assert all(
        "expert_load" not in record
        for record in records
        if record["step"] % 4 and record["step"] > 1
    )


def kill_at(folder: Path, config, step: int, seconds: float) -> bool:
    """Trains in a child process and sends it SIGKILL `seconds` after it has written down `step`. Whether it was still running then."""
    child = os.fork()
    if child == 0:
        with Path(os.devnull).open("w") as nowhere:
            run(folder, config, progress=Progress(1, "base", stream=nowhere))
        os._exit(0)
    metrics = folder / "metrics.jsonl"
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return False


def kill_and_finish(unbroken: Path, folder: Path, config, moments) -> int:
    """Kills a run at each of the moments, lets it finish and compares. Returns how many kills hit it at work."""
    assert torch.get_num_threads() == 1, "the child of a fork cannot use the threads of its parent"
    kills = sum(kill_at(folder, config, step, seconds) for step, seconds in moments)
    run(folder, config)
    assert_equal_runs(unbroken, folder)
    return kills


@pytest.mark.invariant
def test_killed_four_times_and_resumed_is_bit_equal(unbroken, tmp_path):
    folder, config = unbroken
    # A checkpoint follows steps 5, 10, ... and takes some 20 ms: before the first, at the start of one, inside one, after one.
    assert (
        kill_and_finish(folder, tmp_path, config, [(3, 0.0), (5, 0.0), (10, 0.008), (16, 0.005)])
        >= 3
    )


@pytest.mark.slow
@pytest.mark.invariant
def test_killed_at_twenty_moments_is_bit_equal(unbroken, tmp_path):
    folder, config = unbroken
    draw = torch.Generator().manual_seed(0)
    moments = [
        (
            int(torch.randint(1, 24, (), generator=draw)),
            float(0.05 * torch.rand((), generator=draw)),
        )
        for _ in range(20)
    ]
    kills = sum(
        kill_and_finish(folder, tmp_path / str(part), config, sorted(moments[part::4]))
        for part in range(4)
    )
    assert kills >= 10


class Crash(Exception):
    pass


@pytest.mark.invariant
@pytest.mark.parametrize(
    "place", ["_write_model", "_write_trainer", "_write_manifest", "_sync", "_remove_older"]
)
def test_death_inside_a_save_is_bit_equal(unbroken, tmp_path, monkeypatch, place):
    """Every stage of the second save in turn is the last thing that a process does."""
    from deepwright.train import checkpoint

    folder, config = unbroken
    before, calls = getattr(checkpoint, place), []

    def die(*arguments):
        calls.append(place)
        before(*arguments)
        if len(calls) > 1:
            raise Crash  # not an OSError: nothing tidies up after it

    monkeypatch.setattr(checkpoint, place, die)
    with pytest.raises(Crash):
        run(tmp_path, config)
    monkeypatch.undo()
    run(tmp_path, config)
    assert_equal_runs(folder, tmp_path)


def stop_at(step, number=signal.SIGINT):
    def callback(done, model):
        if done == step:
            os.kill(os.getpid(), number)

    return callback


@pytest.mark.invariant
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_step_saves_and_says_so(unbroken, tmp_path, number):
    folder, config = unbroken
    said = io.StringIO()

    with pytest.raises(SystemExit) as exit:
        run(
            tmp_path, config, callback=stop_at(7, number), progress=Progress(1, "base", stream=said)
        )
    assert exit.value.code == 130
    assert latest_checkpoint(tmp_path / "base").step == 7
    assert "interrupted after step 7" in said.getvalue() and "--resume" in said.getvalue()
    run(tmp_path, config, progress=Progress(1, "base", stream=said))
    assert "continues after step 7" in said.getvalue()
    assert_equal_runs(folder, tmp_path)


def test_an_interrupt_in_the_last_step_is_not_swallowed(unbroken, tmp_path):
    folder, config = unbroken
    with pytest.raises(SystemExit):
        run(tmp_path, config, callback=stop_at(len(steps(config.schedule, LENGTH))))
    assert_equal_runs(folder, tmp_path)


@pytest.mark.invariant
def test_a_damaged_checkpoint_costs_steps_not_bits(unbroken, tmp_path):
    folder, config = unbroken
    with pytest.raises(SystemExit):
        run(tmp_path, config, callback=stop_at(13))
    damaged = latest_checkpoint(tmp_path / "base").folder
    (damaged / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match=damaged.name):
        run(tmp_path, config)
    assert_equal_runs(folder, tmp_path)


@pytest.mark.invariant
def test_evaluating_in_between_changes_nothing(unbroken, tmp_path):
    folder, config = unbroken
    run(
        tmp_path,
        config,
        callback=lambda step, model: validate(model, [random_tokens(3, seed=step)]),
    )
    assert_equal_runs(folder, tmp_path)


def test_a_finished_run_stays_as_it_is(unbroken):
    folder, config = unbroken
    before = final_bits(folder)
    trainer = run(folder, config)
    assert trainer.finished and final_bits(folder) == before
    assert len(curve(folder)) == trainer.steps


def test_other_settings_are_refused_by_name(unbroken):
    folder, config = unbroken
    with pytest.raises(ValueError, match=r"schedule\.learning_rate 0\.01, now it is 0\.02"):
        run(folder, replace(config, schedule=replace(config.schedule, learning_rate=0.02)))
    run(folder, replace(config, micro_rows=1, checkpoint_every=3))  # these may change


@pytest.mark.parametrize("balance", ["auxiliary", "none"])
def test_other_balance_methods_move_no_bias(tmp_path, balance):
    short = replace(
        CONFIG,
        balance=balance,
        schedule=replace(CONFIG.schedule, total_tokens=100),
        average_decay=0.0,
    )
    trainer = run(tmp_path, short)
    assert not any(layer.ffn.router.bias.any() for layer in trainer.model.layers[1:])
    assert ("balance_loss" in curve(tmp_path)[0]) == (balance == "auxiliary")


def test_gradients_that_stay_bad_stop_the_run(tmp_path):
    def poison(step, model):
        if step == 6:
            model.layers[1].ffn.experts.down.data[0, 0, 0] = float("nan")

    with pytest.raises(TrainingDiverged, match=r"3 steps in a row"):
        run(tmp_path, CONFIG, callback=poison)
    assert latest_checkpoint(tmp_path / "base").step == 5  # the last good one is still there
    skipped = [record["skipped_steps"] for record in curve(tmp_path)]
    assert skipped[-2:] == [1, 2]


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("modules", [0, 1, 2])
def test_rows_too_short_for_a_depth_train_without_it(length, modules):
    """MTP module k has positions in rows of more than k tokens only; what it lacks adds nothing."""
    model = make_model(replace(MODEL, num_nextn_predict_layers=modules))
    trainer = subject.Trainer(replace(CONFIG, length=length), model)
    values = trainer.step(CountingStream().batch(4))
    assert all(math.isfinite(value) for value in values.values() if isinstance(value, float))
    assert (values.get("mtp_loss", 0.0) > 0) == (modules > 0 and length > 1)
    assert values["total_loss"] >= values["loss"] and math.isfinite(values["grad_norm"])


def test_a_stream_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 13\), expected \[rows, at least 15\]"):
        subject.Trainer(replace(CONFIG, length=14), make_model()).step(CountingStream().batch(4))


@pytest.mark.parametrize(
    "bad",
    [{"balance": "both"}, {"length": 0}, {"micro_rows": 0}, {"average_decay": 1.0}, {"keep": 0}],
)
def test_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        subject.PretrainConfig(**bad)


def test_plain_lines_where_there_is_no_terminal():
    said = io.StringIO()
    with Progress(100, "base", stream=said, seconds=0.0) as progress:
        progress.start_at(40)
        progress.advance(30, "loss 1.0")
        progress.advance(30, "loss 0.9")
    lines = said.getvalue().splitlines()
    assert (
        len(lines) == 2
        and lines[0].startswith("base 70/100 tokens | ")
        and lines[1].endswith("0:00:00 left | loss 0.9")
    )


def test_before_anything_is_done_nobody_knows_how_long_it_takes():
    said = io.StringIO()
    with Progress(100, "sampling", "answers", stream=said, seconds=0.0) as progress:
        progress.advance(0, "8 running")
    assert said.getvalue() == "sampling 0/100 answers | 0 answers/s | ? left | 8 running\n"


def test_a_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    said = Terminal()
    with Progress(100, "base", stream=said) as progress:
        progress.advance(100, "loss 0.9")
        progress.say("[done]")
    assert "100%" in said.getvalue() and "[done]" in said.getvalue()


def test_the_second_interrupt_acts_at_once():
    # a shell's background job is started with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_the_main_thread_signals_are_left_alone():
    asked = []
    thread = threading.Thread(target=lambda: asked.append(StopRequest().__enter__().asked))
    thread.start()
    thread.join()
    assert asked == [False]
