"""Build the artifact of a recipe: `python -m compiled_models.build RECIPE [--out DIR]`.

Two steps, so that `scons` can skip either: the ONNX file (written for a stand-in, else copied),
then the artifact from it. Results are <name>.onnx and <name>.tnn in DIR.
"""
from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from compiled_models.recipe import Recipe, RecipeError, read_recipe

if TYPE_CHECKING:
    from tinynn import Artifact

RECIPES = Path(__file__).parent / "recipes"
BUILD = Path(__file__).parent / "build"


def build_onnx(recipe: Recipe, out: Path) -> Path:
    """Write out/<name>.onnx and return its path."""
    path = out / f"{recipe.name}.onnx"
    if recipe.model is not None:
        data = recipe.model.read_bytes()
    else:
        from compiled_models.standin import Options, build

        assert recipe.standin is not None  # a recipe has one source or the other
        data = build(recipe.standin, Options(**recipe.options)).SerializeToString()
    write_whole(path, data)
    return path


def build_artifact(recipe: Recipe, onnx_path: Path, out: Path) -> Path:
    """Compile an ONNX file as the recipe says to out/<name>.tnn and return that path.

    Raises RecipeError, and writes nothing, if the artifact exceeds a budget of the recipe.
    """
    import tinynn

    path = out / f"{recipe.name}.tnn"
    artifact = tinynn.compile(onnx_path, target=",".join(recipe.targets),
                              precision=recipe.precision, threads=recipe.threads,
                              progress=tell_progress)
    check_budget(recipe, artifact)
    artifact.save(path)
    return path


def check_budget(recipe: Recipe, artifact: Artifact) -> None:
    """Raises RecipeError that names every exceeded budget, its value and its line."""
    if not recipe.budget:
        return
    targets = artifact.manifest["targets"]
    used = {"kernels": max(len(target["steps"]) for target in targets),
            "arena_bytes": max(target["arena_nbytes"] for target in targets),
            "artifact_bytes": len(artifact.to_bytes()),
            "flop": max(target["expect"]["flop"] for target in targets)}
    exceeded = [f"{key} is {used[key]} and may be {allowed} (line {budget_line(recipe.path, key)})"
                for key, allowed in recipe.budget.items() if used[key] > allowed]
    if exceeded:
        raise RecipeError(f"{recipe.path}: over budget: {'; '.join(exceeded)}. Make the compiled "
                          "model smaller, or raise the number in that line and say why.")


def budget_line(path: Path, key: str) -> int:
    """The line of the recipe, counted from 1, that sets this budget."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1)
                if re.search(rf"\b{key}\b[\"']?\s*=", line))


def tell_progress(stage: str, seconds: float | None) -> None:
    """One line per finished stage of the compiler."""
    if seconds is not None:
        print(f"  {stage}: {seconds:.1f} s", flush=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that an interrupted build leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def find_recipe(text: str) -> Path:
    """The path of a recipe given as a path or as the name of one in compiled_models/recipes."""
    path = Path(text)
    if path.suffix == ".toml":
        return path
    return RECIPES / f"{text}.toml"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status: 0, or 2 for an error told in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m compiled_models.build",
        description="Compile the model of a recipe.",
    )
    parser.add_argument("recipe", help="a .toml file, or the name of one in recipes/")
    parser.add_argument("--out", type=Path, default=BUILD, help=f"folder (default {BUILD})")
    parser.add_argument("--step", choices=("onnx", "artifact"),
                        help="only this step; \"artifact\" takes OUT/<name>.onnx as it lies there")
    args = parser.parse_args(arguments)
    try:
        recipe = read_recipe(find_recipe(args.recipe))
        onnx_path = args.out / f"{recipe.name}.onnx"
        if args.step != "artifact":
            onnx_path = build_onnx(recipe, args.out)
            report(onnx_path)
        if args.step != "onnx":
            report(build_artifact(recipe, onnx_path, args.out))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"compiled_models.build: {error}", file=sys.stderr)
        return 2
    return 0


def report(path: Path) -> None:
    """One line: what was written and how large it is."""
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
