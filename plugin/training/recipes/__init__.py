"""What settings training takes unless somebody gives others, by data set, network, method and radius; one file each."""

from plugin.training.recipes.recipe import FACTOR, Case, Recipe, Settings, stretched
from plugin.training.recipes.shelf import DEFAULT, is_file, list_recipes, read_recipe

__all__ = ["DEFAULT", "FACTOR", "Case", "Recipe", "Settings", "is_file", "list_recipes", "read_recipe", "stretched"]
