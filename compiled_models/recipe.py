"""Recipes: small TOML files that say which model is compiled, from what, and for which target.

    name = "driving_supercombo"             # of the results: <name>.onnx, <name>.tnn
    source = "standin:driving_supercombo"   # or an ONNX file, its path seen from the recipe
    targets = ["cpu"]                       # one or more targets of `tinynn compile`
    precision = "f32"
    threads = 2                             # optional; decided when loaded if absent
    notes = "..."                           # optional, for people

    [options]                               # only with standin:; fields of standin.Options
    seed = 0

    [budget]                                # optional: the build fails if one is exceeded
    kernels = 180                           # launches in one run
    arena_bytes = 6_000_000                 # scratch memory of one run
    artifact_bytes = 65_000_000             # the whole file
    flop = 2_000_000_000                    # arithmetic operations in one run
"""
from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

STANDIN_PREFIX = "standin:"
REQUIRED = {"name": str, "source": str, "targets": list, "precision": str}
OPTIONAL = {"threads": int, "notes": str, "options": dict, "budget": dict}
BUDGETS = ("kernels", "arena_bytes", "artifact_bytes", "flop")
KINDS = {str: "a text", list: "a list", int: "a whole number", dict: "a table"}


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the file, the key and what to do."""


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    path: of the TOML file. model: ONNX file, or None for a stand-in. standin: name of the stand-in
    model, or None. targets: one or more. precision, threads: as `tinynn.compile` takes them.
    budget: keys of BUDGETS -> largest value allowed, for each target.
    """

    path: Path
    name: str
    model: Path | None
    standin: str | None
    targets: tuple[str, ...]
    precision: str
    threads: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    budget: dict[str, int] = field(default_factory=dict)


def read_recipe(path: Path) -> Recipe:
    """Read and check one recipe. Raises RecipeError; the ONNX source must exist."""
    table = read_table(path)
    check_keys(path, table)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", table["name"]):
        raise RecipeError(f"{path}: name {table['name']!r} names files; use letters, digits, "
                          "'_', '-' and '.', starting with a letter or digit.")
    source = table["source"]
    options = table.get("options", {})
    budget = table.get("budget", {})
    check_budget(path, budget)
    standin = model = None
    if source.startswith(STANDIN_PREFIX):
        standin = source.removeprefix(STANDIN_PREFIX)
        check_standin(path, standin, options)
    elif options:
        raise RecipeError(f"{path}: [options] belong to stand-in models, but source is the file "
                          f"{source!r}. Remove them or use source = \"{STANDIN_PREFIX}...\".")
    else:
        model = (path.parent / source).resolve()
        if not model.is_file():
            raise RecipeError(f"{path}: the source {model} is not there. Put the ONNX file there "
                              f"or use a stand-in (source = \"{STANDIN_PREFIX}...\").")
    return Recipe(path, table["name"], model, standin, tuple(table["targets"]),
                  table["precision"], table.get("threads"), options, table.get("notes", ""),
                  budget)


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


def check_budget(path: Path, budget: dict[str, Any]) -> None:
    """Known keys, whole numbers."""
    unknown = [key for key in budget if key not in BUDGETS]
    if unknown:
        raise RecipeError(f"{path}: unknown budget {', '.join(unknown)}; "
                          f"known are {', '.join(BUDGETS)}.")
    for key, value in budget.items():
        if type(value) is not int or value < 0:
            raise RecipeError(f"{path}: in [budget], {key} must be a whole number, got {value!r}.")


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
