"""Recipes: the bundled ones are good, and every mistake is named."""
from pathlib import Path

import pytest

from compiled_models.recipe import (
    BUDGETS,
    Camera,
    RecipeError,
    Source,
    read_recipe,
    read_recipes,
)
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
    plain = [r.source.standin for r in recipes if r.source.standin and not r.camera]
    assert sorted(plain) == sorted(MODELS)
    for recipe in recipes:
        assert recipe.path.stem == recipe.name
        assert recipe.targets == ("cpu",) or not recipe.source.standin
        assert recipe.notes
        named = {key for numbers in recipe.budget.values() for key in numbers}
        assert named == set(BUDGETS)


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
[budget."cpu:aarch64"]
kernels = 50
predicted_us = 7
[state]
queue = "next_queue"
[shapes]
img = [1, 12]
[camera]
sampling = "bilinear"
frame_bytes = 1_000
policy = "standin:driving_policy"
off_policy = "standin:driving_vision"
"""
    recipe = read_recipe(recipe_file(tmp_path, text))
    assert recipe.name == "tiny"
    assert recipe.source == Source(None, "driving_policy")
    assert recipe.targets == ("cpu", "cpu:aarch64")
    assert recipe.precision == "f32"
    assert recipe.threads == 2
    assert recipe.options == {"seed": 4, "compute": "f16"}
    assert recipe.notes == "for a test"
    assert recipe.budget == {"": {"kernels": 40, "arena_bytes": 1_000_000},
                             "cpu:aarch64": {"kernels": 50, "predicted_us": 7}}
    assert recipe.state == {"queue": "next_queue"}
    assert recipe.shapes == {"img": [1, 12]}
    assert recipe.camera == Camera("bilinear", 1000, (Source(None, "driving_vision"),
                                                      Source(None, "driving_policy")))


def test_an_onnx_source_is_seen_from_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "m.onnx").write_bytes(b"model")
    (tmp_path / "recipes").mkdir()
    text = GOOD.replace("standin:driving_policy", "../trained/m.onnx")
    recipe = read_recipe(recipe_file(tmp_path / "recipes", text))
    assert recipe.source == Source(tmp_path / "trained" / "m.onnx", None)
    assert recipe.threads is None


@pytest.mark.parametrize(("text", "message"), [
    ("name = ", "not valid TOML"),
    ("", "missing name, source, targets"),
    (GOOD.replace('name = "tiny"', ""), "missing name"),
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
    (GOOD + "[budget.cpu]\nflop = 'x'", "in [budget.\"cpu\"], flop must be a whole number"),
    (GOOD + "[budget.cpu]\nkernel = 1", "unknown budget kernel; known are kernels, arena_bytes"),
    (GOOD + "[state]\na = 1", "in [state], a must be the name of an output, got 1"),
    (GOOD + "[shapes]\na = [1, -1]", "in [shapes], a must be a list of sizes, got [1, -1]"),
    (GOOD + "[camera]\nsample = 1", "unknown key sample in [camera]; known are sampling, frame"),
    (GOOD + "[camera]\nsampling = 1", "in [camera], sampling must be a text, got 1"),
    (GOOD + "[camera]\npolicy = 'none.onnx'", "none.onnx is not there"),
    (GOOD + "[shapes]\na = 4", "in [shapes], a must be a list of sizes, got 4"),
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
