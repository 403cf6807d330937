"""Wrong twins of text and fine-tuning: mistakes made elsewhere, put in place of one function, and the test that must then fail."""

import dataclasses

import pytest
from jinja2.filters import FILTERS

from deepwright.data import conversations
from deepwright.text import templates, thoughts, tokenizer
from deepwright.train import sft as finetuning
from tests.data import test_conversations
from tests.text import family as families
from tests.text import test_templates, test_thoughts
from tests.text.templates import FAMILIES
from tests.train import test_sft


def tokenizers(folder):
    return {name: families.load(folder / name, name) for name in FAMILIES}


def rules(_folder):
    [mark] = [
        mark
        for mark in test_thoughts.test_the_stated_rules.pytestmark
        if mark.name == "parametrize"
    ]
    for case in mark.args[1]:
        test_thoughts.test_the_stated_rules(*case)
    for cut in range(20):
        assert test_thoughts.streamed("<think>a</think>b", [cut], False) == ("a", "b")


def loss(_folder):
    test_sft.test_loss_and_gradient_equal_transformers_masked_cross_entropy(None)


def one_bos(folder):
    for written in ("", "{{ bos_token }}", "{{ bos_token + bos_token }}"):
        test_templates.test_exactly_one_bos_whether_or_not_the_template_writes_it(folder, written)


def characters(folder):
    written = {name: families.write(folder / name, name) for name in ("smollm", "llama", "qwen")}
    for name in written:
        test_templates.test_characters_and_ids_equal_transformers(written, name, "system")


def completions(folder):
    for name in FAMILIES:
        test_conversations.test_a_completion_follows_its_prompt_untouched(tokenizers(folder), name)


def turns(folder):
    for name in ("smollm", "llama", "marked"):
        test_conversations.test_ids_are_those_of_the_rendered_text_and_of_each_prompt(
            tokenizers(folder), name
        )


def border(folder):
    test_conversations.test_a_token_never_reaches_from_the_prompt_into_the_turn(tokenizers(folder))


def mask_off_by_one(original):
    return lambda documents: original(
        [dataclasses.replace(d, targets_T=d.targets_T.roll(1)) for d in documents]
    )


def loss_on_the_prompt_too(original):
    return lambda documents: original(
        [dataclasses.replace(d, targets_T=d.targets_T | True) for d in documents]
    )


def padding_trained_on(original):
    def batch(documents):
        made = original(documents)
        return dataclasses.replace(
            made, weights_BS=made.weights_BS.masked_fill(~made.valid_BS, 1.0)
        )

    return batch


def end_token_masked_as_padding(original):
    return lambda documents: original(
        [dataclasses.replace(d, targets_T=d.targets_T & (d.ids_T != 1)) for d in documents]
    )


def html_escaped(original):
    def compiled(template):
        made = original.__wrapped__(template)
        environment = made.environment.overlay()
        environment.filters = {**environment.filters, "tojson": FILTERS["tojson"]}  # jinja2's own
        return environment.from_string(template)

    return compiled


def blocks_not_trimmed(original):
    def compiled(template):
        made = original.__wrapped__(template).environment.overlay(
            trim_blocks=False, lstrip_blocks=False
        )
        return made.from_string(template)

    return compiled


def tag_only_within_one_piece(_):
    def feed(self, piece):
        if not self.inside and "<think>" not in piece:
            return thoughts.Delta("", piece)
        before, tag, rest = piece.removeprefix("<think>").partition("</think>")
        self.inside = not tag
        return thoughts.Delta(before, rest)

    return feed


def last_closing_tag_counts(original):
    def feed(self, piece):
        head, tag, rest = piece.rpartition("</think>")
        earlier = original(self, head.replace("</think>", "\0") + tag)
        return thoughts.Delta(
            earlier.reasoning.replace("\0", "</think>"),
            earlier.content + original(self, rest).content,
        )

    return feed


def starts_outside_whatever_the_prompt(original):
    return lambda self, inside=False, *tags: original(self, False, *tags)


def bos_added_always(_):
    return lambda self, text: text if self.bos is None else self.bos + text


def turn_ends_are_not_targets(original):
    return lambda ids, tokenizer, place: original(ids, tokenizer, place)[:-1]


def line_break_after_the_turn_trained_on(_):
    return lambda ids, tokenizer, place: ids


def whole_text_cut_at_token_counts(_):
    def pieces(self, parts):
        whole, counts = self.encode("".join(parts)), [len(self.encode(part)) for part in parts]
        return [whole[sum(counts[:n]) : sum(counts[: n + 1])] for n in range(len(parts))]

    return pieces


def completion_without_end(original):
    return lambda pieces: original(
        [*pieces[:-1], [index for index in pieces[-1] if index != pieces[-1][-1]]]
    )


TWINS = {
    "mask off by one": (loss, finetuning, "make_batch", mask_off_by_one, test_sft),
    "loss on the prompt": (loss, finetuning, "make_batch", loss_on_the_prompt_too, test_sft),
    "padding trained on": (loss, finetuning, "make_batch", padding_trained_on, test_sft),
    "EOS masked as padding": (
        loss,
        finetuning,
        "make_batch",
        end_token_masked_as_padding,
        test_sft,
    ),
    "blocks not trimmed": (characters, templates, "_compile", blocks_not_trimmed, None),
    "HTML escaped": (characters, templates, "_compile", html_escaped, None),
    "a tag cut in two is missed": (
        rules,
        thoughts.ThoughtParser,
        "feed",
        tag_only_within_one_piece,
        None,
    ),
    "the last closing tag counts": (
        rules,
        thoughts.ThoughtParser,
        "feed",
        last_closing_tag_counts,
        None,
    ),
    "the prompt's open thought forgotten": (
        rules,
        thoughts.ThoughtParser,
        "__init__",
        starts_outside_whatever_the_prompt,
        None,
    ),
    "BOS twice": (one_bos, tokenizer.Tokenizer, "_with_one_bos", bos_added_always, None),
    "turns without their end": (
        turns,
        conversations,
        "_to_the_end",
        turn_ends_are_not_targets,
        None,
    ),
    "the break after a turn trained on": (
        turns,
        conversations,
        "_to_the_end",
        line_break_after_the_turn_trained_on,
        None,
    ),
    "a token across the border": (
        border,
        tokenizer.Tokenizer,
        "encode_pieces",
        whole_text_cut_at_token_counts,
        None,
    ),
    "completions without end": (
        completions,
        conversations,
        "_document",
        completion_without_end,
        None,
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_twin_is_rejected(name, tmp_path):
    check, owner, attribute, wrong, copy = TWINS[name]
    if check in (loss, characters):
        pytest.importorskip("transformers")
    check(tmp_path / "right")
    with pytest.MonkeyPatch.context() as patch:
        twin = wrong(vars(owner)[attribute])
        patch.setattr(owner, attribute, twin)
        if copy:  # the test module imported the function by name
            patch.setattr(copy, attribute, twin)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(tmp_path / "wrong")
