"""One archive with everything a comma device needs, installed without a network.

    ./run bundle --device                       # the stand-in model, for the processor
    ./run bundle --device --model mine.tnn      # your artifact; several are possible

The archive holds our packages, the wheels of what they need for aarch64, the artifacts and
`install.sh`. It is the same bytes for the same versions of all of them.
"""
from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tinynn.runtime.layout import ArtifactError
from tinynn.runtime.reader import read

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("messaging", "modeld", "tinynn")
KINDS = {".py", ".capnp", ".c", ".h", ".cl"}
LAUNCHER = "tinynn/runtime/launcher-aarch64.so"
STANDIN = "driving_supercombo"
TARGET = "cpu:aarch64"
PYTHONS = ("3.11", "3.12")  # what the systems of comma devices have had since 2023
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64",
             "manylinux2014_aarch64")
FOLDER = "tinydrive-device"  # of everything in the archive

INSTALLER = Path(__file__).with_name("install.sh")


class BundleError(ValueError):
    """The archive cannot be made; the message says why."""


def bundle(models: Sequence[Path], wheels: Path, out: Path) -> None:
    """Write the archive. wheels: folder of what the device needs besides our packages."""
    files = {"install.sh": INSTALLER}
    files |= {f"packages/{path.relative_to(ROOT)}": path for path in sources()}
    files |= {f"wheels/{path.name}": path for path in wheels.glob("*.whl")}
    files |= {f"models/{path.name}": path for path in models}
    with tarfile.open(out, "w") as archive:
        for name, path in sorted(files.items()):
            data = path.read_bytes()
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")  # no owner, no time: same input, same bytes
            entry.size, entry.mode = len(data), 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(data))


def sources() -> list[Path]:
    """The files of our packages that run on a device."""
    from tinynn.opencl.launcher import build_launchers  # here: a device has no compiler

    build_launchers()
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*")
            if path.suffix in KINDS and "tests" not in path.parts] + [ROOT / LAUNCHER]


def check_model(path: Path) -> list[str]:
    """The targets of an artifact. Raises BundleError if it has no machine code for the device."""
    try:
        reader = read(path)
        reader.close()
    except (ArtifactError, OSError) as error:
        raise BundleError(str(error)) from None
    targets = [target.target for target in reader.manifest.targets]
    if TARGET not in targets:
        raise BundleError(f"{path} is compiled for {', '.join(targets)} and not for {TARGET}. "
                          f"Compile it with --target {TARGET}.")
    return targets


def compile_standin(folder: Path) -> Path:
    """The stand-in model, compiled for the device."""
    run = [sys.executable, "-m", "compiled_models.build", STANDIN, "--step", "onnx", "--out"]
    subprocess.run([*run, str(folder)], cwd=ROOT, check=True)
    artifact = folder / f"{STANDIN}.tnn"
    subprocess.run([sys.executable, "-m", "tinynn", "compile", str(folder / f"{STANDIN}.onnx"),
                    "-o", str(artifact), "--target", TARGET], cwd=ROOT, check=True)
    return artifact


def download_wheels(folder: Path, pythons: Sequence[str], opencl: bool = False) -> None:
    """What our packages need at run time, as pyproject.toml lists it, for aarch64.

    opencl: also what runs artifacts on the GPU.
    """
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    needed = list(project["dependencies"])
    if opencl:
        needed += project["optional-dependencies"]["opencl"]
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    for python in pythons:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet",
                        "--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder),
                        "--implementation", "cp", "--python-version", python, *platforms, *needed],
                       check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Gives 0, 1 if the archive could not be made."""
    parser = argparse.ArgumentParser(
        prog="./run bundle", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", action="store_true", required=True,
                        help="for a comma device (there is no other kind yet)")
    parser.add_argument("--model", type=Path, action="append", default=[], metavar="FILE",
                        help=f"artifact with the target {TARGET}; may be repeated")
    parser.add_argument("--python", action="append", metavar="VERSION", help="of the device; may "
                        f"be repeated (default: {' and '.join(PYTHONS)})")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER",
                        help="take the wheels from here instead of downloading them")
    parser.add_argument("-o", "--output", type=Path, default=Path("tinydrive-device.tar"))
    args = parser.parse_args(argv)
    pythons = args.python or PYTHONS
    try:
        targets = [target for model in args.model for target in check_model(model)]
        with tempfile.TemporaryDirectory(prefix="bundle") as scratch:
            models = args.model or [compile_standin(Path(scratch))]
            if args.wheels is None:
                download_wheels(Path(scratch), pythons,
                                any(target.startswith("opencl") for target in targets))
            bundle(models, args.wheels or Path(scratch), args.output)
    except (BundleError, OSError) as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"bundle: {' '.join(error.cmd[:4])} ... failed, see above", file=sys.stderr)
        return 1
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.0f} MB. On the device: tar xf "
          f"{args.output.name} && sh {FOLDER}/install.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
