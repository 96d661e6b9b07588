"""Camera programs behind the daemon's interface: what they are given, and what is refused."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modeld.__main__ import _arguments, driving_model
from modeld.camera_program import KEY, CameraProgram, is_camera_program
from modeld.contract import ContractError
from modeld.model_state import DrivingModel
from modeld.pairing import OverwrittenError
from modeld.parser import ParseError
from modeld.planner import Planner
from modeld.tests import fakes
from modeld.tests.test_layouts import CAR, VIEWS, picture
from modeld.tests.test_planner import Fleeting

ROOM = 320 * 200 * 3 // 2
INPUTS: dict[str, fakes.Tensor] = {
    **{f"{name}_{part}": spec for name in ("main", "extra") for part, spec in (
        ("frame", ((ROOM,), "u8")), ("geometry", ((4,), "i32")), ("warp", ((2, 3, 3), "f32")))},
    "desire": ((8,), "f32"), "traffic_convention": ((1, 2), "f32"), "action_t": ((1, 2), "f32")}
DESCRIPTION = {"era": "0.11", "sampling": "bilinear", "frame_bytes": ROOM}


@pytest.fixture(autouse=True)
def _dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fakes.DTYPES, "i32", np.int32)


def program(**description: Any) -> fakes.FakeRunner:
    made = fakes.runner(INPUTS, 2576, fakes.SUPERCOMBO_SLICES)
    made.metadata[KEY] = {**DESCRIPTION, **description}
    return made


def test_frames_warps_and_wishes_are_handed_over() -> None:
    runner = program()
    planner = Planner(driving_model([runner]))
    messages = planner.step(picture(3, 0), picture(3, 1), VIEWS, CAR)
    assert messages.valid and messages.model_v2["frameId"] == 3
    (given,) = runner.seen
    for name, seed in (("main", 0), ("extra", 1)):
        frame = picture(3, seed)
        np.testing.assert_array_equal(given[f"{name}_geometry"], [320, 200, 320, 320 * 200])
        np.testing.assert_array_equal(given[f"{name}_frame"][:320 * 200], frame.luma.reshape(-1))
        np.testing.assert_array_equal(given[f"{name}_frame"][320 * 200:], frame.chroma.reshape(-1))
    assert not np.array_equal(given["main_warp"], given["extra_warp"])
    np.testing.assert_array_equal(given["traffic_convention"], [[1, 0]])


def test_the_program_does_not_run_on_an_overwritten_frame() -> None:
    runner = program()
    with pytest.raises(OverwrittenError, match="Frame 3 "):
        Planner(driving_model([runner])).step(
            picture(3, 0), Fleeting(**vars(picture(3, 1))), VIEWS, CAR)
    assert not runner.seen


def test_which_artifacts_are_camera_programs() -> None:
    assert is_camera_program(program()) and not is_camera_program(fakes.supercombo())
    assert isinstance(driving_model([program()]), CameraProgram)
    assert isinstance(driving_model([fakes.supercombo()]), DrivingModel)
    assert driving_model([program(era="0.10")]).contract.era == "0.10"


def test_a_frame_that_does_not_fit() -> None:
    planner = Planner(CameraProgram(program(frame_bytes=ROOM - 1)))
    with pytest.raises(ContractError, match=f"320 x 200 has {ROOM} bytes .* room for {ROOM - 1}"):
        planner.step(picture(0, 0), picture(0, 1), VIEWS, CAR)


def test_incomplete_descriptions() -> None:
    for missing in DESCRIPTION:
        runner = program()
        del runner.metadata[KEY][missing]
        with pytest.raises(ContractError, match=f"incomplete .*{missing}"):
            CameraProgram(runner)
    with pytest.raises(ContractError, match="incomplete"):
        CameraProgram(program(frame_bytes="many"))
    older = fakes.runner({**INPUTS, "main_warp": ((3, 3), "f32")}, 2576, fakes.SUPERCOMBO_SLICES)
    older.metadata[KEY] = DESCRIPTION
    with pytest.raises(ContractError, match=r"main_warp is \(3, 3\) and must be \(2, 3, 3\)"):
        CameraProgram(older)
    odd = fakes.runner(INPUTS, 2576, {**fakes.SUPERCOMBO_SLICES, "plan": [1576, 2566 - 3, None]})
    odd.metadata[KEY] = DESCRIPTION
    with pytest.raises(ParseError):
        CameraProgram(odd)


def test_the_sampling_of_a_program_cannot_be_chosen() -> None:
    wanted = _arguments(["--model", "-", "--sampling", "nearest"]).sampling
    with pytest.raises(ContractError, match="samples bilinear; leave out --sampling nearest"):
        driving_model([program()], wanted)
    driving_model([program()], _arguments(["--model", "-", "--sampling", "bilinear"]).sampling)
    driving_model([program()], _arguments(["--model", "-"]).sampling)
