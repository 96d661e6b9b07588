"""Where the endpoints of the bus are: a directory of Unix sockets of one's own, or TCP ports.

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
from pathlib import Path
from typing import Self

from messaging.aliases import EVENT_ALIASES
from messaging.errors import BusError
from messaging.services import tcp_port

NAMESPACE_VARIABLE = "TINYDRIVE_NAMESPACE"
SHARED_MEMORY = Path("/dev/shm")  # a file system in memory, where the system has one

_SOCKET_PATH_LIMIT = 107  # bytes, sizeof(sockaddr_un.sun_path) - 1 on Linux


class Bus:
    """A set of endpoints.

    namespace: name of the bus; None takes the environment variable TINYDRIVE_NAMESPACE, else
        "default". Letters, digits, dot, dash and underscore.
    host: None for Unix sockets on this machine. With a host, endpoints are TCP with the port
        rule of services.tcp_port: publishers bind to that address ("*": all), subscribers
        connect to it ("*": this machine). Camera frames stay on this machine in either case.

    Raises BusError for a namespace that cannot be the name of a directory.
    """

    def __init__(self, namespace: str | None = None, host: str | None = None) -> None:
        self.namespace = namespace or os.environ.get(NAMESPACE_VARIABLE) or "default"
        self.host = host
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", self.namespace):
            raise BusError(
                f"{self.namespace!r} cannot name a bus: use letters, digits, dot, dash, underscore"
            )

    @classmethod
    def fresh(cls) -> Self:
        """A bus that nobody else is on."""
        return cls(f"run-{os.getpid()}-{secrets.token_hex(4)}")

    def __repr__(self) -> str:
        return f"Bus(namespace={self.namespace!r}, host={self.host!r})"

    @property
    def directory(self) -> Path:
        """Directory of the sockets, whether or not it exists. Mode 0700, owned by this user."""
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        if runtime and os.access(runtime, os.W_OK | os.X_OK):
            base = Path(runtime) / "tinydrive"
        else:
            base = Path(tempfile.gettempdir()) / f"tinydrive-{os.getuid()}"
        return base / self.namespace

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
        path = self._make_directory() / EVENT_ALIASES.get(name, name)
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
        path = self._make_directory() / f"{EVENT_ALIASES.get(name, name)}.lock"
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

    @property
    def _shared_prefix(self) -> str:
        return f"tinydrive-{os.getuid()}@{self.namespace}@"

    def remove(self) -> None:
        """Delete the directory of this bus and its shared memory. Does nothing if there is none."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if SHARED_MEMORY.is_dir():
            for path in SHARED_MEMORY.glob(f"{self._shared_prefix}*"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _make_directory(self) -> Path:
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
