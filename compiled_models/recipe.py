"""Recipes: small TOML files that say which model is compiled, from what, and for which target.

    name = "driving_supercombo"             # of the results: <name>.onnx, <name>.tnn
    source = "standin:driving_supercombo"   # or an ONNX file, its path seen from the recipe
    targets = ["cpu"]                       # one or more targets of `tinynn compile`
    precision = "f32"                       # optional: what suits each target
    threads = 2                             # optional; decided when loaded if absent
    notes = "..."                           # optional, for people

    [options]                               # only with standin:; fields of standin.Options
    seed = 0

    [state]                                 # optional: the program keeps these between runs
    queue = "next_queue"                    # input = the output that is its next value

    [shapes]                                # optional, for inputs whose shape the model leaves open
    images = [1, 3, 360, 640]

    [camera]                                # optional: a program from camera frames, see compose.py
    sampling = "nearest"                    # or "bilinear"
    frame_bytes = 4_194_304                 # optional: room for an NV12 frame
    policy = "standin:driving_policy"       # optional: more graphs of the same model, as `source`
    off_policy = "../trained/off_policy.onnx"

    [budget]                                # optional: the build fails if one is exceeded
    kernels = 180                           # launches in one run
    arena_bytes = 6_000_000                 # scratch memory of one run
    artifact_bytes = 65_000_000             # the whole file
    flop = 2_000_000_000                    # arithmetic operations in one run

    [budget."cpu:x86-64-v4"]                # for one target, before the numbers for all
    predicted_us = 9_000                    # time of one run, as `tinynn explain` predicts it
"""
from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

STANDIN_PREFIX = "standin:"
REQUIRED = {"name": str, "source": str, "targets": list}
OPTIONAL = {"precision": str, "threads": int, "notes": str, "options": dict, "state": dict,
            "shapes": dict, "camera": dict, "budget": dict}
CAMERA = {"sampling": str, "frame_bytes": int, "policy": str, "off_policy": str}
BUDGETS = ("kernels", "arena_bytes", "artifact_bytes", "flop", "predicted_us")
ANY_TARGET = ""
KINDS = {str: "a text", list: "a list", int: "a whole number", dict: "a table"}


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the file, the key and what to do."""


@dataclass(frozen=True)
class Source:
    """Where an ONNX file comes from: a path, or the name of a stand-in."""

    model: Path | None
    standin: str | None


@dataclass(frozen=True)
class Camera:
    """A program from camera frames to outputs: what `compose` is told. more: graphs behind the
    first one, in its order: off-policy, policy."""

    sampling: str
    frame_bytes: int | None
    more: tuple[Source, ...]


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    path: of the TOML file. source: of the model. targets: one or more. precision, threads, state,
    shapes: as `tinynn.compile` takes them. options: of stand-ins. camera: None compiles the model
    as it is. budget: target, or ANY_TARGET -> keys of BUDGETS -> largest value allowed.
    """

    path: Path
    name: str
    source: Source
    targets: tuple[str, ...]
    precision: str | None = None
    threads: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    state: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    camera: Camera | None = None
    budget: dict[str, dict[str, int]] = field(default_factory=dict)


def read_recipe(path: Path) -> Recipe:
    """Read and check one recipe. Raises RecipeError; the ONNX source must exist."""
    table = read_table(path)
    check_keys(path, table)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", table["name"]):
        raise RecipeError(f"{path}: name {table['name']!r} names files; use letters, digits, "
                          "'_', '-' and '.', starting with a letter or digit.")
    options = table.get("options", {})
    source = read_source(path, table["source"], options)
    return Recipe(path, table["name"], source, tuple(table["targets"]), table.get("precision"),
                  table.get("threads"), options, table.get("notes", ""),
                  read_state(path, table), read_shapes(path, table),
                  read_camera(path, table["camera"], options) if "camera" in table else None,
                  read_budget(path, table))


def read_source(path: Path, text: str, options: dict[str, Any]) -> Source:
    """A stand-in that exists and takes the options, or a file that is there."""
    if text.startswith(STANDIN_PREFIX):
        standin = text.removeprefix(STANDIN_PREFIX)
        check_standin(path, standin, options)
        return Source(None, standin)
    if options:
        raise RecipeError(f"{path}: [options] belong to stand-in models, but source is the file "
                          f"{text!r}. Remove them or use source = \"{STANDIN_PREFIX}...\".")
    model = (path.parent / text).resolve()
    if not model.is_file():
        raise RecipeError(f"{path}: the source {model} is not there. Put the ONNX file there "
                          f"or use a stand-in (source = \"{STANDIN_PREFIX}...\").")
    return Source(model, None)


def read_camera(path: Path, table: dict[str, Any], options: dict[str, Any]) -> Camera:
    """The table [camera], whose values `compose` checks further."""
    for key, value in table.items():
        if key not in CAMERA:
            raise RecipeError(f"{path}: unknown key {key} in [camera]; known are "
                              f"{', '.join(CAMERA)}.")
        if type(value) is not CAMERA[key]:
            raise RecipeError(f"{path}: in [camera], {key} must be {KINDS[CAMERA[key]]}, got "
                              f"{value!r}.")
    more = [table[key] for key in ("off_policy", "policy") if key in table]
    return Camera(table.get("sampling", "nearest"), table.get("frame_bytes"),
                  tuple(read_source(path, text, options) for text in more))


def read_recipes(folder: Path) -> list[Recipe]:
    """All recipes of a folder, sorted by name. Raises RecipeError, also if two share a name."""
    recipes: dict[str, Recipe] = {}
    for path in sorted(folder.glob("*.toml")):
        recipe = read_recipe(path)
        if recipe.name in recipes:
            raise RecipeError(f"{path}: name {recipe.name!r} is already taken by "
                              f"{recipes[recipe.name].path}. Give one of them another name.")
        recipes[recipe.name] = recipe
    return [recipes[name] for name in sorted(recipes)]


def read_table(path: Path) -> dict[str, Any]:
    """The TOML file as plain data. Raises RecipeError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: the recipe is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: the recipe is not valid TOML: {error}.") from None


def check_keys(path: Path, table: dict[str, Any]) -> None:
    """Required keys are there, no others but the optional ones, all of the right type."""
    known = REQUIRED | OPTIONAL
    missing = [key for key in REQUIRED if key not in table]
    unknown = [key for key in table if key not in known]
    if missing:
        raise RecipeError(f"{path}: missing {', '.join(missing)}. A recipe has the keys "
                          f"{', '.join(REQUIRED)} and may have {', '.join(OPTIONAL)}.")
    if unknown:
        raise RecipeError(f"{path}: unknown key {', '.join(unknown)}; "
                          f"known are {', '.join(known)}.")
    for key, value in table.items():
        if type(value) is not known[key]:
            raise RecipeError(f"{path}: {key} must be {KINDS[known[key]]}, got {value!r}.")
    targets = table["targets"]
    if not targets or not all(isinstance(target, str) for target in targets):
        raise RecipeError(f"{path}: targets must be a list of texts, for instance [\"cpu\"], "
                          f"got {targets!r}.")
    if table.get("threads", 1) < 1:
        raise RecipeError(f"{path}: threads must be at least 1, got {table['threads']}.")


def read_state(path: Path, table: dict[str, Any]) -> dict[str, str]:
    """Input -> output, all of them texts; the compiler knows whether they exist."""
    state = table.get("state", {})
    for name, output in state.items():
        if not isinstance(output, str):
            raise RecipeError(f"{path}: in [state], {name} must be the name of an output, got "
                              f"{output!r}.")
    return state


def read_shapes(path: Path, table: dict[str, Any]) -> dict[str, list[int]]:
    """Input -> sizes."""
    shapes = table.get("shapes", {})
    for name, shape in shapes.items():
        sizes = shape if isinstance(shape, list) else [None]
        if any(type(size) is not int or size < 0 for size in sizes):
            raise RecipeError(f"{path}: in [shapes], {name} must be a list of sizes, got "
                              f"{shape!r}.")
    return shapes


def read_budget(path: Path, table: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Target, or ANY_TARGET -> known keys -> whole numbers. Tables inside are for one target."""
    budget = table.get("budget", {})
    found = {name: value for name, value in budget.items() if isinstance(value, dict)}
    found[ANY_TARGET] = {name: value for name, value in budget.items() if name not in found}
    for target, numbers in found.items():
        where = f'[budget."{target}"]' if target else "[budget]"
        unknown = [key for key in numbers if key not in BUDGETS]
        if unknown:
            raise RecipeError(f"{path}: unknown budget {', '.join(unknown)}; "
                              f"known are {', '.join(BUDGETS)}.")
        for key, value in numbers.items():
            if type(value) is not int or value < 0:
                raise RecipeError(f"{path}: in {where}, {key} must be a whole number, got "
                                  f"{value!r}.")
    return found


def check_standin(path: Path, name: str, options: dict[str, Any]) -> None:
    """The stand-in exists and takes these options."""
    from compiled_models.standin import MODELS, Options

    if name not in MODELS:
        raise RecipeError(f"{path}: there is no stand-in model {name!r}; "
                          f"known are {', '.join(MODELS)}.")
    known = [item.name for item in fields(Options)]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise RecipeError(f"{path}: unknown option {', '.join(unknown)}; "
                          f"known are {', '.join(known)}.")
    try:
        Options(**options)
    except ValueError as error:
        raise RecipeError(f"{path}: in [options], {error}.") from None
