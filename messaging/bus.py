"""Where the endpoints of the bus are: Unix sockets in a directory, TCP ports or msgq rings.

Every namespace is a bus of its own, so that parallel replays never meet.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from messaging.aliases import EVENT_ALIASES
from messaging.errors import BusError
from messaging.ring import process_runs
from messaging.services import tcp_port

NAMESPACE_VARIABLE = "TINYDRIVE_NAMESPACE"
PREFIX_VARIABLE = "OPENPILOT_PREFIX"
SHARED_MEMORY = Path("/dev/shm")  # a file system in memory, where the system has one

_SOCKET_PATH_LIMIT = 107  # bytes, sizeof(sockaddr_un.sun_path) - 1 on Linux


class Bus:
    """A set of endpoints.

    namespace: name of the bus; None takes the environment variable TINYDRIVE_NAMESPACE, else
        "default". Letters, digits, dot, dash and underscore.
    host: None for Unix sockets on this machine. With a host, endpoints are TCP with the port
        rule of services.tcp_port: publishers bind to that address ("*": all), subscribers
        connect to it ("*": this machine). Camera frames stay on this machine in either case.
    msgq_prefix: None for ZeroMQ. Otherwise messages travel in the shared memory rings of
        openpilot's own bus (msgq.py) with this prefix, camera frames in VisionIPC (visionipc.py);
        "" for the rings without one.

    Raises BusError for a namespace or prefix that cannot be the name of a directory.
    """

    def __init__(
        self,
        namespace: str | None = None,
        host: str | None = None,
        msgq_prefix: str | None = None,
    ) -> None:
        self.namespace = namespace or os.environ.get(NAMESPACE_VARIABLE) or "default"
        self.host = host
        self.msgq_prefix = msgq_prefix
        for name in filter(None, (self.namespace, msgq_prefix)):
            if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
                raise BusError(
                    f"{name!r} cannot name a bus: use letters, digits, dot, dash, underscore"
                )
        if host is not None and msgq_prefix is not None:
            raise BusError("a bus is either TCP or msgq: msgq rings have no host")

    @classmethod
    def fresh(cls) -> Self:
        """A bus that nobody else is on. What killed processes left of theirs is removed."""
        for name in _abandoned():
            cls(name).remove()
        return cls(f"run-{os.getpid()}-{secrets.token_hex(4)}")

    @classmethod
    @contextlib.contextmanager
    def at_or_fresh(cls, address: str | None) -> Iterator[Self]:
        """The bus at an address; for None a fresh one, removed at the end of the `with` block."""
        if address is not None:
            yield cls.at(address)
            return
        bus = cls.fresh()
        try:
            yield bus
        finally:
            bus.remove()

    @classmethod
    def msgq(cls, prefix: str | None = None) -> Self:
        """openpilot's own bus on this machine.

        prefix: None takes the environment variable OPENPILOT_PREFIX, else "" (no prefix).
        """
        if prefix is None:
            prefix = os.environ.get(PREFIX_VARIABLE, "")
        return cls(prefix or None, msgq_prefix=prefix)

    @classmethod
    def at(cls, address: str | None) -> Self:
        """The bus a user means: a namespace, tcp://HOST, msgq or msgq:PREFIX; None: the default.

        Raises BusError for an address that is none of these.
        """
        if address is None:
            return cls()
        scheme, separator, host = address.partition("://")
        if separator:
            if scheme != "tcp" or not re.fullmatch(r"\*|[A-Za-z0-9._-]+", host):
                raise BusError(
                    f"{address!r} is no bus: write tcp://HOST (the services have fixed ports), "
                    "msgq, msgq:PREFIX or a namespace"
                )
            return cls(host=host)
        if address == "msgq" or address.startswith("msgq:"):
            return cls.msgq(address[len("msgq:") :] or None)
        return cls(address)

    @property
    def address(self) -> str:
        """What `at` makes this bus of."""
        if self.msgq_prefix is not None:
            return f"msgq:{self.msgq_prefix}" if self.msgq_prefix else "msgq"
        return self.namespace if self.host is None else f"tcp://{self.host}"

    def __repr__(self) -> str:
        if self.msgq_prefix is not None:
            return f"Bus.msgq({self.msgq_prefix!r})"
        return f"Bus(namespace={self.namespace!r}, host={self.host!r})"

    def __eq__(self, other: object) -> bool:
        """Whether a message sent on one arrives on the other."""
        return isinstance(other, Bus) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, str]:
        if self.msgq_prefix is not None:
            return "msgq", self.msgq_prefix
        return ("tcp", self.host) if self.host is not None else ("ipc", self.namespace)

    @property
    def directory(self) -> Path:
        """Directory of the sockets, whether or not it exists. Mode 0700, owned by this user."""
        return _directories() / self.namespace

    def endpoint(self, name: str, bind: bool) -> str:
        """ZeroMQ address of the endpoint `name`; makes the directory it lies in.

        Raises BusError if the directory is not ours alone or the path is too long for a socket.
        """
        if self.host is None:
            return self.local_endpoint(name)
        host = "127.0.0.1" if self.host == "*" and not bind else self.host
        return f"tcp://{host}:{tcp_port(name)}"

    def local_endpoint(self, name: str) -> str:
        """Unix socket of the endpoint `name`, also for a bus over TCP. Errors as `endpoint`."""
        path = self.make_directory() / EVENT_ALIASES.get(name, name)
        length = len(os.fsencode(path))
        if length > _SOCKET_PATH_LIMIT:
            raise BusError(
                f"socket path {path} has {length} bytes, the system allows {_SOCKET_PATH_LIMIT}; "
                "use a shorter namespace, or set XDG_RUNTIME_DIR or TMPDIR to a shorter directory"
            )
        return f"ipc://{path}"

    def lock(self, name: str) -> int:
        """Reserve the endpoint `name` for one publisher; gives the descriptor that holds it.

        The system releases the lock when the descriptor is closed, also by a killed process.
        Raises BusError, naming the holder, if it is taken.
        """
        path = self.make_directory() / f"{EVENT_ALIASES.get(name, name)}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise BusError(
                f"{name} already has a publisher on bus {self.namespace!r}: process {holder}; "
                "stop it, or use another namespace"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def shared_files(self, name: str) -> list[Path]:
        """Places for the shared memory file `name`, best first."""
        places = [self.directory / f"{name}.frames"]
        if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK):
            # "@" is in no namespace, so that one namespace is never the beginning of another
            places.insert(0, SHARED_MEMORY / f"{self._shared_prefix}{name}")
        return places

    def msgq_ring(self, name: str) -> Path:
        """Place of the msgq ring `name`; makes the folder of the prefix."""
        if not self.msgq_prefix:
            return SHARED_MEMORY / f"msgq_{name}"
        folder = SHARED_MEMORY / f"msgq_{self.msgq_prefix}"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise BusError(f"cannot use {folder} for the bus: {error.strerror}") from error
        return folder / name

    def vision_socket(self, name: str) -> Path:
        """Unix socket at which the camera server `name` of openpilot's own processes listens."""
        prefix = f"{self.msgq_prefix}_" if self.msgq_prefix else ""
        return Path(f"/tmp/{prefix}visionipc_{name}")

    @property
    def _shared_prefix(self) -> str:
        return f"tinydrive-{os.getuid()}@{self.namespace}@"

    def remove(self) -> None:
        """Delete the directory of this bus and its shared memory. Does nothing if there is none.

        Rings of msgq without a prefix stay: they are everybody's.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.msgq_prefix:
            shutil.rmtree(SHARED_MEMORY / f"msgq_{self.msgq_prefix}", ignore_errors=True)
        if SHARED_MEMORY.is_dir():
            for path in SHARED_MEMORY.glob(f"{self._shared_prefix}*"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def make_directory(self) -> Path:
        """Make `directory` and give it. Raises BusError if it cannot be ours alone."""
        directory = self.directory
        for path in (directory.parent, directory):
            try:
                path.mkdir(mode=0o700, exist_ok=True)
                status = path.lstat()
            except OSError as error:
                raise BusError(f"cannot use {path} for the bus: {error.strerror}") from error
            # somebody else's directory (or link) could hand our sockets to them
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                raise BusError(f"{path} is not a directory of this user; remove it or set TMPDIR")
        return directory


def _directories() -> Path:
    """Where the directories of all buses of this user are."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "tinydrive"
    return Path(tempfile.gettempdir()) / f"tinydrive-{os.getuid()}"


def _abandoned() -> list[str]:
    """Namespaces of `Bus.fresh` whose process is gone."""
    shared = SHARED_MEMORY.glob(f"tinydrive-{os.getuid()}@run-*@*")
    names = {path.name.split("@")[1] for path in shared}
    names |= {path.name for path in _directories().glob("run-*")}
    makers = {name: re.match(r"run-(\d+)-", name) for name in names}
    return [name for name, maker in makers.items() if maker and not process_runs(int(maker[1]))]
