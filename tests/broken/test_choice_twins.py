"""Wrong twins of what is chosen and kept: each makes one mistake, and a named check must reject it."""

import pytest

from deepwright.recipe import choices, command
from deepwright.rl import measures
from deepwright.tasks.user_reward import UserReward
from deepwright.train import checkpoint
from tests.broken.patched import must_reject
from tests.recipe import test_choices as rules
from tests.recipe import test_command as checks
from tests.rl import test_grpo as loop


def the_laptop_s_rate(_):
    return lambda *_: 4e-4


def chosen_again(_):
    return lambda *_: {}


def named_or_not(_):
    """Choices lie over what the user named."""

    def take(self, setting, value, reason):
        self.choices.append(choices.Choice(setting, value, reason))
        return value

    return take


def never_tried(_):
    return lambda self: None


def no_round_is_lost(_):
    return 0


def any_length(_):
    return lambda old, new: True


GROWS = loop.test_more_steps_go_on_and_fewer_are_another_run
TWINS = [
    (rules.test_a_language_model_gets_what_its_own_config_found, choices, "rate_of", the_laptop_s_rate),
    (rules.test_what_is_named_wins_and_the_rest_follows, choices.Taking, "__call__", named_or_not),
    (checks.check_chooses_once, command, "_kept", chosen_again),
    (checks.check_broken_rewards, UserReward, "try_once", never_tried),
    (loop.check_lost_rounds, measures, "LEAST_JUDGED", no_round_is_lost),
    (GROWS, checkpoint, "grew", any_length),
]  # fmt: skip


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[f"{twin[2]}, {twin[3].__name__}" for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
