"""SConstruct: what is rebuilt when, in a copy of the project with a compiler that only copies."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = '''
class Artifact:
    def __init__(self, data):
        self.data = data
    def save(self, path):
        path.write_bytes(self.data)
def compile(path, **options):
    return Artifact(b"compiled " + path.read_bytes())
'''
RECIPE = 'name = "{0}"\nsource = "../{0}.bin"\ntargets = ["cpu"]\nprecision = "f32"\n'
POLICY = RECIPE.format("policy").replace("../policy.bin", "standin:driving_policy")


def names_built(shown: str) -> set[str]:
    """The files that scons wrote, or with -n would write."""
    return set(re.findall(r"^(?:Writing|Compiling) (\S+)$", shown, re.MULTILINE))


def scons(project: Path, *arguments: str, status: int = 0) -> str:
    """Run scons in the project, no program but a shell in reach; returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = str(project / "programs")
    done = subprocess.run([sys.executable, "-m", "SCons", "-Q", *arguments], cwd=project,
                          env=environment, capture_output=True, text=True, timeout=300,
                          check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two ONNX sources and one stand-in, built once."""
    project = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "SConstruct", project)
    shutil.copytree(ROOT / "compiled_models", project / "compiled_models",
                    ignore=shutil.ignore_patterns("build", "recipes", "tests", "__pycache__"))
    recipes = project / "compiled_models" / "recipes"
    recipes.mkdir()
    for name in ("one", "two"):
        (recipes / f"{name}.toml").write_text(RECIPE.format(name))
        (recipes.parent / f"{name}.bin").write_text(name)
    (recipes / "policy.toml").write_text(POLICY)
    (project / "tinynn" / "tests").mkdir(parents=True)
    (project / "tinynn" / "__init__.py").write_text(COMPILER)
    (project / "tinynn" / "machine.py").write_text(
        'def resolve_target(target):\n    return f"{target}:here"\n')
    (project / "tinynn" / "tests" / "test_x.py").write_text("")
    (project / "programs").mkdir()
    (project / "programs" / "sh").symlink_to("/bin/sh")
    shown = scons(project)
    assert len(names_built(shown)) == 6
    return project


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A fresh copy of the built project, so that tests do not see each other's changes."""
    copy = tmp_path / "project"
    shutil.copytree(built, copy, symlinks=True)
    return copy


def test_results_are_there(built: Path) -> None:
    out = built / "compiled_models" / "build"
    assert (out / "one.tnn").read_bytes() == b"compiled one"
    model = (out / "policy.onnx").read_bytes()
    assert (out / "policy.tnn").read_bytes() == b"compiled " + model


def test_nothing_is_rebuilt_the_second_time(project: Path) -> None:
    assert names_built(scons(project)) == set()
    scons(project, "-q", status=0)
    for name in ("one", "two", "policy"):
        os.utime(project / "compiled_models" / "recipes" / f"{name}.toml")  # time is not content
    scons(project, "-q", status=0)


def test_a_changed_recipe_rebuilds_only_its_model(project: Path) -> None:
    recipe = project / "compiled_models" / "recipes" / "one.toml"
    recipe.write_text(recipe.read_text() + "threads = 2\n")
    assert names_built(scons(project, "-n")) == {"one.onnx", "one.tnn"}


def test_a_changed_source_rebuilds_only_its_model(project: Path) -> None:
    (project / "compiled_models" / "two.bin").write_text("two, trained longer")
    assert names_built(scons(project)) == {"two.onnx", "two.tnn"}
    result = project / "compiled_models" / "build" / "two.tnn"
    assert result.read_bytes() == b"compiled two, trained longer"


def test_a_changed_standin_builder_concerns_only_standins(project: Path) -> None:
    layers = project / "compiled_models" / "standin" / "layers.py"
    layers.write_text(layers.read_text() + "\n# A remark.\n")
    # The remark changes no byte of the model, so nothing is compiled.
    assert names_built(scons(project)) == {"policy.onnx"}


def test_a_changed_compiler_recompiles_everything_but_its_tests_do_not(project: Path) -> None:
    (project / "tinynn" / "tests" / "test_x.py").write_text("assert True\n")
    scons(project, "-q", status=0)
    machine = project / "tinynn" / "machine.py"
    machine.write_text(machine.read_text() + "\n# A remark.\n")
    assert names_built(scons(project, "-n")) == {"one.tnn", "two.tnn", "policy.tnn"}


def test_another_machine_recompiles(project: Path) -> None:
    machine = project / "tinynn" / "machine.py"
    machine.write_text('def resolve_target(target):\n    return f"{target}:there"\n')
    assert "one.tnn" in names_built(scons(project, "-n", "one"))


def test_one_name_builds_one_model_and_clean_removes(project: Path) -> None:
    out = project / "compiled_models" / "build"
    scons(project, "-c")
    assert not list(out.glob("*"))
    assert names_built(scons(project, "one")) == {"one.onnx", "one.tnn"}
    assert sorted(path.name for path in out.iterdir()) == ["one.onnx", "one.tnn"]
    assert {"two.tnn", "policy.tnn"} < names_built(scons(project, "-n"))


def test_a_bad_recipe_stops_with_one_line(project: Path) -> None:
    recipe = project / "compiled_models" / "recipes" / "one.toml"
    recipe.write_text("name = 3\n")
    shown = scons(project, status=2)
    assert shown.startswith(f"scons: {recipe}: missing source, targets.")
    assert "Traceback" not in shown


def test_a_failed_compile_fails_the_build(project: Path) -> None:
    (project / "tinynn" / "__init__.py").write_text(
        'def compile(path, **options):\n    raise ValueError("no such op")\n')
    shown = scons(project, "one", status=2)
    assert "compiled_models.build: no such op" in shown
    assert "Traceback" not in shown
