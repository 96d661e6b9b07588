"""The errors of this package. Each carries a sentence a user can act on."""


class MessagingError(Exception):
    """Base of every error raised here."""


class UnknownServiceError(MessagingError, KeyError):
    """A name that is no service and no member of the log schema."""

    def __str__(self) -> str:  # KeyError would print the quoted representation
        return str(self.args[0])


class BusError(MessagingError):
    """An endpoint of the bus cannot be used."""


class MessageError(MessagingError, ValueError):
    """Bytes that are not one whole, sound message."""


class LogFileError(MessagingError):
    """A log file that cannot be opened or written."""


class FrameError(MessagingError):
    """A camera frame or its shared memory that does not fit its description."""
