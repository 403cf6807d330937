"""Checkpoints are whole or absent: damage is found and named, drafts go, a full disk is one sentence, old ones are pruned."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepwright import weights
from deepwright.train import checkpoint as subject
from deepwright.train.checkpoint import (
    CheckpointError,
    find_damage,
    latest_checkpoint,
    save_checkpoint,
)
from tests.train.tiny import MODEL, make_model

TENSORS = {"exp_avg.x": torch.arange(6.0).view(2, 3), "step.x": torch.tensor(3.0)}


def save(folder: Path, step: int, model=None, keep: int = 2) -> Path:
    state = {"counters": {"steps": step}, "settings": {}}
    return save_checkpoint(folder, step, model or make_model(), None, TENSORS, state, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_what_was_saved_comes_back(tmp_path):
    model = make_model(seed=3)
    for router in (model.layers[1].ffn.router, model.mtp[0].block.ffn.router):
        router.bias.copy_(torch.linspace(-0.3, 0.1, 8))
    save(tmp_path, 7, model)
    found = latest_checkpoint(tmp_path)
    assert found.step == 7 and found.state == {"counters": {"steps": 7}, "settings": {}}
    assert found.tensors.keys() == TENSORS.keys() and all(
        torch.equal(found.tensors[name], value) for name, value in TENSORS.items()
    )
    other = make_model(seed=4)
    found.load_model_into(other)
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items()
    )
    # a Hugging Face folder in its own right
    assert weights.load_model(found.folder).config == MODEL


def test_no_run_yet(tmp_path):
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_keeps_the_last_ones_and_removes_drafts(tmp_path):
    for step in (5, 10, 100):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-10", "step-100"]
    (tmp_path / "checkpoints/.draft-step-105").mkdir()
    (tmp_path / "checkpoints/.draft-step-105/config.json").write_text("{")
    assert latest_checkpoint(tmp_path).step == 100
    assert names(tmp_path) == ["step-10", "step-100"]


def damage_tail(folder: Path):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "model.safetensors does not match": damage_tail,
    "config.json is missing": lambda folder: (folder / "config.json").unlink(),
    "state.json does not match": lambda folder: (folder / "trainer/state.json").write_text("{}"),
    "manifest.json is missing": lambda folder: (folder / "trainer/manifest.json").unlink(),
    "manifest.json is not a list": lambda folder: (folder / "trainer/manifest.json").write_text(
        '{"trainer'
    ),
    "tensors.safetensors does not match": lambda folder: (
        folder / "trainer/tensors.safetensors"
    ).write_bytes(b""),
}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_damaged_one_is_named_and_skipped(tmp_path, words):
    save(tmp_path, 1)
    DAMAGES[words](save(tmp_path, 2))
    with pytest.warns(UserWarning, match=rf"step-2 is damaged \(.*{words}.*skipped"):
        assert latest_checkpoint(tmp_path).step == 1
    save(tmp_path, 2)  # the run repeats the step: the damaged folder is replaced
    assert latest_checkpoint(tmp_path).step == 2


def test_only_damaged_ones_stop_the_run(tmp_path):
    damage_tail(save(tmp_path, 1))
    with (
        pytest.warns(UserWarning, match="step-1"),
        pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"),
    ):
        latest_checkpoint(tmp_path)


def test_a_manifest_that_leaves_out_a_file_vouches_for_nothing(tmp_path):
    folder = save(tmp_path, 1)
    manifest = folder / "trainer/manifest.json"
    sums = json.loads(manifest.read_text())
    del sums["model.safetensors"]
    manifest.write_text(json.dumps(sums))
    damage_tail(folder)
    assert find_damage(folder) == "trainer/manifest.json says nothing of model.safetensors"


def test_a_damaged_later_one_never_costs_the_new_one(tmp_path):
    damage_tail(save(tmp_path, 30))
    save(tmp_path, 20, keep=1)
    with pytest.warns(UserWarning, match="step-30"):
        assert latest_checkpoint(tmp_path).step == 20


@pytest.mark.parametrize("place", ["_write_model", "_write_trainer", "_write_manifest"])
def test_a_full_disk_is_one_sentence_and_nothing_half_written(tmp_path, monkeypatch, place):
    save(tmp_path, 1)
    step = getattr(subject, place)

    def full(*arguments):
        step(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(subject, place, full)
    with pytest.raises(
        CheckpointError,
        match="step-2: no space left on the disk; earlier checkpoints are untouched",
    ):
        save(tmp_path, 2)
    assert names(tmp_path) == ["step-1"]
    assert latest_checkpoint(tmp_path).step == 1


def test_another_models_checkpoint_is_refused(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(ValueError, match="moe_intermediate_size 8, expected 16"):
        latest_checkpoint(tmp_path).load_model_into(
            make_model(replace(MODEL, moe_intermediate_size=16))
        )


def test_manifest_lists_every_file(tmp_path):
    folder = save(tmp_path, 1)
    listed = json.loads((folder / "trainer/manifest.json").read_text())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files - listed.keys() == {"trainer/manifest.json"}
