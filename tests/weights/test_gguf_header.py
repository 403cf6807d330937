"""The header of a GGUF file: what the package `gguf` reads of a good one, and one sentence for each
way to be bad."""

import copy

import pytest

from deepwright.weights.gguf_header import ENTRIES, open_gguf
from tests.models.damage import gguf_file
from tests.models.gguf_bytes import ARRAY, TEXT, U32, U64

gguf = pytest.importorskip("gguf")
LLAMA = "unsloth/Llama-3.2-1B-Instruct"
NORM, EMBED = "output_norm.weight", "token_embd.weight"


def refusal(path):
    """What is said of a file; '' where it is read."""
    try:
        open_gguf(path, gguf)
    except ValueError as error:
        return str(error)
    return ""


def bad(path, change):
    file = copy.deepcopy(gguf_file(LLAMA))
    change(file)
    path.write_bytes(file.to_bytes())
    return refusal(path)


@pytest.mark.parametrize("name", [LLAMA, "deepseek-ai/DeepSeek-V2-Lite-Chat", "Qwen/Qwen3-0.6B"])
def test_what_the_package_gguf_reads(tmp_path, name):
    """Names, shapes, types, numbers and metadata, from an independent reading."""
    (tmp_path / "m.gguf").write_bytes(gguf_file(name).to_bytes())
    ours, theirs = open_gguf(tmp_path / "m.gguf", gguf), gguf.GGUFReader(tmp_path / "m.gguf")
    expected = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.fields == expected
    assert ours.tensors.keys() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        found = ours.tensors[tensor.name]
        assert found.shape == tuple(int(n) for n in reversed(tensor.shape))
        assert found.kind == tensor.tensor_type
        assert ours.raw(tensor.name) == tensor.data.tobytes()


BAD = {
    "a text that is cut": (lambda f: f.lengths.update({"general.architecture": 2**40}), "'general.architecture' would reach beyond its end"),
    "2^62 entries": (lambda f: f.lengths.update({"tokenizer.ggml.tokens": 2**62}), "announces 4,611,686,018,427,387,904 entries of"),
    "2^64 keys": (lambda f: setattr(f, "announced", (None, 2**64 - 1)), "it announces 18,446,744,073,709,551,615 keys and has room for"),
    "2^31 tensors": (lambda f: setattr(f, "announced", (2**31, None)), "it announces 2,147,483,648 tensors and has room for"),
    "fewer keys than there are": (lambda f: setattr(f, "announced", (None, 3)), "has the unknown tensor type"),
    "more keys than there are": (lambda f: setattr(f, "announced", (None, len(f.fields) + 1)), "would reach beyond its end"),
    "arrays in arrays": (lambda f: f.fields.update({"a": (ARRAY, (ARRAY, [(U32, [1])]))}), "'a' is an array of type 9"),
    "an unknown type": (lambda f: f.fields.update({"a": (77, 1)}), "'a' has the unknown type 77"),
    "half a character": (lambda f: f.fields.update({"a": (TEXT, "\ud800")}), "can't decode byte"),
    "another magic": (lambda f: setattr(f, "magic", b"GGML"), "it begins with b'GGML', expected b'GGUF'"),
    "version 1": (lambda f: setattr(f, "version", 1), "its version is 1, expected 2 or 3"),
    "big-endian": (lambda f: setattr(f, "version", 3 << 24), "it is big-endian"),
    "alignment 0": (lambda f: f.fields.update({"general.alignment": (U32, 0)}), "general.alignment is 0, expected a power of two"),
    "alignment 3": (lambda f: f.fields.update({"general.alignment": (U32, 3)}), "general.alignment is 3"),
    "alignment in words": (lambda f: f.fields.update({"general.alignment": (TEXT, "x")}), "general.alignment is 'x'"),
    "no dimensions": (lambda f: f.tensors[NORM].dimensions.clear(), f"'{NORM}' has 0 dimensions, expected 1 to 4"),
    "five dimensions": (lambda f: f.tensors[NORM].dimensions.extend([1] * 4), f"'{NORM}' has 5 dimensions"),
    "a dimension of 0": (lambda f: f.tensors[NORM].dimensions.__setitem__(0, 0), f"'{NORM}' has shape (0,)"),
    "2^62 numbers": (lambda f: f.tensors[NORM].dimensions.__setitem__(0, 2**62), f"'{NORM}' would end at byte 18,446"),
    "more numbers than 2^64": (lambda f: f.tensors[EMBED].dimensions.__setitem__(1, 2**63), f"'{EMBED}' would end at byte"),
    "half a block": (lambda f: setattr(f.tensors[NORM], "kind", 12), f"'{NORM}' has shape (32,), type Q4_K and place"),
    "an unknown tensor type": (lambda f: setattr(f.tensors[NORM], "kind", 777), f"'{NORM}' has the unknown tensor type 777"),
    "a place beyond the end": (lambda f: setattr(f.tensors[NORM], "place", 2**40), f"'{NORM}' would end at byte 1,099,5"),
    "a place off the grid": (lambda f: setattr(f.tensors[NORM], "place", 7), "and place 7, expected rows of whole blocks of 1 at"),
    "two in one place": (lambda f: setattr(f.tensors[NORM], "place", f.tensors[EMBED].place), "lies in the bytes of"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_each_way_to_be_bad_is_named(tmp_path, name):
    change, said = BAD[name]
    found = bad(tmp_path / "m.gguf", change)
    assert found.startswith(f"{tmp_path}/m.gguf is damaged, cut short, of an unknown tensor type")
    assert said in found and len(found) < 500


def test_names_that_stand_twice(tmp_path):
    file = copy.deepcopy(gguf_file(LLAMA))
    file.fields["general.file_typf"] = (U32, 0)
    (tmp_path / "m.gguf").write_bytes(
        file.to_bytes().replace(b"general.file_typf", b"general.file_type")
    )
    assert "the key 'general.file_type' stands twice" in refusal(tmp_path / "m.gguf")
    file = copy.deepcopy(gguf_file(LLAMA))
    file.tensors["output_norm.weighs"] = file.tensors[NORM]
    (tmp_path / "m.gguf").write_bytes(file.to_bytes().replace(b"output_norm.weighs", NORM.encode()))
    assert f"the tensor '{NORM}' stands twice" in refusal(tmp_path / "m.gguf")


def test_an_array_longer_than_any_vocabulary(tmp_path):
    def change(file):
        file.fields["a"] = (ARRAY, (0, bytes(ENTRIES + 1)))

    assert f"'a' has {ENTRIES + 1:,} entries, expected at most {ENTRIES:,}" in bad(
        tmp_path / "m.gguf", change
    )


@pytest.mark.parametrize("size", [0, 3, 4, 8, 23, 24, 25, 100])
def test_a_beginning_is_no_file(tmp_path, size):
    (tmp_path / "m.gguf").write_bytes(gguf_file(LLAMA).to_bytes()[:size])
    assert "m.gguf is damaged, cut short" in refusal(tmp_path / "m.gguf")


def test_kinds_of_values_are_kept(tmp_path):
    def change(file):
        file.fields |= {
            "a": (U64, 2**64 - 1),
            "b": (11, -(2**63)),
            "c": (7, True),
            "d": (12, 0.1),
            "e": (ARRAY, (5, [-1, 2])),
        }

    assert bad(tmp_path / "m.gguf", change) == ""
    fields = open_gguf(tmp_path / "m.gguf", gguf).fields
    assert [fields[key] for key in "abcde"] == [2**64 - 1, -(2**63), True, 0.1, [-1, 2]]
    assert type(fields["c"]) is bool
