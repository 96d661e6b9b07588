"""PubMaster and SubMaster over real sockets; time is made up where it matters."""

import gc
import logging
import time
from typing import Any

import pytest

from messaging import Bus, BusError, PubMaster, SubMaster, UnknownServiceError, new_message

SOON = 30.0  # s; far more than needed, machines may be busy


def car_state(speed: float, valid: bool = True) -> Any:
    message = new_message("carState", valid=valid)
    message.carState.vEgo = speed
    return message


def find_each_other(publisher: PubMaster, receiver: SubMaster) -> None:
    """A subscriber subscribes anew, after its publisher came back, while it looks for messages."""
    deadline = time.monotonic() + SOON
    while not publisher.wait_for_subscribers(timeout=0.01):
        receiver.update(10)
        assert time.monotonic() < deadline


def test_newest_message_wins(bus: Bus) -> None:
    with PubMaster(["carState"], bus) as publisher, SubMaster(["carState"], bus=bus) as receiver:
        assert publisher.wait_for_subscribers(timeout=SOON)
        messages = [car_state(float(speed)) for speed in range(50)]
        for message in messages:
            publisher.send("carState", message)
        assert receiver.wait_for({"carState": messages[-1].logMonoTime}, SOON)
        assert receiver["carState"].vEgo == 49
        assert receiver.logMonoTime["carState"] == messages[-1].logMonoTime
        receiver.update(0)
        assert not receiver.updated["carState"]
        assert receiver["carState"].vEgo == 49


def test_before_the_first_message(bus: Bus) -> None:
    services = ["carState", "can", "logMessage", "vehicleParameters"]
    with SubMaster(services, bus=bus) as receiver:
        assert receiver.frame == -1
        receiver.update(0)
        assert receiver.frame == 0
        assert receiver["carState"].vEgo == 0
        assert len(receiver["can"]) == 0
        assert receiver["logMessage"] == ""
        assert receiver["vehicleParameters"].steerRatioValid  # a default that is not zero
        assert not any(receiver.seen.values())
        assert not receiver.alive["carState"]
        assert not receiver.valid["carState"]
        assert not receiver.all_checks(["carState"])
        assert receiver.all_checks(["logMessage"])  # on demand: silence is fine


def test_old_names_are_accepted(bus: Bus) -> None:
    with (
        PubMaster(["liveCalibration"], bus) as publisher,
        SubMaster(["extrinsicsCalibration"], bus=bus, ignore_alive=["liveCalibration"]) as receiver,
    ):
        assert publisher.wait_for_subscribers(["extrinsicsCalibration"], SOON)
        message = new_message("liveCalibration", valid=True)
        publisher.send("liveCalibration", message)
        assert receiver.wait_for({"liveCalibration": message.logMonoTime}, SOON)
        assert receiver["liveCalibration"].calPerc == 0
        assert receiver.updated["liveCalibration"]
        assert receiver.updated["extrinsicsCalibration"]
        assert receiver.all_valid(["liveCalibration"])


def test_wrong_names(bus: Bus) -> None:
    with pytest.raises(UnknownServiceError, match="did you mean carState"):
        PubMaster(["carstate"], bus)
    with pytest.raises(UnknownServiceError, match="did you mean carState"):
        SubMaster(["carstate"], bus=bus)
    with SubMaster(["carState"], bus=bus) as receiver:
        with pytest.raises(KeyError, match="not subscribed to modelV2; subscribed: carState"):
            receiver["modelV2"]
        with pytest.raises(UnknownServiceError, match="no service 'speed'"):
            receiver["speed"]
    with (
        PubMaster(["carState"], bus) as publisher,
        pytest.raises(BusError, match="modelV2 is not among the services of this PubMaster"),
    ):
        publisher.send("modelV2", new_message("modelV2"))
    with pytest.raises(ValueError, match="exclude each other"):
        SubMaster(["carState"], poll="carState", frequency=20, bus=bus)
    with pytest.raises(ValueError, match="cannot poll modelV2"):
        SubMaster(["carState"], poll="modelV2", bus=bus)


def test_poll_wakes_only_for_its_service(bus: Bus) -> None:
    with (
        PubMaster(["carState", "modelV2"], bus) as publisher,
        SubMaster(["carState", "modelV2"], poll="modelV2", bus=bus) as receiver,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        publisher.send("carState", car_state(1.0))
        model = new_message("modelV2")
        publisher.send("modelV2", model)
        # waits for modelV2, and takes carState along if it is there
        receiver.update(SOON * 1000)
        assert receiver.updated["modelV2"]
        assert receiver.logMonoTime["modelV2"] == model.logMonoTime


def test_wait_for_is_one_update(bus: Bus) -> None:
    with (
        PubMaster(["carState", "modelV2"], bus) as publisher,
        SubMaster(["carState", "modelV2"], bus=bus) as receiver,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        car, model = car_state(3.0), new_message("modelV2")
        publisher.send("carState", car)
        publisher.send("modelV2", model)
        barrier = {"carState": car.logMonoTime, "modelV2": model.logMonoTime, "can": 2**60}
        assert receiver.wait_for(barrier, SOON)  # `can` is not ours
        assert receiver.frame == 0
        assert receiver.updated == {"carState": True, "modelV2": True}
        assert receiver.recv_frame == {"carState": 0, "modelV2": 0}
        assert not receiver.wait_for({"carState": car.logMonoTime + 1}, 0.01)
        assert receiver.wait_for({}, 0.0)
        assert receiver.frame == 2


def test_malformed_messages_are_counted_and_named_once(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    with PubMaster(["carState"], bus) as publisher, SubMaster(["carState"], bus=bus) as receiver:
        assert publisher.wait_for_subscribers(timeout=SOON)
        wrong = [b"", b"nonsense", bytes(64), new_message("modelV2").to_bytes()]
        with caplog.at_level(logging.WARNING):
            for count, data in enumerate(wrong, start=1):
                publisher.send("carState", data)
                while receiver.malformed["carState"] < count:
                    receiver.update(1000)
        assert receiver.malformed["carState"] == 4
        assert not receiver.seen["carState"]
        assert [r.getMessage() for r in caplog.records] == [
            "a message on carState is thrown away: "
            "not one whole message: 0 bytes, its segment table is cut off"
        ]
        good = car_state(2.0)
        publisher.send("carState", good)
        assert receiver.wait_for({"carState": good.logMonoTime}, SOON)
        assert receiver["carState"].vEgo == 2


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_alive_valid_and_frequency(bus: Bus) -> None:
    clock = Clock()
    with (
        PubMaster(["cameraOdometry"], bus) as publisher,
        SubMaster(["cameraOdometry"], bus=bus, clock=clock) as receiver,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        message = new_message("cameraOdometry")
        for index in range(25):
            message = new_message("cameraOdometry", valid=index % 2 == 0)
            publisher.send("cameraOdometry", message)
            assert receiver.wait_for({"cameraOdometry": message.logMonoTime}, SOON)
            assert receiver.recv_time["cameraOdometry"] == clock.now
            assert receiver.valid["cameraOdometry"] == (index % 2 == 0)
            clock.now += 0.05
        assert receiver.all_checks()

        clock.now += 0.44  # 0.49 s after the last one, ten periods are 0.5
        receiver.update(0)
        assert receiver.all_alive()
        clock.now += 0.02
        receiver.update(0)
        assert not receiver.all_alive()
        assert not receiver.all_checks()


def test_ignore_lists(bus: Bus) -> None:
    services = ["carState", "thumbnail"]
    with SubMaster(services, bus=bus, ignore_alive=services) as receiver:
        receiver.update(0)
        assert receiver.all_alive()
        assert receiver.all_freq_ok()  # what need not be alive need not be regular
        assert not receiver.all_valid()
    with SubMaster(services, bus=bus, ignore_avg_freq=["carState"]) as receiver:
        assert receiver.all_freq_ok()  # thumbnail is too rare to be judged
        assert not receiver.all_alive()
    with SubMaster(services, bus=bus, ignore_valid=services) as receiver:
        assert receiver.all_valid()


def test_simulation_relaxes_the_checks(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATION", "1")
    clock = Clock()
    with (
        PubMaster(["carState"], bus) as publisher,
        SubMaster(["carState"], bus=bus, clock=clock) as receiver,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        receiver.update(0)
        assert not receiver.alive["carState"]
        message = car_state(1.0)
        publisher.send("carState", message)
        assert receiver.wait_for({"carState": message.logMonoTime}, SOON)
        clock.now += 1000
        receiver.update(0)
        assert receiver.alive["carState"]
        assert receiver.freq_ok["carState"]


def test_subscribers_are_counted_and_noticed(bus: Bus) -> None:
    with PubMaster(["carState", "modelV2"], bus) as publisher:
        assert not publisher.wait_for_subscribers(timeout=0.01)
        assert publisher.new_subscribers() == set()
        first = SubMaster(["carState"], bus=bus)
        assert publisher.wait_for_subscribers(["carState"], SOON)
        assert not publisher.wait_for_subscribers(timeout=0.01)
        assert publisher.new_subscribers() == {"carState"}
        assert publisher.new_subscribers() == set()
        second = SubMaster(["carState"], bus=bus)
        assert publisher.wait_for_subscribers(["carState"], SOON, count=2)
        assert publisher.new_subscribers() == {"carState"}
        first.close()
        second.close()
        deadline = time.monotonic() + SOON
        while publisher.wait_for_subscribers(["carState"], timeout=0.01):
            assert time.monotonic() < deadline
        third = SubMaster(["carState", "modelV2"], bus=bus)
        assert publisher.wait_for_subscribers(timeout=SOON)
        assert publisher.new_subscribers() == {"carState", "modelV2"}
        third.close()


def test_subscriber_before_publisher(bus: Bus) -> None:
    with SubMaster(["carState"], bus=bus) as receiver:
        for speed in (1.0, 2.0):  # and across a restart
            with PubMaster(["carState"], bus) as publisher:
                find_each_other(publisher, receiver)
                message = car_state(speed)
                publisher.send("carState", message)
                assert receiver.wait_for({"carState": message.logMonoTime}, SOON)
                assert receiver["carState"].vEgo == speed


def test_namespaces_do_not_meet(bus: Bus) -> None:
    other = Bus.fresh()
    with (
        PubMaster(["carState"], bus) as publisher,
        PubMaster(["carState"], other),
        SubMaster(["carState"], bus=other) as receiver,
    ):
        assert not publisher.wait_for_subscribers(timeout=0.05)
        publisher.send("carState", car_state(1.0))
        receiver.update(50)
        assert not receiver.seen["carState"]
    other.remove()


def test_a_master_that_nobody_closes_frees_its_services(bus: Bus) -> None:
    master = PubMaster(["carState"], bus=bus)
    del master
    gc.collect()
    PubMaster(["carState"], bus=bus).close()  # would raise while the first one lives


def test_without_conflation_nothing_is_left_behind(bus: Bus) -> None:
    """The newest of all queued messages counts, and each of them was looked at."""
    with PubMaster(["carState"], bus=bus) as master:
        receiver = SubMaster(["carState"], bus=bus, conflate=False)
        assert master.wait_for_subscribers(timeout=30)
        master.send("carState", b"nonsense")
        for speed in (1.0, 2.0, 3.0):
            message = new_message("carState", valid=True)
            message.carState.vEgo = speed
            master.send("carState", message)
        assert receiver.wait_for({"carState": message.logMonoTime}, 30)
        assert receiver["carState"].vEgo == 3.0
        assert receiver.malformed["carState"] == 1
        receiver.close()
