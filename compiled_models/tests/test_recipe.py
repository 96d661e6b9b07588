"""Recipes: the bundled ones are good, and every mistake is named."""
from pathlib import Path

import pytest

from compiled_models.recipe import BUDGETS, RecipeError, read_recipe, read_recipes
from compiled_models.standin import MODELS

GOOD = """
name = "tiny"
source = "standin:driving_policy"
targets = ["cpu"]
precision = "f32"
"""


def recipe_file(folder: Path, text: str, name: str = "tiny.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_bundled_recipes_cover_every_standin() -> None:
    recipes = read_recipes(Path(__file__).resolve().parents[1] / "recipes")
    assert sorted(r.standin for r in recipes if r.standin) == sorted(MODELS)
    for recipe in recipes:
        assert recipe.path.stem == recipe.name
        assert recipe.targets == ("cpu",)
        assert recipe.notes
        assert sorted(recipe.budget) == sorted(BUDGETS)


def test_a_full_recipe(tmp_path: Path) -> None:
    text = GOOD.replace('["cpu"]', '["cpu", "cpu:aarch64"]') + """
threads = 2
notes = "for a test"
[options]
seed = 4
compute = "f16"
[budget]
kernels = 40
arena_bytes = 1_000_000
"""
    recipe = read_recipe(recipe_file(tmp_path, text))
    assert recipe.name == "tiny"
    assert recipe.standin == "driving_policy"
    assert recipe.model is None
    assert recipe.targets == ("cpu", "cpu:aarch64")
    assert recipe.precision == "f32"
    assert recipe.threads == 2
    assert recipe.options == {"seed": 4, "compute": "f16"}
    assert recipe.notes == "for a test"
    assert recipe.budget == {"kernels": 40, "arena_bytes": 1_000_000}


def test_an_onnx_source_is_seen_from_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "m.onnx").write_bytes(b"model")
    (tmp_path / "recipes").mkdir()
    text = GOOD.replace("standin:driving_policy", "../trained/m.onnx")
    recipe = read_recipe(recipe_file(tmp_path / "recipes", text))
    assert recipe.model == tmp_path / "trained" / "m.onnx"
    assert recipe.standin is None
    assert recipe.threads is None


@pytest.mark.parametrize(("text", "message"), [
    ("name = ", "not valid TOML"),
    ("", "missing name, source, targets, precision"),
    (GOOD.replace('precision = "f32"', ""), "missing precision"),
    (GOOD + "target = 'cpu'", "unknown key target; known are name, source, targets"),
    (GOOD.replace('"tiny"', "3"), "name must be a text, got 3"),
    (GOOD.replace('"tiny"', '"../x"'), "name '../x' names files"),
    (GOOD.replace('["cpu"]', '"cpu"'), "targets must be a list, got 'cpu'"),
    (GOOD.replace('["cpu"]', "[]"), "targets must be a list of texts"),
    (GOOD.replace('["cpu"]', "[1]"), "targets must be a list of texts"),
    (GOOD + "threads = 0", "threads must be at least 1, got 0"),
    (GOOD + "threads = true", "threads must be a whole number, got True"),
    (GOOD.replace("driving_policy", "nope"), "no stand-in model 'nope'; known are supercombo_08"),
    (GOOD + "[options]\nsed = 1", "unknown option sed; known are seed, weights"),
    (GOOD + "[options]\nweights = 'f64'", "weights must be one of f16, f32; got 'f64'"),
    (GOOD + "budget = 3", "budget must be a table, got 3"),
    (GOOD + "[budget]\nkernel = 1", "unknown budget kernel; known are kernels, arena_bytes"),
    (GOOD + "[budget]\nkernels = 1.5", "in [budget], kernels must be a whole number, got 1.5"),
    (GOOD + "[budget]\nflop = -1", "in [budget], flop must be a whole number, got -1"),
    (GOOD.replace("standin:driving_policy", "x.onnx"), "x.onnx is not there"),
    (GOOD.replace("standin:driving_policy", "x.onnx") + "[options]\nseed = 1",
     "belong to stand-in models"),
])
def test_mistakes_are_named_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = recipe_file(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent.toml: the recipe cannot be read \(No such file"):
        read_recipe(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(RecipeError, match=r"latin.toml: the recipe is not UTF-8"):
        read_recipe(tmp_path / "latin.toml")


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    recipe_file(tmp_path, GOOD, "a.toml")
    recipe_file(tmp_path, GOOD, "b.toml")
    with pytest.raises(RecipeError, match=r"b.toml: name 'tiny' is already taken by .*a.toml"):
        read_recipes(tmp_path)
