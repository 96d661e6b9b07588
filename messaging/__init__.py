"""Messages between processes: schema, services, bus, log files, camera frames in shared memory."""

from messaging.bus import Bus
from messaging.errors import (
    BusError,
    FrameError,
    LogFileError,
    MessageError,
    MessagingError,
    UnknownServiceError,
)
from messaging.frame_transport import (
    FrameReceiver,
    FrameSender,
    frame_receiver,
    frame_senders,
)
from messaging.frames import Frame, FrameClient, FrameGeometry, FrameServer, Stream
from messaging.logfile import LogReader, LogWriter
from messaging.message import Peek, decode, event_member, new_message, peek, to_bytes
from messaging.plain import enumerant
from messaging.pubsub import PubMaster, SubMaster
from messaging.routes import log_files
from messaging.schema import Event, car, log
from messaging.segments import SegmentWriter
from messaging.services import SERVICES, Service, canonical, tcp_port

__all__ = [
    "SERVICES",
    "Bus",
    "BusError",
    "Event",
    "Frame",
    "FrameClient",
    "FrameError",
    "FrameGeometry",
    "FrameReceiver",
    "FrameSender",
    "FrameServer",
    "LogFileError",
    "LogReader",
    "LogWriter",
    "MessageError",
    "MessagingError",
    "Peek",
    "PubMaster",
    "SegmentWriter",
    "Service",
    "Stream",
    "SubMaster",
    "UnknownServiceError",
    "canonical",
    "car",
    "decode",
    "enumerant",
    "event_member",
    "frame_receiver",
    "frame_senders",
    "log",
    "log_files",
    "new_message",
    "peek",
    "tcp_port",
    "to_bytes",
]
