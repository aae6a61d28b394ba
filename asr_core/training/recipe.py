"""The name ``Recipe`` of version 0.1 for what is now :class:`AsrRecipe`."""

from asr_core.training.asr_recipe import AsrRecipe as Recipe

__all__ = ["Recipe"]
