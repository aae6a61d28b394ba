"""The former name of :class:`~asr_core.training.asr_recipe.AsrRecipe`, for recipes written before."""

from asr_core.training.asr_recipe import AsrRecipe as Recipe

__all__ = ["Recipe"]
