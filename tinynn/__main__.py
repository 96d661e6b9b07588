"""The `tinynn` command: compile, run, verify, inspect, explain, diff, bench and trust.

Results go to standard output, progress and errors to standard error. Exit status: 0 success, 1 the
golden vectors or the compared artifacts differ, 2 an error, told in a sentence (with --traceback
also where it arose).
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

from tinynn import explain
from tinynn.runtime import Runner, load
from tinynn.runtime.layout import MAGIC, ArtifactError
from tinynn.runtime.manifest import Target
from tinynn.runtime.reader import Reader, read
from tinynn.runtime.trust import trust

MEASURED_RUNS = 20  # of `explain --measure`; the median counts


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

    if args.cache is not None:
        os.environ["TINYDRIVE_CACHE"] = args.cache
    artifact = compile_model(args.model, args.target, args.precision, args.threads,
                             shapes=dict(args.shape), state=dict(args.state), compiler=args.cc,
                             tuning=args.tuning, progress=_progress)
    artifact.save(args.output)
    print(f"{args.output}: {len(artifact.to_bytes()) / 1e6:.1f} MB for "
          f"{', '.join(target['target'] for target in artifact.manifest['targets'])}")
    reader = read(artifact.to_bytes())
    _debug_file(reader, args.debug)
    if args.graph:
        _save_graph(args.graph, explain.explain_artifact(reader, _target(reader, None)))
    return 0


def run_command(args: argparse.Namespace) -> int:
    with load(args.artifact, args.target, args.threads, args.trust, args.cores) as runner:
        outputs = runner(load_arrays(args.inputs))
        save_arrays(args.outputs, outputs)
        print(f"{args.outputs}: {', '.join(outputs)}")
        _debug_run(runner, args.artifact, args.debug)
        if args.graph:
            _save_graph(args.graph, _explain_run(runner, args.artifact, runs=1))
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
    with load(args.artifact, args.target, args.threads, args.trust, args.cores) as runner:
        print(f"{args.artifact}: structure and hashes are sound")
        results = runner.verify()
        print(f"{'seed':>4}  {'error':>9}  {'allowed':>9}  result  output")
        for r in results:
            print(f"{r.seed:>4}  {r.error:>9.2e}  {r.tolerance:>9.2e}  "
                  f"{'ok' if r.passed else 'WRONG':<6}  {r.output}")
        _debug_run(runner, args.artifact, args.debug)
    if all(result.passed for result in results):
        print(f"golden vectors agree on {runner.target}")
        return 0
    print(f"tinynn: {args.artifact}: outputs differ from the golden vectors. Compile the model "
          "again; if they differ still, report it with the model.", file=sys.stderr)
    return 1


def inspect_command(args: argparse.Namespace) -> int:
    if _is_artifact(args.file):
        reader = read(args.file)
        size = args.file.stat().st_size
        print("\n".join(describe_artifact(reader.json, reader.sha256, size)))
        if args.kernels:
            _write_kernels(reader, args)
        _debug_file(reader, args.debug)
        return 0
    from tinynn.inspect import describe
    from tinynn.onnx.reader import import_model

    print(describe(import_model(args.file, shapes=dict(args.shape) or None)))
    return 0


def _write_kernels(reader: Reader, args: argparse.Namespace) -> None:
    from tinynn.opencl.dump import write_kernels

    target = _target(reader, args.target or "opencl")
    count = write_kernels(target, reader.text(target.source), args.kernels)
    print(f"{args.kernels}: {count} kernels of {target.target}, {len(target.steps)} launches")


def _is_artifact(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


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


def explain_command(args: argparse.Namespace) -> int:
    explanation = _explain_file(args) if _is_artifact(args.file) else _explain_model(args)
    _debug(explanation, args.debug)
    if args.json:
        print(json.dumps(explain.as_data(explanation)))
    elif args.kernel is not None:
        if not 0 <= args.kernel < len(explanation.rows):
            raise ValueError(f"{args.file}: there is no kernel {args.kernel}; it has "
                             f"{len(explanation.rows)}, counted from 0.")
        print("\n".join([*explain.details(explanation, args.kernel), "",
                         explanation.rows[args.kernel].source]))
    else:
        print("\n".join(explain.table(explanation)))
    if args.graph:
        _save_graph(args.graph, explanation)
    return 0


def _explain_file(args: argparse.Namespace) -> explain.Explanation:
    if args.measure:
        with load(args.file, args.target, args.threads, args.trust, args.cores) as runner:
            return _explain_run(runner, args.file, MEASURED_RUNS)
    reader = read(args.file)
    return explain.explain_artifact(reader, _target(reader, args.target), args.threads)


def _target(reader: Reader, wanted: str | None) -> Target:
    """The target of this name, or the first of a kind ("cpu", "opencl"); None: the first."""
    found = [t for t in reader.manifest.targets
             if wanted in (None, t.target, t.target.partition(":")[0])]
    if not found:
        names = ", ".join(target.target for target in reader.manifest.targets)
        raise ArtifactError(f"{reader.name}: it has no target {wanted}, only {names}. Choose one "
                            "of these.")
    return found[0]


def _explain_model(args: argparse.Namespace) -> explain.Explanation:
    """Everything is worked out anew; code only to measure it."""
    from tinynn.machine import resolve_target, usual_precision
    from tinynn.onnx.reader import import_model

    graph = import_model(args.file, shapes=dict(args.shape) or None)
    threads = args.threads or 1
    target = resolve_target(args.target or "cpu")
    precision = args.precision or usual_precision(target)
    explanation = explain.explain_graph(graph, target, threads, precision)
    if args.measure:
        from tinynn.compiler import lower
        from tinynn.evaluate import in_memory

        with in_memory(graph, lower(graph, target, precision), threads) as runner:
            times = explain.step_times(runner, MEASURED_RUNS)
        explanation = explanation.with_times(times)
    return explanation


def _explain_run(runner: Runner, path: Path, runs: int) -> explain.Explanation:
    """The kernels of a loaded artifact with their median times."""
    reader = read(path)
    target = next(t for t in reader.manifest.targets if t.target == runner.target)
    times = explain.step_times(runner, runs)
    return explain.explain_artifact(reader, target, runner.threads).with_times(times)


def diff_command(args: argparse.Namespace) -> int:
    from tinynn.diff import differences

    lines = differences(read(args.first), read(args.second), args.lines)
    print("\n".join(lines) or f"{args.first} and {args.second} are the same artifact")
    return 1 if lines else 0


def _save_graph(path: Path, explanation: explain.Explanation) -> None:
    from tinynn.picture import write_picture

    write_picture(path, explanation)
    print(f"tinynn: the graph is in {path}", file=sys.stderr)


def bench_command(args: argparse.Namespace) -> int:
    from tinynn import bench

    peers = bool(args.peers or args.against) or not _is_artifact(args.artifact)
    comparison = bench.bench_peers(
        args.artifact, args.against, peers=peers, threads=args.threads, runs=args.runs,
        target=args.target, trust=args.trust, shapes=dict(args.shape), precision=args.precision)
    print(json.dumps(bench.peer_summary(comparison)) if args.json
          else "\n".join(bench.peer_lines(comparison)))
    return 0


def tune_command(args: argparse.Namespace) -> int:
    """Lines appear as they are measured; the record is complete when the command ends."""
    from tinynn.opencl import tuning

    if _is_artifact(args.file):
        with load(args.file, args.target or "opencl", trust=args.trust) as runner:
            lines = list(tuning.tune_artifact(runner))
    else:
        from tinynn.onnx.reader import import_model

        lines = []
        for line in tuning.tune_model(import_model(args.file, shapes=dict(args.shape) or None)):
            print(line, file=sys.stderr)
            lines.append(line)
    args.output.write_text("\n".join(lines) + "\n")
    print(f"{args.output}: {len(lines) - 2} measurements")
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


def _debug_run(runner: Runner, path: Path, level: int) -> None:
    """What $DEBUG asks to see of an artifact that is loaded, with the times of one run."""
    if level:
        _debug(_explain_run(runner, path, runs=1), level)


def _debug_file(reader: Reader, level: int) -> None:
    """The same for an artifact that is not run, without times."""
    for target in reader.manifest.targets if level else ():
        _debug(explain.explain_artifact(reader, target), level)


def _debug(explanation: explain.Explanation, level: int) -> None:
    for line in explain.debug_lines(explanation, level):
        print(line, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tinynn", description="Compile a model into an artifact, "
                                     "and check, run and measure artifacts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        command.add_argument("--debug", type=int, choices=range(5),
                             default=explain.debug_level(),
                             help="1: device, 2: and a line per kernel, 3: and its schedule, "
                             "4: and the source; $DEBUG sets the same")
        command.add_argument("--traceback", action="store_true", help="show where an error arose")
        return command

    command = add("compile", compile_command, "Compile an ONNX model into an artifact.")
    command.add_argument("model", type=Path, metavar="MODEL")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    command.add_argument("--target", default="cpu", help="cpu (this host), cpu:x86-64-v3, "
                         "cpu:x86-64-v4, cpu:aarch64, opencl, opencl:adreno630; several "
                         "separated by commas")
    command.add_argument("--precision", help="of arithmetic: f32, or bf16 or f16 where the target "
                         "has it (default: f16 on Adreno, f32 elsewhere)")
    command.add_argument("--threads", type=int, help="the runtime's default for this artifact")
    _add_shape(command)
    _add_graph(command)
    command.add_argument("--state", type=_pair, action="append", default=[],
                         metavar="INPUT=OUTPUT", help="an input that takes this output's value "
                         "after every run and starts at zero; may be repeated")
    command.add_argument("--tuning", type=Path, action="append", default=[], metavar="RECORD",
                         help="what `tinynn tune` measured, for OpenCL targets; may be repeated")
    command.add_argument("--cc", metavar="COMPILER", help="a C compiler to use instead of the "
                         "pinned one; $TINYNN_CC sets the same")
    command.add_argument("--cache", metavar="FOLDER", help="where results of the C compiler are "
                         "kept, \"\" for nowhere; $TINYDRIVE_CACHE sets the same")

    command = add("run", run_command, "Run an artifact once on arrays from a file.")
    _add_artifact(command)
    command.add_argument("--inputs", type=Path, required=True, metavar="IN.npz")
    command.add_argument("--outputs", type=Path, required=True, metavar="OUT.npz")
    _add_graph(command)

    command = add("verify", verify_command, "Check an artifact's hashes and golden vectors.")
    _add_artifact(command)

    command = add("inspect", inspect_command, "Describe a model or an artifact.")
    command.add_argument("file", type=Path, metavar="MODEL|FILE")
    command.add_argument("--kernels", type=Path, metavar="DIR", help="write the source of every "
                         "kernel of an OpenCL target to this folder, and launches.json")
    command.add_argument("--target", help="whose kernels (default: the first OpenCL target)")
    _add_shape(command)

    command = add("explain", explain_command, "A row per kernel: cost, what binds it, schedule; "
                  "for a model also why each result is stored.")
    command.add_argument("file", type=Path, metavar="MODEL|FILE")
    command.add_argument("--measure", action="store_true", help="run it and show measured times")
    command.add_argument("--kernel", type=int, metavar="N", help="all about kernel number N: its "
                         "buffers, neighbours, source")
    command.add_argument("--precision", help="of a model (default: what suits the target)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    _add_running(command)
    _add_shape(command)
    _add_graph(command)

    command = add("diff", diff_command, "What changed between two artifacts; status 1 if any.")
    command.add_argument("first", type=Path, metavar="A")
    command.add_argument("second", type=Path, metavar="B")
    command.add_argument("--lines", type=int, default=60, metavar="N",
                         help="of the text of a changed kernel (default %(default)s)")

    command = add("bench", bench_command, "Measure time and memory of an artifact, and of other "
                  "runtimes on its model. A model is compiled first, and measured beside them.")
    command.add_argument("artifact", type=Path, metavar="MODEL|FILE")
    _add_running(command)
    _add_shape(command)
    command.add_argument("--peers", action="store_true", help="a table with onnxruntime and "
                         "OpenVINO, where they are installed, at one and two threads")
    command.add_argument("--precision", default="f32", help="of a model, and of the peers: f32 or "
                         "bf16 (default %(default)s)")
    command.add_argument("--runs", type=_positive, default=100)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--against", type=Path, metavar="MODEL.onnx",
                         help="the artifact's model, for the peers (default: the one beside it)")

    command = add("tune", tune_command, "Measure on the OpenCL device: launches of an artifact, or "
                  "tiles for a model. Writes a record for compile --tuning.")
    command.add_argument("file", type=Path, metavar="MODEL|FILE")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="RECORD")
    command.add_argument("--target", help="of an artifact (default: opencl)")
    command.add_argument("--trust", action="store_true", help="run it without asking the lists")
    _add_shape(command)

    command = add("trust", trust_command, "Check an artifact and trust its machine code.")
    command.add_argument("artifact", type=Path, metavar="FILE")
    return parser


def _add_artifact(command: argparse.ArgumentParser) -> None:
    command.add_argument("artifact", type=Path, metavar="FILE")
    _add_running(command)


def _add_running(command: argparse.ArgumentParser) -> None:
    command.add_argument("--target", help="which of the artifact's targets, or several in order of "
                         "preference, as opencl,cpu (default: the best)")
    command.add_argument("--threads", type=int, help="default: the artifact's, else up to 2")
    command.add_argument("--cores", type=_cores, default=(), metavar="2,3", help="a core for every "
                         "thread; default: the system decides")
    command.add_argument("--trust", action="store_true",
                         help="run its machine code this once without asking the lists of trust")


def _add_shape(command: argparse.ArgumentParser) -> None:
    command.add_argument("--shape", type=_shape, action="append", default=[],
                         metavar="INPUT=1x3x128x256", help="shape of an input, or length of a "
                         "named dimension, that the model leaves open; may be repeated")


def _add_graph(command: argparse.ArgumentParser) -> None:
    command.add_argument("--graph", type=Path, metavar="FILE.html", help="write a page that shows "
                         "kernels, their source and time; $GRAPH=1 writes tinynn-graph.html",
                         default=Path("tinynn-graph.html") if explain.graph_wanted() else None)


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


def _cores(text: str) -> tuple[int, ...]:
    return tuple(_number(part) for part in text.split(","))


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 2,3")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
