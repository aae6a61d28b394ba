"""The name that :class:`AsrRecipe` had in version 0.1, ``Recipe``."""

from asr_core.training.asr_recipe import AsrRecipe as Recipe

__all__ = ["Recipe"]
