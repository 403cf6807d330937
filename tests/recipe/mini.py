"""The smallest run that there is: a base model of one layer, four steps, a second at most."""

from __future__ import annotations

from pathlib import Path

from deepwright.recipe.resolve import split_words
from deepwright.recipe.settings import PretrainSettings, resolve_for

LINE = (
    "pretrain --quick --threads 1 --model.hidden-size 16 --model.num-hidden-layers 1 "
    "--model.first-k-dense-replace 1 --model.intermediate-size 16 --pretrain.length 24 "
    "--pretrain.schedule.total-tokens 192 --pretrain.schedule.batch-rows 2 "
    "--pretrain.schedule.warmup-steps 0 --pretrain.checkpoint-every 1 "
    "--evaluation.validation-rows 1"
).split()


def settings_in(folder: Path) -> PretrainSettings:
    return resolve_for("pretrain", split_words([*LINE[1:], "--run", str(folder)]))
