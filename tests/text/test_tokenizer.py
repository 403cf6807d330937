"""Tokenizers: lossless, equal to transformers' AutoTokenizer, exactly one BOS, no silent unknown word."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.tasks import make_task
from deepwright.text import Tokenizer, number_tokenizer, train_bpe
from deepwright.text.templates import DEEPSEEK_TEMPLATE, PLAIN_TEMPLATE
from deepwright.text.tokenizer import BOS, EOS, FIM_HOLE

TEXT = "def add(a, b):\n    return a + b  # 12345 times, naïve 日本語\n\n\n\tx = add(1, 22)\nwhile wait: pass\n"
WORDS = make_task("countdown").tokenizer_words()
NUMBERS = number_tokenizer(WORDS, 99)
BPE = train_bpe([TEXT] * 3, 400)
CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "1 + 1"},
    {"role": "assistant", "content": "<think> 2 </think> it is 2"},
    {"role": "user", "content": "sure"},
]


def test_specials_first_then_words_then_every_number():
    assert (NUMBERS.bos_id, NUMBERS.eos_id, NUMBERS.pad_id) == (0, 1, 1)
    assert (BPE.bos_id, BPE.eos_id, BPE.pad_id) == (0, 1, 1)
    assert NUMBERS.vocab_size == 3 + len(WORDS) + 100
    first = NUMBERS.vocab_size - 100
    assert NUMBERS.encode(" ".join(map(str, range(100)))) == list(range(first, first + 100))


@given(st.lists(st.sampled_from([*WORDS, *map(str, range(100))])))
def test_words_round_trip_and_both_paths_agree(words):
    text = " ".join(words)
    ids = NUMBERS.encode(text)
    assert (
        NUMBERS.decode(ids) == text
        and NUMBERS.encode(text, specials=False) == ids
        and len(ids) == len(words)
    )


@pytest.mark.parametrize("specials", [True, False])
@pytest.mark.parametrize(
    "text, word",
    [("nums 3 maek 4", "maek"), ("nums 100", "100"), ("nums 3:", "3:"), ("<unk>", "<unk>")],
)
def test_an_unknown_word_is_named(text, word, specials):
    with pytest.raises(ValueError, match=f"'{word}' is not in the vocabulary"):
        NUMBERS.encode(text, specials=specials)


@given(st.text())
def test_bytes_round_trip(text):
    assert BPE.decode(BPE.encode(text), specials=True) == text
    assert BPE.decode(BPE.encode(text, specials=False), specials=True) == text


def test_specials_in_a_text_are_borders_only_when_asked():
    text = f"a{EOS}b{FIM_HOLE}"
    assert BPE.eos_id in BPE.encode(text)
    plain = BPE.encode(text, specials=False)
    assert not {BPE.eos_id, *BPE.fim_ids} & set(plain) and BPE.decode(plain) == text


def test_decode_leaves_out_the_borders_but_shows_specials_inside():
    inner = NUMBERS.encode("1 + 2")
    assert NUMBERS.decode([0, *inner, 1, 1]) == "1 + 2"
    assert NUMBERS.decode([0, *inner, 1], specials=True) == f"{BOS} 1 + 2 {EOS}"
    assert EOS in NUMBERS.decode([*inner, 1, *inner])
    assert NUMBERS.decode([]) == NUMBERS.decode([0]) == NUMBERS.decode([1]) == ""


@pytest.mark.parametrize(
    "tokenizer, text",
    [(NUMBERS, "nums 3 7 1 make 20 : <think> 3 * 7 = 21 wait"), (BPE, TEXT + BOS + " é 1234567")],
)
@pytest.mark.parametrize("model_type", [None, "deepseek_v3", "deepseek_v2"])
def test_transformers_opens_the_folder_with_equal_ids_and_prompts(
    tokenizer, text, model_type, tmp_path
):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    if model_type:  # beside a model, transformers chooses a tokenizer class by the model's type
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(theirs(text)["input_ids"]) == tokenizer.decode(
        tokenizer.encode(text), specials=True
    )
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (
        0,
        1,
        1,
        tokenizer.vocab_size,
    )
    for prompt in (True, False):
        for messages in (CHAT, CHAT[:3], CHAT[:1]):
            rendered = theirs.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt
            )
            assert rendered == tokenizer.render(messages, add_generation_prompt=prompt)


@pytest.mark.parametrize("tokenizer", [NUMBERS, BPE])
def test_save_and_load_give_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (
        again.backend.to_str() == tokenizer.backend.to_str()
        and again.template == tokenizer.template
    )
    assert again.fim_ids == tokenizer.fim_ids and again.vocab_size == tokenizer.vocab_size


def test_a_prompt_has_exactly_one_bos():
    ids = NUMBERS.encode_prompt("nums 3 7 1 make 20 :")
    assert ids == [0, *NUMBERS.encode("nums 3 7 1 make 20 :")]
    assert (
        BPE.encode(BPE.render(CHAT)).count(BPE.bos_id) == 1
        and BPE.encode(BPE.render(CHAT))[0] == BPE.bos_id
    )


def test_deepseek_form_drops_earlier_thoughts_and_keeps_the_last():
    text = BPE.render(CHAT)
    assert (
        text
        == f"{BOS}be brief<｜User｜>1 + 1<｜Assistant｜> it is 2{EOS}<｜User｜>sure<｜Assistant｜>"
    )
    target = BPE.render(CHAT[:3], add_generation_prompt=False)
    assert target == f"{BOS}be brief<｜User｜>1 + 1<｜Assistant｜><think> 2 </think> it is 2{EOS}"
    two_systems = [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}]
    assert BPE.render(two_systems, add_generation_prompt=False) == f"{BOS}a\n\nb"


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="role is robot"):
        BPE.render([{"role": "robot", "content": "x"}])
    with pytest.raises(ValueError, match="cannot be rendered"):
        Tokenizer(BPE.backend, "{% if %}").render(CHAT)
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    NUMBERS.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is no tokenizer"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="at least 263"):
        train_bpe([TEXT], 100)
    for words in (["a b"], ["7"], ["x", "x"], [""], [BOS]):
        with pytest.raises(ValueError, match="expected different words"):
            number_tokenizer(words, 9)


def test_a_template_of_a_stranger_cannot_reach_python():
    with pytest.raises(ValueError, match="cannot be rendered"):
        Tokenizer(BPE.backend, "{{ messages.__class__.__mro__[1].__subclasses__() }}").render(CHAT)


def test_training_is_deterministic_and_uses_the_vocabulary():
    assert (
        train_bpe([TEXT] * 3, 300).backend.to_str() == train_bpe([TEXT] * 3, 300).backend.to_str()
    )
    assert train_bpe([TEXT] * 3, 270).vocab_size == 270
    assert len(BPE.encode(TEXT)) < len(TEXT.encode()) / 2
    assert train_bpe([TEXT], 300, fim=False).fim_ids is None and PLAIN_TEMPLATE != DEEPSEEK_TEMPLATE
