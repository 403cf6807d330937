"""How good a model is: repeated sampling on verifiable problems, estimates with error bars, and where a rise came from."""

from deepwright.evaluate.budget import Budgeted, votes
from deepwright.evaluate.decomposition import Decomposition, decompose
from deepwright.evaluate.evaluation import Evaluation, Generation, evaluate, write_generations

__all__ = [
    "Budgeted",
    "Decomposition",
    "Evaluation",
    "Generation",
    "decompose",
    "evaluate",
    "votes",
    "write_generations",
]
