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
from typing import TYPE_CHECKING, Any

from compiled_models.recipe import ANY_TARGET, Camera, Recipe, RecipeError, Source, read_recipe

if TYPE_CHECKING:
    from tinynn import Artifact
    from tinynn.ir import Graph

RECIPES = Path(__file__).parent / "recipes"
BUILD = Path(__file__).parent / "build"


def build_onnx(recipe: Recipe, out: Path) -> Path:
    """Write out/<name>.onnx and return its path."""
    path = out / f"{recipe.name}.onnx"
    write_whole(path, model_bytes(recipe.source, recipe.options))
    return path


def model_bytes(source: Source, options: dict[str, Any]) -> bytes:
    """The ONNX file of a source; options: of a stand-in."""
    if source.model is not None:
        return source.model.read_bytes()
    from compiled_models.standin import Options, build

    assert source.standin is not None  # a source is one or the other
    return build(source.standin, Options(**options)).SerializeToString()


def build_artifact(recipe: Recipe, onnx_path: Path, out: Path) -> Path:
    """Compile an ONNX file as the recipe says to out/<name>.tnn and return that path.

    Raises RecipeError, and writes nothing, if the artifact exceeds a budget of the recipe.
    """
    import tinynn

    path = out / f"{recipe.name}.tnn"
    model = onnx_path if recipe.camera is None else camera_program(recipe, recipe.camera, onnx_path)
    artifact = tinynn.compile(model, target=",".join(recipe.targets),
                              precision=recipe.precision, threads=recipe.threads,
                              state=recipe.state, shapes=recipe.shapes, progress=tell_progress)
    check_budget(recipe, artifact)
    artifact.save(path)
    return path


def camera_program(recipe: Recipe, camera: Camera, onnx_path: Path) -> Graph:
    """The model behind a warp and queues, as one graph. Raises ValueError if they do not fit."""
    from compiled_models.compose import FRAME_BYTES, compose
    from tinynn.onnx.reader import import_model

    graphs = [import_model(onnx_path)]
    graphs += [import_model(model_bytes(source, recipe.options)) for source in camera.more]
    return compose(graphs, camera.sampling, camera.frame_bytes or FRAME_BYTES)


def check_budget(recipe: Recipe, artifact: Artifact) -> None:
    """Raises RecipeError that names every exceeded budget, its value and its line."""
    if not any(recipe.budget.values()):
        return
    exceeded = []
    for position, name in enumerate(recipe.targets):
        resolved = artifact.manifest["targets"][position]["target"]
        level = resolved.partition("+")[0]  # without instructions beyond it
        allowed = {key: value for table in dict.fromkeys((ANY_TARGET, name, level, resolved))
                   for key, value in recipe.budget.get(table, {}).items()}
        used = costs(artifact, position) if allowed else {}
        exceeded += [f"{key} is {used[key]} for {resolved} and may be {value} "
                     f"(line {budget_line(recipe.path, key, value)})"
                     for key, value in allowed.items() if used[key] > value]
    if exceeded:
        raise RecipeError(f"{recipe.path}: over budget: {'; '.join(exceeded)}. Make the compiled "
                          "model smaller, or raise the number in that line and say why.")


def costs(artifact: Artifact, position: int) -> dict[str, int]:
    """What the target at a position of the artifact costs, by the names of BUDGETS."""
    from tinynn.explain import explain_artifact
    from tinynn.runtime.reader import read

    target = artifact.manifest["targets"][position]
    reader = read(artifact.to_bytes())
    explained = explain_artifact(reader, reader.manifest.targets[position])
    return {"kernels": len(target["steps"]), "arena_bytes": target["arena_nbytes"],
            "artifact_bytes": len(artifact.to_bytes()), "flop": target["expect"]["flop"],
            "predicted_us": round(explained.ns / 1000)}


def budget_line(path: Path, key: str, value: int) -> int:
    """The line of the recipe, counted from 1, that sets this budget to this value."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = ((number, re.search(rf"\b{key}\b[\"']?\s*=\s*([\d_]+)", line))
             for number, line in enumerate(lines, 1))
    return next(number for number, match in found if match and int(match[1]) == value)


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
