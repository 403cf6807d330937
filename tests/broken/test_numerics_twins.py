"""Wrong variants of what keeps numbers finite, each rejected by a named test."""

import pytest
import torch

from deepwright.inference import sampling
from deepwright.numerics import build, formats
from deepwright.rl import advantages
from deepwright.tasks import requests
from deepwright.text.languages import LANGUAGES, consistency
from tests.broken.patched import must_reject
from tests.inference import test_sampling
from tests.numerics import test_build, test_formats
from tests.rl import test_extremes as extremes
from tests.tasks import test_requests


def squares_that_overflow(original):
    """In float64, without a unit of its own: of a reward of 1e155 the square is infinite."""

    def standardised(rewards):
        if len(set(rewards)) <= 1:
            return [0.0] * len(rewards)
        r = torch.tensor(rewards, dtype=torch.float64)
        return ((r - r.mean()) / (r.std(correction=0) + advantages.EPSILON)).tolist()

    return standardised


def test_advantages_whose_squares_overflow(tmp_path):
    check = extremes.check_standardised_against_fractions
    must_reject(check, advantages, "group_standardised", squares_that_overflow, tmp_path)


def unit_forgotten(original):
    return lambda values: (original(values)[0], 1.0)


def test_means_left_in_units(tmp_path):
    check = extremes.check_mean_and_deviation_against_fractions
    must_reject(check, advantages, "in_range", unit_forgotten, tmp_path)


def numbers_taken_on_trust(original):
    return lambda numbers_R: None


def the_first_row_speaks_for_all(original):
    return lambda numbers_R: original(numbers_R[:1])


@pytest.mark.parametrize("wrong", [numbers_taken_on_trust, the_first_row_speaks_for_all])
def test_a_sampler_that_lets_not_a_number_through(wrong, tmp_path):
    check = test_sampling.check_logits_that_are_no_numbers_are_refused
    must_reject(check, sampling, "_require_finite", wrong, tmp_path)


def any_file_of_that_name(original):
    return lambda path: path.is_file()


def bytes_alone(original):
    """What others may write to counts, if only its bytes are right for now."""
    return lambda path: path.name.split(".")[-2] == build._digest(path)


@test_build.pytestmark
@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (any_file_of_that_name, test_build.check_a_library_is_found_again_and_only_as_it_was_built),
        (bytes_alone, test_build.check_what_others_can_write_is_not_used),
    ],
)
def test_compiled_code_loaded_on_trust(wrong, check, tmp_path, monkeypatch):
    good = build.library(test_build.SYMBOLS)
    monkeypatch.setattr(build, "_try", lambda made, symbols: None)
    monkeypatch.setenv("CC", str(test_build.compiler(tmp_path, f'cp {good} "$target"')))

    def in_a_folder(folder):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        monkeypatch.setenv("HOME", str(folder / "home"))
        place = folder / "deepwright"
        check(*((place, good) if check.__code__.co_argcount == 2 else (place,)))

    must_reject(in_a_folder, build, "_is_what_was_built", wrong, tmp_path)


def what_the_processor_says_of_itself(original):
    """Instructions for bfloat16 mean that it is faster: half the speed on some processors."""

    def chosen(name):
        has = any(flag in build.processor_flags() for flag in ("avx512_bf16", "amx_bf16", "bf16"))
        return (torch.bfloat16 if has else torch.float32), "the processor says so"

    return chosen


@pytest.mark.skipif(torch.cuda.is_available(), reason="an accelerator decides by itself")
def test_a_format_chosen_by_what_the_processor_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def check():
        with pytest.MonkeyPatch.context() as patch:
            test_formats.check_both_answers_are_reached(patch)

    must_reject(check, formats, "compute_dtype", what_the_processor_says_of_itself, tmp_path)
    formats._held.cache_clear()


def words_of_no_language_are_nobody_s_matter(original):
    """A name, a polite beginning, no word of the other language, none three times: what is more
    than that is not looked at."""

    def helpful(request, answer):
        said = answer.split()
        named = [word for word in said if word in requests.CLASS_OF]
        people = {word for word in said if word in requests.PEOPLE}
        on_topic = people == {request.what}
        if request.count:
            on_topic = len(set(named)) == len(named) == request.count
        first = [one.says[request.verb][1].split()[:1] for one in LANGUAGES.values()]
        own = consistency(answer, request.language) in (1, None)
        concise = len(said) <= 10 and all(said.count(word) <= 2 for word in said)
        return (on_topic + (said[:1] in first) + own + concise) / 4

    return helpful


@pytest.mark.parametrize(
    "check",
    [test_requests.check_no_attack_is_paid, test_requests.check_nothing_undeserved_is_right],
)
def test_requests_that_pay_for_words_of_nobody(check, tmp_path):
    must_reject(check, requests, "helpful", words_of_no_language_are_nobody_s_matter, tmp_path)
