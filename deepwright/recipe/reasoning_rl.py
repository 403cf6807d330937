"""Stage `reasoning_rl`: R1-Zero's reinforcement learning from the cold start, with a reward for keeping to one language (R1 section 2.3.2).

Once more without that reward, at the same steps, it shows what the reward does."""

from __future__ import annotations

from deepwright.recipe.stage import Recipe

STAGE, WITHOUT = "reasoning_rl", "without_language_reward"


def run(recipe: Recipe) -> None:
    settings = recipe.settings.reasoning_rl
    rewarded = recipe.task_paying(settings.language_reward)
    recipe.reinforce(STAGE, recipe.model_of("cold_start", STAGE), rewarded, settings.rl)
    if settings.compare and rewarded != recipe.task:
        recipe.reinforce(WITHOUT, recipe.model_of("cold_start", WITHOUT), recipe.task, settings.rl)
