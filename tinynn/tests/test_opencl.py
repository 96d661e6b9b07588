"""The OpenCL target: what is compiled, and what devices on the CPU make of it."""
from __future__ import annotations

import json
import logging
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinynn import artifact, derived, ir, pipeline
from tinynn.adreno.tests.adreno_tools import bundle
from tinynn.algebra import fold_literals
from tinynn.fuse import fuse
from tinynn.golden import make_golden
from tinynn.ir import DType, Graph
from tinynn.onnx.reader import import_model
from tinynn.opencl.contract import Tile, plan_contract, render_contract
from tinynn.opencl.cost import predict
from tinynn.opencl.dump import write_kernels
from tinynn.opencl.lower import lower
from tinynn.opencl.tuning import TuningError, key_of, tune_model
from tinynn.opencl.values import literal
from tinynn.program import Buffer, Program, TargetCode, TensorSpec
from tinynn.runtime import ArtifactError, load, opencl_device
from tinynn.runtime.opencl import OpenCLEngine
from tinynn.runtime.reader import read
from tinynn.tests.direct import assert_close
from tinynn.tests.opencl_tools import find_device, run_program

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
MODELS = ("mnist", "superres_core", "yunet_n_320", "fastestdet", "rfb320", "twinlitenet")
DRIVING = ("driving_policy", "driving_vision", "driving_supercombo", "driving_supercombo_stateful",
           "supercombo_08", "supercombo_097", "dmonitoring")


def counter() -> Graph:
    """A state that grows by x, and twice its new value."""
    x, state = ir.input_("x", DType.F32, (5,)), ir.input_("state", DType.F32, (5,))
    grown = ir.add(x, state)
    return Graph("counter", {"x": x, "state": state},
                 {"next": grown, "twice": ir.add(grown, grown)}, {"state": "next"})


def small_artifact() -> artifact.Artifact:
    return pipeline.compile(counter(), target="opencl,cpu")


def use(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runtime choose a device of this platform."""
    find_device(platform)
    monkeypatch.setenv(opencl_device.DEVICE_VARIABLE, platform)


@pytest.mark.parametrize("check, without", (
    ("OCLGRIND_DATA_RACES", "nothing"),
    # Oclgrind 21.10 crashes when it looks for uninitialised parts of such vectors.
    ("OCLGRIND_UNINITIALIZED", "stride 2")))
def test_every_family_is_right_and_clean_in_oclgrind(check: str, without: str) -> None:
    find_device("Oclgrind")
    done = subprocess.run(
        [sys.executable, "-m", "tinynn.tests.opencl_families", "Oclgrind", "f32", without],
        env={**os.environ, check: "1", "PYTHONWARNINGS": "ignore"}, capture_output=True, text=True,
        check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for family in ("contract", "split", "points", "scatter"):
        assert f"_{family}_" in done.stdout


def test_every_family_is_right_in_half_arithmetic() -> None:
    done = subprocess.run(
        [str(bundle() / "with-llvmpipe"), sys.executable, "-W", "ignore", "-m",
         "tinynn.tests.opencl_families", "rusticl", "f16"],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_read_beyond_a_buffer_is_a_fault_on_pocl() -> None:
    # All tests on PoCL rely on it to notice such reads in whole models.
    find_device("Portable")
    script = ("import numpy as np\n"
              "import pyopencl as cl\n"
              "from tinynn.tests.opencl_tools import find_device, make_buffer\n"
              "device = find_device('Portable')\n"
              "context = cl.Context([device])\n"
              "source = '__kernel void one(__global int *x, int at) { x[0] = x[at]; }'\n"
              "kernel = cl.Program(context, source).build().one\n"
              "queue = cl.CommandQueue(context)\n"
              "for at in (15, 16):\n"
              "    print(at, flush=True)\n"
              "    one = make_buffer(context, device, 64)\n"
              "    kernel(queue, (1,), None, one, np.int32(at))\n"
              "    queue.finish()\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, "15\n16\n"), done.stderr


def test_halves_are_added_in_bounded_parts() -> None:
    x = ir.input_("x", DType.F32, (8, 4100))
    weights = ir.const(np.linspace(0, 1, 4100 * 16, dtype=np.float32).reshape(4100, 16))
    code = lower(Graph("m", {"x": x}, {"y": derived.matmul(x, weights)}), "opencl", "f16")
    assert "cl_khr_fp16" in code.source and "part += 128" in code.source
    assert {code.buffers[w.buffer].dtype for w in code.weights} == {"f16"}
    assert lower(counter(), "opencl", "f32").source.count("half8") == 0


def test_a_device_without_half_arithmetic_is_said(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    use("Oclgrind", monkeypatch)
    data = pipeline.compile(counter(), target="opencl,cpu", precision="f16").to_bytes()
    with load(data, "opencl,cpu", trust=True) as runner:
        assert runner.target.startswith("cpu")
    assert "has no half arithmetic (cl_khr_fp16). Compile the model with" in caplog.text


def test_compiling_needs_no_opencl_and_gives_the_same_bytes_twice() -> None:
    # A second process, so that nothing depends on what this one has loaded or on its hashes.
    script = ("import sys; sys.modules['pyopencl'] = None\n"
              "from tinynn.tests.test_opencl import small_artifact\n"
              "sys.stdout.buffer.write(small_artifact().to_bytes())\n")
    one, two = (subprocess.run([sys.executable, "-c", script], capture_output=True, check=True,
                               env={**os.environ, "PYTHONHASHSEED": seed}).stdout
                for seed in ("1", "2"))
    assert one == two and one == small_artifact().to_bytes()


@pytest.mark.parametrize("platform", ("Oclgrind", "Portable"))
def test_state_stays_on_the_device_between_runs(
        platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(platform, monkeypatch)
    with load(small_artifact().to_bytes(), "opencl", trust=True) as runner:
        assert isinstance(runner._engine, OpenCLEngine)
        assert all(result.passed for result in runner.verify())
        x = np.arange(5, dtype=np.float32)
        for turn in (1, 2, 3):
            np.testing.assert_array_equal(runner({"x": x})["twice"], 2 * turn * x)
        runner({"x": np.full(5, np.nan, np.float32)})
        assert runner.state_rejected == 1
        np.testing.assert_array_equal(runner({"x": x})["twice"], 8 * x)
        assert all(ns >= 0 for ns in runner.profile({"x": x}))
        runner.reset()
        np.testing.assert_array_equal(runner({"x": x})["twice"], 2 * x)


@pytest.mark.parametrize("platform", ("Portable", "Oclgrind"))
def test_a_large_input_that_stays_is_read_in_place(
        platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(platform, monkeypatch)
    size = 1 << 17
    x = ir.input_("x", DType.U8, (size,))
    graph = Graph("m", {"x": x}, {"y": ir.cast(x, DType.F32)})
    camera, other = (np.frombuffer(mmap.mmap(-1, size), np.uint8) for _ in range(2))
    with load(pipeline.compile(graph, target="opencl").to_bytes(), trust=True) as runner:
        engine = runner._engine
        assert isinstance(engine, OpenCLEngine)
        for value, array in enumerate((camera, camera, camera, other, camera, camera, other), 1):
            array[:] = value
            assert (runner({"x": array})["y"] == value).all()
            if platform == "Portable" and value in (2, 3, 6):
                assert engine._large["x"].in_place
        assert not engine._large or not engine._large["x"].in_place
        assert (camera == 6).all(), "what was read in place is not written to"


def test_a_command_buffer_replays_the_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    if "cl_khr_command_buffer" not in find_device("Portable").extensions.split():
        pytest.skip("the device has no cl_khr_command_buffer (PoCL has it since 3.1)")
    use("Portable", monkeypatch)
    with load(small_artifact().to_bytes(), "opencl", trust=True) as runner:
        engine = runner._engine
        assert isinstance(engine, OpenCLEngine) and engine.way == "command buffer"
        x = np.arange(5, dtype=np.float32)
        for run in range(1, 5):
            np.testing.assert_array_equal(runner({"x": x})["twice"], 2 * run * x)


def test_without_a_device_the_cpu_takes_over_and_the_log_says_so(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    use("Oclgrind", monkeypatch)

    def refuse(*_: object) -> None:
        raise ArtifactError("the driver is broken")

    monkeypatch.setattr("tinynn.runtime.opencl.build_program", refuse)
    with load(small_artifact().to_bytes(), "opencl,cpu", trust=True) as runner:
        assert runner.target.startswith("cpu")
    assert "the driver is broken" in caplog.text


def test_a_device_that_fails_later_is_replaced_by_the_cpu(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    use("Oclgrind", monkeypatch)
    with load(small_artifact().to_bytes(), "opencl,cpu", trust=True) as runner:
        def fail() -> None:
            raise RuntimeError("clEnqueueNDRangeKernel failed with status -5")

        engine = runner._engine
        assert isinstance(engine, OpenCLEngine)
        monkeypatch.setattr(engine._sequences[0], "enqueue", fail)
        x = np.ones(5, np.float32)
        np.testing.assert_array_equal(runner({"x": x})["twice"], 2 * x)
        assert runner.target.startswith("cpu")
    assert "status -5" in caplog.text and "going on with cpu" in caplog.text


def test_untrusted_kernels_are_not_built(tmp_path: Path) -> None:
    path = tmp_path / "model.tnn"
    path.write_bytes(small_artifact().to_bytes())
    with pytest.raises(ArtifactError, match="tinynn trust"):
        load(path)


SOURCE = "__kernel void one(__global float *x) { x[0] = 1; }"


@pytest.mark.parametrize("damage, reason", (
    (lambda data: data[:-9], "damaged"), (lambda data: b"", "damaged"),
    (lambda data: data.replace(b'"driver": "', b'"driver": "older '), "made by driver older")))
def test_a_stored_binary_that_does_not_fit_is_built_again_with_one_line(
        damage: Callable[[bytes], bytes], reason: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import pyopencl as cl

    device = find_device("Oclgrind")
    monkeypatch.setenv("TINYDRIVE_CACHE", str(tmp_path))
    opencl_device.build_program(cl.Context([device]), device, SOURCE)
    (entry,) = (tmp_path / "opencl").iterdir()
    good = entry.read_bytes()
    opencl_device.build_program(cl.Context([device]), device, SOURCE)
    assert not caplog.records  # an entry that fits says nothing
    entry.write_bytes(damage(good))
    with caplog.at_level(logging.WARNING):
        program = opencl_device.build_program(cl.Context([device]), device, SOURCE)
    assert len(caplog.records) == 1 and reason in caplog.text
    assert entry.read_bytes() == good and program.kernel_names == "one"


def test_source_that_the_driver_refuses_is_one_clear_error() -> None:
    import pyopencl as cl

    device = find_device("Oclgrind")
    with pytest.raises(ArtifactError, match="does not build the kernels"):
        opencl_device.build_program(cl.Context([device]), device, "no kernel")


def test_a_name_that_no_device_has_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    find_device("Oclgrind")
    monkeypatch.setenv(opencl_device.DEVICE_VARIABLE, "Voodoo 2")
    with pytest.raises(ArtifactError, match="no OpenCL device 'Voodoo 2'"):
        opencl_device.find_device()
    assert opencl_device.runnable_targets() == []


def test_kernels_are_written_as_files_with_their_launches(tmp_path: Path) -> None:
    reader = read(small_artifact().to_bytes())
    target = reader.manifest.targets[0]
    assert write_kernels(target, reader.text(target.source), tmp_path) == len(
        list(tmp_path.glob("*.cl")))
    launches = json.loads((tmp_path / "launches.json").read_text())
    for launch, step in zip(launches, target.steps, strict=True):
        text = (tmp_path / launch["source"]).read_text()
        assert text.count("__kernel") == 1 and f"void {step.kernel}(" in text
        assert launch["global"] == list(step.global_size)
    with pytest.raises(ArtifactError, match="needs an OpenCL target"):
        write_kernels(reader.manifest.targets[1], "", tmp_path)


def test_a_tile_can_be_chosen_and_shows_in_the_launch() -> None:
    x, y = ir.input_("x", DType.F32, (32, 64)), ir.input_("y", DType.F32, (64, 40))
    (kernel,) = fuse(Graph("m", {"x": x, "y": y}, {"z": derived.matmul(x, y)})).kernels
    plan = plan_contract(kernel, Tile(rows=4, columns=8, shares=2))
    assert plan is not None
    launch = render_contract(plan)
    assert launch.schedule == "contract, tile 4 x 8, sum shared by 2, work-group 2x1x1"
    assert launch.global_size == (2, 5, 8)


@pytest.mark.parametrize("value, dtype, text", (
    (1.5, DType.F32, "0x1.8000000000000p+0f"), (-1.5, DType.F64, "(-0x1.8000000000000p+0)"),
    (float("-inf"), DType.F32, "(-INFINITY)"), (float("nan"), DType.F32, "NAN"),
    (-2 ** 63, DType.I64, "(-9223372036854775807l - 1)"), (3, DType.U64, "3ul")))
def test_literals_are_exact(value: float, dtype: DType, text: str) -> None:
    assert literal(value, dtype) == text


def _onnxruntime(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given = {i.name: inputs[i.name] for i in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


def _agrees_with_onnxruntime(path: Path) -> None:
    device = find_device("Portable")
    graph = import_model(path)
    rng = np.random.default_rng(3)
    inputs = {name: (rng.uniform(-1, 1, node.shape) if node.dtype.is_float
                     else rng.integers(0, 10, node.shape)).astype(node.dtype.numpy)
              for name, node in graph.inputs.items()}
    got = run_program(lower(graph, "opencl"), inputs, device)
    for name, want in _onnxruntime(path, inputs).items():
        scale = 2e-3 if want.dtype == np.float16 else 1e-4  # halves are rounded at the border
        if "obj" in name:  # onnxruntime's sigmoid is off by 1e-7, as large as these numbers
            np.testing.assert_allclose(got[name], want, atol=1e-6)
        else:
            assert_close({name: got[name]}, {name: want}, scale)


@pytest.mark.shared
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "mnist" else pytest.mark.slow)
                                  for n in MODELS])
def test_models_agree_with_onnxruntime_on_pocl(name: str) -> None:
    path = SHARED / "onnx" / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the reference models are not here")
    _agrees_with_onnxruntime(path)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", DRIVING)
def test_driving_models_agree_with_onnxruntime_on_pocl(name: str, tmp_path: Path) -> None:
    script = SHARED / "models/make_driving_models.py"
    if not script.exists():
        pytest.skip("the script that builds driving models is not here")
    subprocess.run([sys.executable, script, "--out", tmp_path, "--only", name], check=True,
                   capture_output=True)
    _agrees_with_onnxruntime(tmp_path / f"{name}.onnx")


def test_a_launch_is_predicted_by_what_binds_it() -> None:
    assert predict(403_000_000, 0, (1344, 1, 1)) == (1_005_000, "alu")
    assert predict(403_000_000, 0, (672, 1, 1)) == (2_005_000, "alu")  # half of the GPU is idle
    assert predict(0, 38_400_000, (64, 1, 1)) == (1_005_000, "dram")
    assert predict(1000, 1000, (64, 1, 1))[1] == "launch"


def test_only_the_part_of_a_tensor_that_is_read_counts_as_moved() -> None:
    x = ir.input_("x", DType.F32, (5, 1000))
    (step,) = lower(Graph("m", {"x": x}, {"y": ir.slice_(x, [(1, 2, 2), (0, 1000, 1)])}),
                    "opencl").steps
    assert step.nbytes == 2 * 2 * 4000


def test_a_tuning_record_decides_the_tile(tmp_path: Path) -> None:
    x = ir.input_("x", DType.F32, (64, 64))
    graph = Graph("m", {"x": x}, {"z": derived.matmul(x, x)})
    (kernel,) = fuse(graph).kernels
    key = key_of(fold_literals(kernel))
    record = tmp_path / "device.txt"
    record.write_text(f"# tinynn tuning record 1\ntile {key} 8x8x1 900 contract_x\n"
                      f"tile {key} 2x4x1 700 contract_x\ntile {key} 4x4x1 800 contract_x\n")
    (usual,), (tuned,) = lower(graph, "opencl").steps, lower(graph, "opencl", "f32", [record]).steps
    assert "tile 2 x 4" in tuned.schedule and "tile 2 x 4" not in usual.schedule
    record.write_text("tile nonsense\n")
    with pytest.raises(TuningError, match="line 1: 'tile nonsense' is not a tile"):
        lower(graph, "opencl", "f32", [record])


def test_tuning_measures_every_tile_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    use("Oclgrind", monkeypatch)
    x, y = ir.input_("x", DType.F32, (3, 6)), ir.input_("y", DType.F32, (6, 9))
    lines = list(tune_model(Graph("m", {"x": x, "y": y}, {"z": derived.matmul(x, y)})))
    assert lines[0] == "# tinynn tuning record 1" and "Oclgrind" in lines[1]
    assert [line.split()[2] for line in lines[2:]] == ["2x4x1", "2x8x1"]


def _with_target(code: TargetCode) -> None:
    """Lay an artifact out with this target; raises ArtifactError if it is not sound."""
    graph = counter()
    specs = {name: TensorSpec(name, "f32", (5,)) for name in ("x", "state", "next", "twice")}
    program = Program("m", (specs["x"],), (specs["state"],), (specs["next"], specs["twice"]),
                      dict(graph.state), "0" * 64, {}, (code,))
    artifact.build(program, make_golden(graph))


def test_launches_and_images_that_do_not_fit_are_refused() -> None:
    code = lower(counter(), "opencl")
    _with_target(code)
    first = code.steps[0]
    for change in ({"global_size": ()}, {"global_size": (3, 1, 1), "local_size": (2, 1, 1)}):
        steps = (replace(first, **change), *code.steps[1:])
        with pytest.raises(ArtifactError, match="do not fit the target"):
            _with_target(replace(code, steps=steps))
    for image in ((2, 1, 1, "float"), (1, 1, 2, "half"), (1, 2, 2, "float")):
        buffer = Buffer("arena", "picture", "f32", (1, 2, 4), 0, 32, image)
        with pytest.raises(ArtifactError, match="is not an image of"):
            _with_target(replace(code, arena_nbytes=64, buffers=(*code.buffers, buffer)))


def test_views_of_one_memory_hold_what_was_written_to_either() -> None:
    code = lower(counter(), "opencl")
    plain = Buffer("arena", "picture", "f32", (8,), 0, 32)
    image = Buffer("arena", "picture", "f32", (1, 2, 4), 0, 32, (2, 1, 2, "float"))
    number = len(code.buffers)
    write = replace(code.steps[0], args=(number,), writes=(0,))
    read_image = replace(code.steps[0], args=(*code.steps[0].args, number + 1))
    viewed = replace(code, arena_nbytes=64, buffers=(*code.buffers, plain, image),
                     steps=(write, read_image, *code.steps[1:]))
    _with_target(viewed)
    stranger = replace(image, name="another")
    with pytest.raises(ArtifactError, match="holds no value"):
        _with_target(replace(viewed, buffers=(*code.buffers, plain, stranger)))
