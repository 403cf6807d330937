"""What this machine has, how fast it is, and which implementation each operation uses here: `deepwright doctor`.

The rates are short measurements (about two seconds together), best of a few: floors to compare a training step with, not a benchmark.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import deepwright
from deepwright import numerics
from deepwright.numerics.build import processor_flags
from deepwright.tasks import sandbox

# Packages that are used where they are found; nothing needs them.
OPTIONAL = {
    "transformers": "the independent implementation that `verify` compares with",
    "gguf": "opens and writes llama.cpp's files (.gguf; `deepwright convert`, `deepwright get`)",
    "huggingface_hub": "fetches models by their name on a hub (HF:ORG/NAME)",
}
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16")


@dataclass(frozen=True)
class Finding:
    """One line: what, the value, and what it means where that is not plain."""

    name: str
    value: str
    remark: str = ""


def machine() -> list[Finding]:
    flags = processor_flags().split()
    return [
        Finding("python", platform.python_version(), platform.platform(terse=True)),
        Finding(
            "torch", torch.__version__, f"CPU kernels for {torch.backends.cpu.get_cpu_capability()}"
        ),
        Finding(
            "threads", str(torch.get_num_threads()), f"of {len(os.sched_getaffinity(0))} cores"
        ),
        spins(),
        Finding("cpu flags", " ".join(flag for flag in CPU_FLAGS if flag in flags) or "unknown"),
        Finding(
            "accelerator",
            torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "not needed",
        ),
        Finding(
            "memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
        ),
        Finding(
            "free disk",
            f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB",
            "where runs/ would be",
        ),
    ]


def spins() -> Finding:
    """How long an idle thread keeps its core from other programs."""
    count = os.environ.get(deepwright.SPINS_VARIABLE, "")
    late = "not in force: torch was loaded before deepwright, which would have set it"
    return Finding(
        "idle threads",
        f"{count} spins",
        late if deepwright.SPINS_LATE else deepwright.SPINS_VARIABLE,
    )


def best_seconds(work: Callable[[], object], budget: float = 0.4) -> float:
    """Fastest of as many calls as fit in `budget` seconds, after one that warms up."""
    work()
    best, end = float("inf"), time.perf_counter() + budget
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def gemm_rate(dtype: torch.dtype, size: int = 768) -> float:
    """Multiply-adds counted as two, per second, of a square matrix product."""
    a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    return 2 * size**3 / best_seconds(lambda: a @ b)


def bandwidth(size: int = 2**26) -> float:
    """Bytes per second, read and written, of a copy too large for the caches."""
    source, target = (torch.ones(size // 4) for _ in range(2))
    return 2 * size / best_seconds(lambda: target.copy_(source))


def rates() -> list[Finding]:
    fp32, bf16 = gemm_rate(torch.float32), gemm_rate(torch.bfloat16)
    return [
        Finding("fp32 matrix product", f"{fp32 / 1e9:,.0f} GFLOP/s"),
        Finding(
            "bf16 matrix product", f"{bf16 / 1e9:,.0f} GFLOP/s", f"{bf16 / fp32:.1f} times fp32"
        ),
        Finding(
            "memory bandwidth", f"{bandwidth() / 1e9:,.1f} GB/s", "copy, bytes read and written"
        ),
    ]


def version_of(package: str) -> str:
    return importlib.metadata.version(package) if importlib.util.find_spec(package) else "not found"


def judge() -> Finding:
    """What confines the programs that a reward runs, and why it is not something better."""
    kind, _, instead = sandbox.described().partition("; ")
    return Finding("confined by", kind, instead)


def examine() -> dict[str, list[Finding]]:
    """Everything, by heading."""
    return {
        "machine": machine(),
        "measured rates": rates(),
        "optional packages": [
            Finding(name, version_of(name), use) for name, use in OPTIONAL.items()
        ],
        "programs that nobody trusts": [judge()],
        "what runs for each operation": [Finding(*row) for row in numerics.table()],
    }
