"""Real models by name, by folder, or by hub id; always as a folder that transformers and vLLM load."""

from __future__ import annotations

from onceedit_vllm.models.recipes import RECIPES, Recipe
from onceedit_vllm.models.resolve import cached_model, fetch_model, known_models, resolve_model

__all__ = ["RECIPES", "Recipe", "cached_model", "fetch_model", "known_models", "resolve_model"]
