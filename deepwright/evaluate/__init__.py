"""How good a model is: repeated sampling on verifiable problems, estimates with error bars, and where a rise came from."""

from deepwright.evaluate.decomposition import Decomposition, decompose
from deepwright.evaluate.evaluation import Evaluation, Generation, evaluate, write_generations

__all__ = ["Decomposition", "Evaluation", "Generation", "decompose", "evaluate", "write_generations"]
