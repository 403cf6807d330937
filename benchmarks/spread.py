"""How far single runs of the recipe spread: six of them, over seeds, number formats, threads and instruction sets.

    python benchmarks/spread.py [--only NAME ...] [--folder runs/spread] [--keep]

Rounding moves a run as far as a seed does, because what a policy samples decides what it learns from. So the figures of one run, with
the error of its own problems and samples, say little about the next one on another processor. Each variant is the command that `make
r1` runs, in a process of its own, one after the other; an interrupted one goes on with the same line. Two to three hours on two
cores. The table is that of seeds.py. --keep writes the ranges to where reports of such runs find them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from deepwright.report import spread
from deepwright.report.records import STAGES, read_run

ONE = ("--threads", "1")  # thread: two such runs side by side take less time than one by one
BLOCKS = ("--pretrain.compute", "--distill.pretrain.compute")


@dataclass(frozen=True)
class Variant:
    """`options` of the command; `environment`: what chooses instructions inside torch and its products."""

    name: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def blocks(kind: str) -> tuple[str, ...]:
    """The blocks of both pre-trained models in one number format."""
    return tuple(word for option in BLOCKS for word in (option, kind))


VARIANTS = (
    Variant("seed0-fp32", (*blocks("float32"), *ONE)),
    Variant("seed0-bf16", blocks("bfloat16")),
    Variant("seed1", ("--seed", "1")),
    Variant("seed2", ("--seed", "2")),
    Variant("one-thread", ONE),
    Variant("avx2", ONE, {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--folder", type=Path, default=Path("runs/spread"))
    parser.add_argument("--config", default="laptop")
    parser.add_argument("--keep", action="store_true", help="write deepwright/report/spread.json")
    asked = parser.parse_args()
    if asked.keep and asked.only != names:
        parser.error(f"--keep writes the range of all {len(names)}, so none of them with --only")
    folders = []
    for variant in VARIANTS:
        if variant.name in asked.only:
            folders.append(asked.folder / variant.name)
            run(variant, asked.config, folders[-1])
    if asked.keep:
        measured = spread.measure([read_run(folder) for folder in folders], list(STAGES))
        spread.write(measured, spread.MEASURED)
    table = [sys.executable, str(Path(__file__).with_name("seeds.py"))]
    raise SystemExit(subprocess.run([*table, *map(str, folders)], check=False).returncode)


def run(variant: Variant, config: str, folder: Path) -> None:
    """The whole recipe; what is finished already takes seconds. SystemExit with its status where it fails."""
    command = [sys.executable, "-m", "deepwright", "r1", "--config", config, "--run", str(folder)]
    print(f"== {variant.name}: {' '.join(variant.options)} {variant.environment or ''}", flush=True)
    done = subprocess.run(
        [*command, "--resume", *variant.options],
        env={**os.environ, **variant.environment},
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
