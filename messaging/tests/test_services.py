"""The services table and the port rule."""

import pytest

from messaging import SERVICES, UnknownServiceError, canonical, tcp_port
from messaging.schema import TAG_BY_MEMBER
from messaging.services import QueueSize, fnv1a_64

# Ports of comma's bridge, from its port rule.
PORTS = {
    "modelV2": 58537,
    "drivingModelData": 49244,
    "cameraOdometry": 50972,
    "driverStateV2": 45495,
    "carState": 9041,
    "carControl": 63225,
    "narrowRoadCameraState": 20911,
    "roadCameraState": 12432,
    "wideRoadCameraState": 53095,
    "cabinCameraState": 15833,
    "driverCameraState": 46980,
    "extrinsicsCalibration": 32584,
    "liveCalibration": 36768,
    "lateralDelay": 34210,
    "liveDelay": 53853,
    "deviceState": 17667,
    "driverMonitoringState": 31369,
    "can": 62300,
}


@pytest.mark.parametrize(("name", "port"), PORTS.items())
def test_port(name: str, port: int) -> None:
    assert tcp_port(name) == port


def test_hash_against_published_vectors() -> None:
    assert fnv1a_64(b"") == 0xCBF29CE484222325
    assert fnv1a_64(b"a") == 0xAF63DC4C8601EC8C
    assert fnv1a_64(b"foobar") == 0x85944171F73967E8


def test_every_service_has_a_member_in_the_schema() -> None:
    assert len(SERVICES) == 69
    assert set(SERVICES) <= set(TAG_BY_MEMBER)


@pytest.mark.parametrize(
    ("name", "should_log", "frequency", "decimation", "queue"),
    [
        ("modelV2", True, 20, None, QueueSize.BIG),
        ("carState", True, 100, 10, QueueSize.SMALL),
        ("can", True, 100, 2053, QueueSize.BIG),
        ("sendcan", True, 100, 139, QueueSize.MEDIUM),
        ("thumbnail", True, 0.01667, 1, QueueSize.SMALL),
        ("wideRoadEncodeData", False, 20, None, QueueSize.BIG),
        ("narrowRoadEncodeIdx", False, 20, 1, QueueSize.SMALL),
        ("logMessage", True, 0, None, QueueSize.BIG),
    ],
)
def test_rows(
    name: str, should_log: bool, frequency: float, decimation: int | None, queue: QueueSize
) -> None:
    service = SERVICES[name]
    assert (service.should_log, service.frequency) == (should_log, frequency)
    assert (service.decimation, service.queue) == (decimation, queue)
    assert service.on_demand == (frequency == 0)


def test_old_names() -> None:
    assert canonical("roadCameraState") == "narrowRoadCameraState"
    assert canonical("liveTracks") == "radarTracks"
    assert canonical("microphone") == "soundPressure"
    assert canonical("driverMonitoringState") == "driverMonitoringState"
    assert SERVICES["extrinsicsCalibration"].aliases == ("liveCalibration",)


def test_unknown_service_names_similar_ones() -> None:
    with pytest.raises(UnknownServiceError, match="no service 'modelv3'; did you mean modelV2"):
        canonical("modelv3")
    with pytest.raises(UnknownServiceError, match=r"no service 'liveCalibratoin'.*extrinsicsCalib"):
        canonical("liveCalibratoin")
    with pytest.raises(UnknownServiceError, match="no service 'xyz'; see"):
        canonical("xyz")
