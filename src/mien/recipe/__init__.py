"""Recipes: the settings of a run, how they are loaded and changed, and the recipes that ship (*.yaml)."""
