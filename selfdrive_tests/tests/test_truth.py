"""The truth of rendered drives: read, drawn where the rendered picture shows it, and reported."""

from pathlib import Path

import numpy as np
import pytest

from drivesim import render_drive
from selfdrive_tests.drives import DriveError, open_drive
from selfdrive_tests.overlay import Projection
from selfdrive_tests.pictures import TRUTH_NAME, render
from selfdrive_tests.plans import FrameRecord
from selfdrive_tests.plots import TRUTH_LABEL, plots
from selfdrive_tests.truth import read_truth, truth_file


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    render_drive(folder, seconds=0.5, seed=0, width=640, height=400, progress=False)
    return folder


def test_true_lines_lie_on_the_painted_ones(road: Path) -> None:
    """The pictures are the referee: a line's paint is brighter than asphalt half a metre beside."""
    drive = open_drive(road)
    assert drive.calibration is not None
    truth = read_truth(road / "truth.npz")
    project = Projection(drive.camera, drive.calibration.rpy_rad)
    paint: list[np.ndarray] = []
    asphalt: list[np.ndarray] = []
    for frame in drive.frames():
        for number in (1, 2):
            x = np.linspace(7, 14, 60)
            line = truth[frame.index].lane_lines[number]
            for offset, samples in ((0.0, paint), (0.5, asphalt)):
                y = np.interp(x, line[:, 0], line[:, 1]) + offset
                points = np.column_stack([x, y, np.full_like(x, drive.calibration.height_m)])
                across, down = np.rint(project.pixels(project.view(points))).astype(int).T
                seen = (across >= 0) & (across < 640) & (down >= 0) & (down < 400)
                samples.append(frame.narrow.luma[down[seen], across[seen]])
    bright, dark = np.concatenate(paint), np.concatenate(asphalt)
    assert len(bright) > 500
    # Dashed lines leave gaps: a part of the samples is paint, beside the line none is.
    limit = np.percentile(dark, 99) + 20
    assert (bright > limit).mean() > 0.25


def test_true_plan_is_at_the_car_and_moves_with_its_speed(road: Path) -> None:
    for index, plan in enumerate(read_truth(road / "truth.npz")):
        assert plan.frame_id == index
        np.testing.assert_allclose(plan.position[0], 0, atol=1e-9)
        # The road's lines are left and right of the car.
        assert plan.line_at(1, 10.0) < plan.lateral_at(0.4) < plan.line_at(2, 10.0)


def test_stills_come_in_pairs(road: Path, tmp_path: Path) -> None:
    drive = open_drive(road)
    truth = {plan.frame_id: plan for plan in read_truth(road / "truth.npz")}
    records = [FrameRecord(index, 20.0, None, None) for index in range(10)]
    video = tmp_path / "plan.mp4"
    stills = render(drive, records, len(records), video, "toy", "", truth=truth).stills
    assert len(stills) == 12
    for model, perfect in zip(stills[::2], stills[1::2], strict=True):
        assert perfect.caption == f"{model.caption}: {TRUTH_NAME}"
        assert (model.rgb != perfect.rgb).any()
    assert len(list((tmp_path / "stills").glob("frame_*_truth.png"))) == 6


def test_plots_have_the_truth_behind_the_model(road: Path) -> None:
    truth = {plan.frame_id: plan for plan in read_truth(road / "truth.npz")}
    records = [FrameRecord(index, 20.0, None, None) for index in range(10)]
    with np.load(road / "truth.npz") as file:
        expected = file["lead"][:, 0, 0]
    distance = next(plot for plot in plots(records, truth) if "distance" in plot.title)
    assert [series.label for series in distance.series] == [TRUTH_LABEL, "model"]
    np.testing.assert_allclose(distance.series[0].values, expected)
    assert np.isnan(distance.series[1].values).all()


def test_drives_that_were_not_rendered_have_no_truth(road: Path, tmp_path: Path) -> None:
    drive = open_drive(road)
    assert truth_file(drive) == road / "truth.npz"
    drive.path = tmp_path
    assert truth_file(drive) is None


def test_damaged_truth_is_named(road: Path, tmp_path: Path) -> None:
    broken = tmp_path / "truth.npz"
    broken.write_bytes((road / "truth.npz").read_bytes()[:2000])
    with pytest.raises(DriveError, match=r"is no ground truth .* --no-truth"):
        read_truth(broken)
    with np.load(road / "truth.npz") as file:
        arrays = dict(file)
    np.savez(broken, **(arrays | {"lead": arrays["lead"][:, :2]}))
    with pytest.raises(DriveError, match=r"lead has the shape \(10, 2, 4\), expected \(10, 6, 4\)"):
        read_truth(broken)
