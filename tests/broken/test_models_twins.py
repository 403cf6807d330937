"""Wrong twins of how folders and files of others are opened: mistakes made once here or elsewhere,
and the test that rejects each."""

import pytest

from deepwright.config import files
from deepwright.text import folders, tokenizer
from deepwright.weights import gguf_header, gguf_tokenizer, loading, names
from tests.broken.patched import must_reject
from tests.models import test_keys, test_released, test_sizes, tiny
from tests.text import test_folders
from tests.weights import test_gguf_cuts, test_gguf_header

QWEN = "Qwen2.5-0.5B, fine-tuned as a chat model by LLaMA-Factory"
V3 = "deepseek-ai/DeepSeek-V3"


def ends(folder):
    generation, model = {"eos_token_id": [2, 0]}, {"eos_token_id": 1}
    test_folders.test_ends_come_from_three_files(folder, generation, model, [2, 0, 1])


def last_ends(folder):
    test_folders.test_ends_come_from_three_files(folder, None, {"eos_token_id": [0, 2]}, [2, 0])


def an_end_is_no_beginning(folder):
    test_folders.test_post_processors_add_a_bos_or_change_nothing(folder, "adds eos", None)


def flags(folder):
    test_folders.test_added_tokens_and_their_flags(
        folder, test_folders.ADDED[0], "tokenizer_config.json"
    )


def holes(folder):
    test_folders.test_a_vocabulary_with_holes_is_as_long_as_its_largest_id(folder)


def unnamed_ids():
    test_keys.test_ids_that_a_file_does_not_name_are_not_filled_in("llama")


def logits(folder):
    made = {V3: tiny.make(tiny.RELEASED[V3], folder / "m")}
    (folder / "theirs").mkdir()
    test_released.test_opens_and_computes_what_transformers_computes(made, V3, folder / "theirs")


def shapes_first(folder):
    """A wrong shape is said while no memory has been asked for."""
    made = tiny.make(tiny.RELEASED[V3], folder / "m")
    (folder / "wrong").mkdir()
    wrong = test_sizes.changed(made, folder / "wrong", vocab_size=250)
    with pytest.MonkeyPatch.context() as patch:
        asked = []
        patch.setattr(loading, "allocate", lambda model: asked.append(model) or model)
        with pytest.raises((ValueError, RuntimeError)):
            loading.load_model(wrong)
        assert not asked


def overlaps(folder):
    test_gguf_header.test_each_way_to_be_bad_is_named(folder, "two in one place")


def beyond_the_end(folder):
    test_gguf_header.test_each_way_to_be_bad_is_named(folder, "a place beyond the end")


def read_alike(folder):
    test_gguf_header.test_what_the_package_gguf_reads(folder, test_gguf_header.LLAMA)


def digits():
    test_gguf_cuts.test_v2s_own_file_is_deepseek_llm_to_llama_cpp_where_digits_are_not_merged()


def pieces():
    test_gguf_cuts.test_pieces_by_hand("deepseek-v3", "a1234b", ["a", "123", "4", "b"])


def only(file):
    return lambda original: lambda path, key: original(path, key) if path.name == file else ()


def asks_an_empty_text(_):
    return lambda backend, bos, said: (
        bos is not None
        and (
            said.get("add_bos_token") is True
            or backend.encode("").ids[:1] == [backend.token_to_id(bos)]
        )
    )


def counts_entries(original):
    def made(self, backend, *rest, **named):
        original(self, backend, *rest, **named)
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)

    return made


def the_usual_ids_of_the_family(original):
    def fill(given):
        original(given)
        usual = {"bos_token_id": 1, "eos_token_id": 2}
        given |= {name: index for name, index in usual.items() if given[name] is None}

    return fill


def columns_first(original):
    def placed(self, gguf, alignment, name):
        found = original(self, gguf, alignment, name)
        return gguf_header.StoredTensor(found.shape[::-1], found.kind, found.start, found.size)

    return placed


TWINS = {
    "generation_config.json is not read": (ends, folders, "_ids", only("config.json")),
    "config.json is not read": (last_ends, folders, "_ids", only("generation_config.json")),
    "BOS is looked for in an empty text": (an_end_is_no_beginning, folders, "_adds_bos", asks_an_empty_text),
    "added_tokens_decoder is not read": (flags, folders, "_add_tokens", lambda _: lambda *_: None),
    "a vocabulary is as long as its entries": (holes, tokenizer.Tokenizer, "__init__", counts_entries),
    "ids that a file does not name": (unnamed_ids, files, "_fill_dense", the_usual_ids_of_the_family),
    "memory before shapes": (shapes_first, loading, "_check_tensors", lambda _: lambda *_: None),
    "shared experts under the routed ones' name": (logits, names, "_MLP", lambda t: dict(zip(t, reversed(t.values())))),
    "places are believed": (overlaps, gguf_header, "_check_places", lambda _: lambda *_: None),
    "ends are believed": (beyond_the_end, gguf_header, "_check_places", lambda _: lambda *_: None),
    "columns first": (read_alike, gguf_header._Header, "tensor", columns_first),
    "digits merged across DeepSeek's cuts": (digits, gguf_tokenizer, "_merges_digits", lambda _: lambda _: False),
    "digits one by one": (pieces, gguf_tokenizer, "CUTS", lambda cuts: cuts | {"deepseek-v3": (r"\p{N}", *cuts["deepseek-v3"][1:])}),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_twin_is_rejected(name, tmp_path):
    check, owner, attribute, wrong = TWINS[name]
    must_reject(check, owner, attribute, wrong, tmp_path)
