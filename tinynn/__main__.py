"""The `tinynn` command: compile, run, verify, inspect, bench and trust.

Results go to standard output, progress and errors to standard error. Exit status: 0 success, 1 the
golden vectors differ, 2 an error, told in a sentence (with --traceback also where it arose).
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tinynn.runtime import Runner, load
from tinynn.runtime.layout import MAGIC
from tinynn.runtime.reader import Reader, read
from tinynn.runtime.trust import trust


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return args.command(args)
    except KeyboardInterrupt:
        return 130  # as a shell reports an interrupted program
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        if args.traceback:
            traceback.print_exc()
        print(f"tinynn: {_sentence(error)}", file=sys.stderr)
        return 2


def _sentence(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (f"the Python package {error.name} is missing. Install the compiler: "
                "pip install 'tinydrive[compile]'")
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Check the path and its permissions."
    return str(error)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                  file: TextIO | None = None, line: str | None = None) -> None:
    print(f"tinynn: warning: {message}", file=sys.stderr)


def compile_command(args: argparse.Namespace) -> int:
    from tinynn.pipeline import compile as compile_model

    artifact = compile_model(args.model, args.target, args.precision, args.threads,
                             shapes=dict(args.shape), state=dict(args.state), compiler=args.cc,
                             progress=_progress)
    artifact.save(args.output)
    print(f"{args.output}: {len(artifact.to_bytes()) / 1e6:.1f} MB for "
          f"{', '.join(target['target'] for target in artifact.manifest['targets'])}")
    _debug_file(read(artifact.to_bytes()), args.debug)
    return 0


def run_command(args: argparse.Namespace) -> int:
    with load(args.artifact, args.target, args.threads, args.trust) as runner:
        outputs = runner(load_arrays(args.inputs))
        save_arrays(args.outputs, outputs)
        print(f"{args.outputs}: {', '.join(outputs)}")
        _debug_run(runner, args.debug)
    return 0


def load_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of an .npz file by name; nothing in it is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: this is not an .npz archive of plain arrays ({error}). Write it "
                         "with numpy.savez(path, input_name=array).") from None


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write an .npz file; the same arrays give the same bytes."""
    # numpy.savez takes names as keyword arguments: an output called "file" would break it.
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def verify_command(args: argparse.Namespace) -> int:
    with load(args.artifact, args.target, args.threads, args.trust) as runner:
        print(f"{args.artifact}: structure and hashes are sound")
        results = runner.verify()
        print(f"{'seed':>4}  {'error':>9}  {'allowed':>9}  result  output")
        for r in results:
            print(f"{r.seed:>4}  {r.error:>9.2e}  {r.tolerance:>9.2e}  "
                  f"{'ok' if r.passed else 'WRONG':<6}  {r.output}")
        _debug_run(runner, args.debug)
    if all(result.passed for result in results):
        print(f"golden vectors agree on {runner.target}")
        return 0
    print(f"tinynn: {args.artifact}: outputs differ from the golden vectors. Compile the model "
          "again; if they differ still, report it with the model.", file=sys.stderr)
    return 1


def inspect_command(args: argparse.Namespace) -> int:
    with args.file.open("rb") as file:
        is_artifact = file.read(len(MAGIC)) == MAGIC
    if is_artifact:
        reader = read(args.file)
        size = args.file.stat().st_size
        print("\n".join(describe_artifact(reader.json, reader.sha256, size)))
        _debug_file(reader, args.debug)
        return 0
    from tinynn.inspect import describe
    from tinynn.onnx.reader import import_model

    print(describe(import_model(args.file, shapes=dict(args.shape) or None)))
    return 0


def describe_artifact(manifest: dict[str, Any], sha256: str, file_nbytes: int) -> list[str]:
    """Lines that summarise an artifact: model, borders, sections, steps of every target."""
    model, io = manifest["model"], manifest["io"]
    lines = [f"artifact    {file_nbytes} bytes, identity {sha256}",
             f"model       {model['name']}, source sha256 {model['source_sha256']}",
             f"compiler    {manifest['compiler']['version']}",
             f"options     {json.dumps(model['options'], sort_keys=True)}",
             f"memory      {manifest['limits']['memory_nbytes']} bytes to run"]
    for kind in ("inputs", "state", "outputs"):
        for spec in io[kind]:
            shape = ",".join(map(str, spec["shape"]))
            follows = f" <- {io['carry'][spec['name']]}" if kind == "state" else ""
            lines.append(f"{kind.rstrip('s'):<12}{spec['name']} {spec['dtype']}[{shape}]{follows}")
    # Metadata is whatever came with the model: show it, expect nothing of it.
    lines += [f"metadata    {key} {json.dumps(value, sort_keys=True)}"
              for key, value in model["metadata"].items() if key != "output_slices"]
    slices = model["metadata"].get("output_slices")
    for name, bounds in slices.items() if isinstance(slices, dict) else ():
        lines.append(f"slice       {name} {json.dumps(bounds)}")
    for blob in manifest["blobs"]:
        lines.append(f"section     {blob['kind']:<8} {blob['offset']:>10} +{blob['nbytes']:<10} "
                     f"sha256 {blob['sha256'][:16]}...")
    for target in manifest["targets"]:
        expect = target["expect"]
        lines.append(f"target      {target['target']}, {target['precision']}, "
                     f"{target['toolchain']}")
        lines.append(f"            {expect['steps']} steps, {expect['flop'] / 1e6:.1f} MFLOP, "
                     f"{expect['nbytes'] / 1e6:.1f} MB moved, weights "
                     f"{target['weights_nbytes']} bytes, arena {target['arena_nbytes']} bytes")
        lines += [f"{i:>11} {step['kernel']:<40} {step['flop'] / 1e6:>9.3f} MFLOP "
                  f"{step['nbytes'] / 1e3:>9.1f} kB  {step['note']}"
                  for i, step in enumerate(target["steps"])]
    return lines


def bench_command(args: argparse.Namespace) -> int:
    from tinynn import bench

    with load(args.artifact, args.target, args.threads, args.trust) as runner:
        kernels = bench.profile_kernels(runner, min(args.runs, 20))
        timings = bench.compare(runner, args.artifact, args.against, runner.threads, args.runs,
                                trust=args.trust)
        top = sorted(kernels, key=lambda kernel: -kernel.ns)[:args.top]
        if args.json:
            print(json.dumps({
                "target": runner.target, "threads": runner.threads,
                **dict(zip(("tinynn", "onnxruntime"), map(bench.summary, timings), strict=False)),
                "kernels": [{"kernel": k.step.kernel, "ns": k.ns, "gflops": k.gflops,
                             "gbytes_per_s": k.gbytes_per_s, "share": k.share} for k in top]}))
        else:
            print(f"{args.artifact} on {runner.target}")
            print("\n".join([*bench.report(timings, runner.threads), "",
                             *bench.kernel_lines(top)]))
        _debug_run(runner, args.debug)
    return 0


def trust_command(args: argparse.Namespace) -> int:
    reader = read(args.artifact)
    path = trust(reader.sha256, args.artifact.name)
    print(f"{args.artifact}: trusted from now on ({path})")
    return 0


def _progress(stage: str, seconds: float | None) -> None:
    if seconds is None:
        print(f"{stage} ...", end="", file=sys.stderr, flush=True)
    else:
        print(f" {seconds:.1f} s", file=sys.stderr)


def _debug_run(runner: Runner, level: int) -> None:
    """Level 1: device; 2: time of every kernel; 3: what each computes; 4: source."""
    from tinynn import bench

    lines: list[str] = []
    if level >= 1:
        lines.append(f"target {runner.target}, {runner.threads} threads")
    if level >= 2:
        lines += bench.kernel_lines(bench.profile_kernels(runner, runs=1))
    if level >= 3:
        lines += [f"{step.kernel}: {step.note}; at most {step.parts} shares"
                  for step in runner.steps]
    if level >= 4:
        lines.append(runner.source)
    if lines:
        print("\n".join(lines), file=sys.stderr)


def _debug_file(reader: Reader, level: int) -> None:
    """The same levels for an artifact that is not run: no times."""
    for target in reader.manifest.targets:
        lines: list[str] = []
        if level >= 1:
            lines.append(f"target {target.target}, {target.toolchain}")
        if level >= 2:
            lines += [f"{step.kernel}: {step.flop / 1e6:.3f} MFLOP, {step.nbytes / 1e3:.1f} kB"
                      + (f"; {step.note}; at most {step.parts} shares" if level >= 3 else "")
                      for step in target.steps]
        if level >= 4:
            lines.append(str(reader.blob(target.source), "utf-8", "replace"))
        if lines:
            print("\n".join(lines), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tinynn", description="Compile a model into an artifact, "
                                     "and check, run and measure artifacts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        command.add_argument("--debug", type=int, choices=range(5),
                             default=_debug_level(os.environ),
                             help="1: device, 2: and a line per kernel, 3: and what each computes, "
                             "4: and the source; $DEBUG sets the same")
        command.add_argument("--traceback", action="store_true", help="show where an error arose")
        return command

    command = add("compile", compile_command, "Compile an ONNX model into an artifact.")
    command.add_argument("model", type=Path, metavar="MODEL")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    command.add_argument("--target", default="cpu", help="cpu (this host), cpu:x86-64-v3, "
                         "cpu:x86-64-v4, cpu:aarch64; several separated by commas")
    command.add_argument("--precision", default="f32", help="of arithmetic (default %(default)s)")
    command.add_argument("--threads", type=int, help="the runtime's default for this artifact")
    _add_shape(command)
    command.add_argument("--state", type=_pair, action="append", default=[],
                         metavar="INPUT=OUTPUT", help="an input that takes this output's value "
                         "after every run and starts at zero; may be repeated")
    command.add_argument("--cc", metavar="COMPILER", help="a C compiler to use instead of the "
                         "pinned one")

    command = add("run", run_command, "Run an artifact once on arrays from a file.")
    _add_artifact(command)
    command.add_argument("--inputs", type=Path, required=True, metavar="IN.npz")
    command.add_argument("--outputs", type=Path, required=True, metavar="OUT.npz")

    command = add("verify", verify_command, "Check an artifact's hashes and golden vectors.")
    _add_artifact(command)

    command = add("inspect", inspect_command, "Describe a model or an artifact.")
    command.add_argument("file", type=Path, metavar="MODEL|FILE")
    _add_shape(command)

    command = add("bench", bench_command, "Measure time and memory of an artifact.")
    _add_artifact(command)
    command.add_argument("--runs", type=_positive, default=100)
    command.add_argument("--top", type=int, default=15, help="slowest kernels to show")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--against", type=Path, metavar="MODEL.onnx",
                         help="measure onnxruntime on this model in turn")

    command = add("trust", trust_command, "Check an artifact and trust its machine code.")
    command.add_argument("artifact", type=Path, metavar="FILE")
    return parser


def _add_artifact(command: argparse.ArgumentParser) -> None:
    command.add_argument("artifact", type=Path, metavar="FILE")
    command.add_argument("--target", help="which of the artifact's targets (default: the best)")
    command.add_argument("--threads", type=int, help="default: the artifact's, else up to 2")
    command.add_argument("--trust", action="store_true",
                         help="run its machine code this once without asking the lists of trust")


def _add_shape(command: argparse.ArgumentParser) -> None:
    command.add_argument("--shape", type=_shape, action="append", default=[],
                         metavar="INPUT=1x3x128x256", help="shape of an input that the model "
                         "leaves open; may be repeated")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, value = _pair(text)
    dims = value.split("x")
    if not all(dim.isdecimal() for dim in dims):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SIZExSIZE...")
    return name, tuple(int(dim) for dim in dims)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _debug_level(env: Mapping[str, str]) -> int:
    """$DEBUG if it is one of our levels; other programs use the variable for other things."""
    value = env.get("DEBUG", "")
    return int(value) if value in ("1", "2", "3", "4") else 0


if __name__ == "__main__":
    sys.exit(main())
