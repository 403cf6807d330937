"""Which number format is faster is timed, kept, and stays with a run: both answers are reached,
whatever the processor says of itself."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, replace

import pytest
import torch

from deepwright.cli import main
from deepwright.numerics import formats
from deepwright.rl import GRPOConfig
from deepwright.train.optimizer import OptimizerConfig
from deepwright.train.pretrain import PretrainConfig
from deepwright.verify import doctor
from tests.train import tiny

AMD, INTEL = (0.140, 0.081), (0.140, 0.286)  # seconds in float32 and bfloat16


def machine(patch, times, log=None):
    """One on which a round takes so long; `log` collects the formats that are timed."""

    def seconds(work, dtype):
        if log is not None:
            log.append(dtype)
        return times[dtype is torch.bfloat16]

    formats._held.cache_clear()
    patch.setattr(formats, "_seconds", seconds)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "deepwright"
    formats._held.cache_clear()


def kept(folder):
    return sorted(folder.glob("formats-*.json"))


def check_both_answers_are_reached(patch):
    for times, expected in (
        (AMD, "bfloat16"),
        (INTEL, "float32"),
        ((0.111, 0.1), "bfloat16"),
        ((0.109, 0.1), "float32"),  # not clearly faster
        ((1.0, 1.0), "float32"),
    ):
        for path in kept(formats.cache.folder()):
            path.unlink()
        machine(patch, times)
        dtype, reason = formats.compute_dtype("auto")
        assert str(dtype) == f"torch.{expected}"
        assert f"{1e3 * times[0]:.0f} ms in float32, {1e3 * times[1]:.0f} in bfloat16" in reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="an accelerator decides by itself")
class TestAuto:
    def test_both_answers_are_reached(self, monkeypatch):
        check_both_answers_are_reached(monkeypatch)

    def test_formats_are_timed_in_turn_and_the_middle_counts(self, monkeypatch):
        """The first round warms up; one that another program disturbed changes nothing."""
        rounds = iter([9.0, 9.0, 1.0, 0.7, 1.0, 0.9, 50.0, 0.7, 1.0, 0.7, 1.0, 80.0])
        log = []

        def seconds(work, dtype):
            log.append(dtype)
            return next(rounds)

        monkeypatch.setattr(formats, "_seconds", seconds)
        assert formats._times() == (1.0, 0.7)
        assert log == [torch.float32, torch.bfloat16] * (formats.ROUNDS + 1)

    @pytest.mark.parametrize("times", [(0.1, 1.0), (1.0, 0.1)])
    def test_a_clear_case_takes_two_rounds(self, times, monkeypatch):
        machine(monkeypatch, times, log := [])
        assert formats._times() == times and len(log) == 2 * 3

    def test_the_work_itself_runs_in_both(self, monkeypatch):
        monkeypatch.setattr(formats, "ROWS", 1)
        with torch.no_grad():
            work = formats._work()
            for dtype in formats.NAMES.values():
                with torch.enable_grad():
                    assert formats._seconds(work, dtype) > 0

    def test_one_race_for_a_machine_and_its_number_of_threads(self, folder, monkeypatch):
        machine(monkeypatch, AMD, log := [])
        first, timed = formats.held(), len(log)
        machine(monkeypatch, INTEL, log)  # another process
        assert formats.held() == first and len(log) == timed > 0
        assert formats._held(63) != first and len(kept(folder)) == 2
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        formats._held.cache_clear()
        assert formats.held().winner == "float32" and len(kept(folder)) == 3

    @pytest.mark.parametrize(
        "damage",
        [
            "",
            "{",
            "[]",
            "null",
            '{"float32": 1.0}',
            "nan",
            "-1",
            "0",
            "1e9",
            "text",
            "null",
            "more",
        ],
    )
    def test_what_is_kept_is_not_believed_where_it_is_damaged(self, damage, folder, monkeypatch):
        machine(monkeypatch, AMD)
        whole = formats.held()
        (path,) = kept(folder)
        table = json.loads(path.read_text())
        values = {"nan": float("nan"), "-1": -1.0, "0": 0, "1e9": 1e9, "text": "fast", "null": None}
        if damage in values:
            path.write_text(json.dumps(table | {"float32": values[damage]}))
        else:
            path.write_text(json.dumps(table | {"x": 1}) if damage == "more" else damage)
        machine(monkeypatch, INTEL)
        assert formats.held() != whole and formats.held().winner == "float32"
        assert json.loads(path.read_text())["bfloat16"] == INTEL[1], "it was not put right"

    def test_what_is_kept_counts_for_this_machine_and_user_only(self, folder, monkeypatch):
        machine(monkeypatch, AMD)
        formats.held()
        (path,) = kept(folder)
        machine(monkeypatch, INTEL)
        table = json.loads(path.read_text())
        path.write_text(json.dumps(table | {"processor": "another"}))
        assert formats.held().winner == "float32"
        path.write_text(json.dumps(table))
        path.chmod(0o606)
        machine(monkeypatch, INTEL)
        assert formats.held().winner == "float32"

    def test_without_a_folder_the_race_is_held_each_time(self, monkeypatch):
        def nowhere():
            raise formats.cache.NoFolder("nowhere")

        monkeypatch.setattr(formats.cache, "folder", nowhere)
        machine(monkeypatch, INTEL)
        assert formats.held().winner == "float32"

    def test_doctor_says_both_figures(self, monkeypatch):
        machine(monkeypatch, INTEL)
        rows = [doctor.Finding(*row) for row in doctor.numerics.table()]
        (found,) = [row for row in rows if row.name == "compute 'auto'"]
        assert found.value == "float32" and "140 ms in float32, 286 in bfloat16" in found.remark

    def test_settings_are_checked_without_a_race(self, monkeypatch):
        machine(monkeypatch, AMD, log := [])
        auto = PretrainConfig(compute="auto", optimizer=OptimizerConfig(muon_dtype="auto"))
        GRPOConfig(compute="auto")
        for wrong in (
            lambda: PretrainConfig(compute="float16"),
            lambda: OptimizerConfig(muon_dtype=""),
            lambda: GRPOConfig(compute="fp8"),
        ):
            with pytest.raises(ValueError, match="expected 'auto', 'float32' or 'bfloat16'"):
                wrong()
        assert not log
        done = formats.settled(auto)
        assert (done.compute, done.optimizer.muon_dtype) == ("bfloat16", "bfloat16")
        assert formats.settled(done) is done

    def test_a_tree_is_settled_as_the_run_began(self, monkeypatch):
        machine(monkeypatch, AMD, log := [])

        @dataclass(frozen=True)
        class Tree:
            pretrain: PretrainConfig
            other: PretrainConfig
            name: str = "auto"

        tree = Tree(PretrainConfig(compute="auto"), PretrainConfig(compute="float32"))
        old = {"pretrain": {"compute": "float32"}, "other": {"compute": "bfloat16"}}
        found = formats.settled(tree, old)
        assert (found.pretrain.compute, found.other.compute) == ("float32", "float32")
        assert found.name == "auto" and not log
        # an older version's
        assert formats.settled(tree, {"pretrain": {"compute": "auto"}}) is tree
        assert formats.settled(tree, {"pretrain": 3}).pretrain.compute == "bfloat16"

    def test_a_resumed_training_keeps_its_format(self, tmp_path, monkeypatch):
        """Also on a machine where the other one is faster; and ends with the same bits."""
        config = replace(tiny.CONFIG, compute="auto")
        machine(monkeypatch, AMD)
        whole = tiny.run(tmp_path / "whole", config)
        assert whole.compute is torch.bfloat16 and whole.config.compute == "bfloat16"

        def interrupt(step, model):
            if step == 7:
                os.kill(os.getpid(), 2)

        machine(monkeypatch, AMD)
        with pytest.raises(SystemExit):
            tiny.run(tmp_path / "halves", config, callback=interrupt)
        for path in kept(formats.cache.folder()):
            path.unlink()
        machine(monkeypatch, INTEL)
        halves = tiny.run(tmp_path / "halves", config)
        assert halves.compute is torch.bfloat16
        for ours, theirs in zip(halves.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        with pytest.raises(ValueError, match=r"compute 'bfloat16', now it is 'float32'"):
            tiny.run(tmp_path / "halves", replace(config, compute="float32"))

    def test_a_run_writes_down_what_was_chosen_and_keeps_it(self, tmp_path, monkeypatch, capsys):
        words = f"""pretrain --config quick --run {tmp_path / "run"} --threads 1
            --pretrain.length 16 --pretrain.schedule.total-tokens 256 --evaluation.validation-rows 2""".split()
        machine(monkeypatch, INTEL)
        assert main(words) == 0
        settings = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["pretrain"]
        assert settings["compute"] == settings["optimizer"]["muon_dtype"] == "float32"
        facts = json.loads((tmp_path / "run" / "run.json").read_text())["number_format"]
        assert facts["chosen"] == "float32" and facts["threads"] == 1 and facts["processor"]
        assert (facts["float32"], facts["bfloat16"]) == INTEL
        for path in kept(formats.cache.folder()):
            path.unlink()
        machine(monkeypatch, AMD)
        assert main([*words, "--resume"]) == 0
        assert json.loads((tmp_path / "run" / "run.json").read_text())["number_format"] == facts
        assert main([*words, "--resume", "--pretrain.compute", "bfloat16"]) == 2
        assert (
            "pretrain.compute = 'float32', asked for now is 'bfloat16'" in capsys.readouterr().err
        )

    def test_a_dry_run_times_nothing(self, monkeypatch, capsys):
        machine(monkeypatch, AMD, log := [])
        assert main(["pretrain", "--config", "quick", "--dry-run"]) == 0
        assert 'compute = "auto"' in capsys.readouterr().out and not log
