"""The services: every kind of message that travels on the bus, how often, and what of it is kept.

A service has the name of its member in the union of Event. Old names are accepted wherever a name
is asked for, see aliases.py.
"""

import difflib
import enum
from dataclasses import dataclass
from typing import Final

from messaging.aliases import EVENT_ALIASES
from messaging.errors import UnknownServiceError


class QueueSize(enum.IntEnum):
    """Bytes a queue of the service should be able to hold."""

    SMALL = 250 * 1024
    MEDIUM = 2 * 1024 * 1024
    BIG = 10 * 1024 * 1024


SMALL, MEDIUM, BIG = QueueSize.SMALL, QueueSize.MEDIUM, QueueSize.BIG


@dataclass(frozen=True)
class Service:
    """One service.

    should_log: kept in the full log (rlog).
    frequency: messages per second; 0 means on demand.
    decimation: every n-th message goes to the small log (qlog); None: none of them.
    queue: how much a receiver should be able to fall behind.
    aliases: older names, sorted.
    """

    name: str
    should_log: bool
    frequency: float
    decimation: int | None
    queue: QueueSize

    @property
    def aliases(self) -> tuple[str, ...]:
        return tuple(sorted(old for old, new in EVENT_ALIASES.items() if new == self.name))

    @property
    def on_demand(self) -> bool:
        """Messages come when there is something to say: silence is no sign of trouble."""
        return self.frequency <= 1e-5


_TABLE = (
    # name, kept in the rlog, Hz, decimation for the qlog, queue
    Service("gyroscope", True, 104, 104, SMALL),
    Service("accelerometer", True, 104, 104, SMALL),
    Service("temperatureSensor", True, 2, 200, SMALL),
    Service("deviceState", True, 2, 1, SMALL),
    Service("chestnutState", True, 10, 10, SMALL),
    Service("touch", True, 20, 1, SMALL),
    Service("can", True, 100, 2053, BIG),
    Service("controlsState", True, 100, 10, MEDIUM),
    Service("selfdriveState", True, 100, 10, SMALL),
    Service("pandaStates", True, 10, 1, SMALL),
    Service("peripheralState", True, 2, 1, SMALL),
    Service("radarState", True, 20, 5, SMALL),
    Service("narrowRoadEncodeIdx", False, 20, 1, SMALL),
    Service("radarTracks", True, 20, None, SMALL),
    Service("sendcan", True, 100, 139, MEDIUM),
    Service("logMessage", True, 0, None, BIG),
    Service("errorLogMessage", True, 0, 1, BIG),
    Service("extrinsicsCalibration", True, 4, 4, SMALL),
    Service("lateralTorqueParameters", True, 4, 1, SMALL),
    Service("lateralDelay", True, 4, 1, SMALL),
    Service("operatingSystemLog", True, 0, None, SMALL),
    Service("carState", True, 100, 10, SMALL),
    Service("carControl", True, 100, 10, SMALL),
    Service("carOutput", True, 100, 10, SMALL),
    Service("longitudinalPlan", True, 20, 10, SMALL),
    Service("lateralManeuverPlan", True, 20, None, SMALL),
    Service("driverAssistance", True, 20, 20, SMALL),
    Service("procLog", True, 0.5, 15, BIG),
    Service("gpsLocationExternal", True, 10, 10, SMALL),
    Service("gpsLocation", True, 1, 1, SMALL),
    Service("ubloxGnss", True, 10, None, SMALL),
    Service("qcomGnss", True, 2, None, SMALL),
    Service("clocks", True, 0.1, 1, SMALL),
    Service("ubloxRaw", True, 20, None, SMALL),
    Service("deviceMotion", True, 20, 4, SMALL),
    Service("vehicleParameters", True, 20, 5, SMALL),
    Service("cameraOdometry", True, 20, 10, SMALL),
    Service("thumbnail", True, 0.01667, 1, SMALL),
    Service("onroadEvents", True, 1, 1, SMALL),
    Service("carParams", True, 0.02, 1, SMALL),
    Service("narrowRoadCameraState", True, 20, 20, SMALL),
    Service("cabinCameraState", True, 20, 20, SMALL),
    Service("cabinEncodeIdx", False, 20, 1, SMALL),
    Service("driverStateV2", True, 20, 10, SMALL),
    Service("driverMonitoringState", True, 20, 10, SMALL),
    Service("wideRoadEncodeIdx", False, 20, 1, SMALL),
    Service("wideRoadCameraState", True, 20, 20, SMALL),
    Service("drivingModelData", True, 20, 10, SMALL),
    Service("modelV2", True, 20, None, BIG),
    Service("managerState", True, 2, 1, SMALL),
    Service("qNarrowRoadEncodeIdx", False, 20, None, SMALL),
    Service("userBookmark", True, 0, 1, SMALL),
    Service("soundPressure", True, 10, 10, SMALL),
    Service("rawAudioData", False, 20, None, SMALL),
    Service("bookmarkButton", True, 0, 1, SMALL),
    Service("narrowRoadEncodeData", False, 20, None, BIG),
    Service("cabinEncodeData", False, 20, None, BIG),
    Service("wideRoadEncodeData", False, 20, None, BIG),
    Service("qNarrowRoadEncodeData", False, 20, None, BIG),
    Service("uiDebug", True, 0, 1, SMALL),
    Service("testJoystick", True, 0, None, SMALL),
    Service("alertDebug", True, 20, 5, SMALL),
    Service("livestreamWideRoadEncodeIdx", False, 20, None, SMALL),
    Service("livestreamNarrowRoadEncodeIdx", False, 20, None, SMALL),
    Service("livestreamCabinEncodeIdx", False, 20, None, SMALL),
    Service("livestreamWideRoadEncodeData", False, 20, None, MEDIUM),
    Service("livestreamNarrowRoadEncodeData", False, 20, None, MEDIUM),
    Service("livestreamCabinEncodeData", False, 20, None, MEDIUM),
    Service("customReservedRawData0", True, 0, None, SMALL),
)

SERVICES: Final[dict[str, Service]] = {service.name: service for service in _TABLE}

# TCP ports: this many above FIRST_PORT are shared out by the hash of the name.
FIRST_PORT = 8023
_PORTS = 65535 - FIRST_PORT


def canonical(name: str) -> str:
    """The newest name of a service.

    Raises UnknownServiceError, naming similar services, when there is none.
    """
    newest = EVENT_ALIASES.get(name, name)
    if newest in SERVICES:
        return newest
    raise UnknownServiceError(f"there is no service {name!r}{_similar(name)}")


def _similar(name: str) -> str:
    names = {known.lower(): known for known in (*EVENT_ALIASES, *SERVICES)}
    matches = difflib.get_close_matches(name.lower(), names, n=3)
    newest = dict.fromkeys(EVENT_ALIASES.get(names[match], names[match]) for match in matches)
    found = [candidate for candidate in newest if candidate in SERVICES]
    return f"; did you mean {' or '.join(found)}?" if found else "; see messaging/services.py"


def fnv1a_64(data: bytes) -> int:
    """64-bit FNV-1a hash (Fowler, Noll, Vo), offset basis and prime as published."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFF_FFFF_FFFF_FFFF
    return value


def tcp_port(name: str) -> int:
    """TCP port of an endpoint. It follows the name as given: an alias has a port of its own."""
    return FIRST_PORT + fnv1a_64(name.encode()) % _PORTS
