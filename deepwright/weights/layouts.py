"""What a folder holds when it is no model that opens here, and what to do about it.

People have adapters, other software's files and quantised releases at hand; each is told apart by
the files that its makers write, so that the refusal can say what it is.
"""

from __future__ import annotations

from pathlib import Path

from deepwright.files import read_json
from deepwright.refusals import quoted

# Only safetensors: a pickle can run code when it is opened.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
QUANTIZED = {
    "hf_quant_config.json": "ModelOpt",
    "quantize_config.json": "AutoGPTQ",
    "quant_config.json": "AutoAWQ",
}
FOREIGN = ("*.h5", "*.msgpack", "*.onnx", "*.npz", "*.mlmodelc")


def is_gguf(place: str | Path) -> bool:
    return Path(place).suffix == ".gguf" and not Path(place).is_dir()


def describe(folder: Path) -> str | None:
    """What lies in `folder` instead of a config.json with safetensors; None where that is
    unknown."""
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        return (
            f"a LoRA adapter (adapter_config.json) of {quoted(base)}: merge it into that model and "
            "save the whole"
        )
    if found := _first(folder, ("*.gguf",)):
        return f"GGUF alone ({found}): name the file itself, {folder / found}"
    if (folder / "params.json").is_file():
        return "weights in the layout of their makers (params.json): take the Hugging Face release"
    if found := _first(folder, PICKLES):
        return (
            f"its weights as a pickle ({found}), which can run code: convert it to safetensors "
            "first"
        )
    if found := _first(folder, FOREIGN):
        return f"weights for other software ({found}): take the release in safetensors"
    return None


def refuse_quantized(folder: Path) -> None:
    """ValueError where a file beside config.json says that another program quantised the
    weights."""
    for name, maker in QUANTIZED.items():
        if (folder / name).is_file():
            raise ValueError(
                f"{folder} holds weights that {maker} quantised ({name}), expected those of the "
                "release in bf16"
            )


def _first(folder: Path, patterns: tuple[str, ...]) -> str | None:
    names = sorted(path.name for pattern in patterns for path in folder.glob(pattern))
    return names[0][:100] if names else None
