"""The embedded engine: llama.cpp's own HTTP server in a child process on a loopback port.

The child (`python -m backends.local.engine --model FILE`) keeps the model's memory, so a crash, a
kill or a restart of the engine leaves the gateway's process alone. It reports its address in one
line on stdout and exits when its stdin closes, which the kernel does when the parent dies,
however it dies. Linux's PDEATHSIG is left out on purpose: it fires when the *thread* that started
the child ends, so that an engine started in a short-lived thread would be killed for no reason.

One server answers chat, messages, responses, completions and (with `embeddings`) embeddings, and
shows counters on `/metrics`. Prompts are logged nowhere.

    EngineError     the engine is not installed, the file is unusable, or the child did not start
"""

import argparse
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import msgspec

READY = "engine listening on "
TAIL_LINES = 20
INSTALL_HINT = "the local engine is not installed: pip install 'tollhouse[local]'"


class EngineError(Exception):
    """The local engine could not be started; the message names the file and the last log lines."""


def tiny_model_path() -> Path:
    """The tiny model shipped with the package (about 0.7 M weights, 1.4 MB of GGUF)."""
    return Path(__file__).with_name("tiny.gguf")


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one engine serves, and with how much of the machine.

    `parallel` requests are decoded at once and the others wait; each may use `context` tokens
    (prompt and answer, at most what the model was made for), so the key-value cache has room for
    `parallel * context` tokens. `port` 0 lets the kernel choose a free one. `alias` is the name the
    engine reports in `/v1/models`; it accepts any name in requests.
    """

    model: str = msgspec.field(default_factory=lambda: str(tiny_model_path()))
    alias: str = "tiny"
    host: str = "127.0.0.1"
    port: int = 0
    parallel: int = 4
    context: int = 8192
    threads: int = 1
    embeddings: bool = True


class Engine:
    """A llama.cpp server as a child process. `start` and `stop` block; both may be repeated.

    Usable as a context manager. From async code call them with `asyncio.to_thread`.
    """

    def __init__(self, settings: EngineSettings, *, start_timeout: float = 60.0) -> None:
        self.settings = settings
        self.start_timeout = start_timeout
        self.port = 0
        self._first_port = settings.port
        self._process: subprocess.Popen[str] | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def base_url(self) -> str:
        """The OpenAI base URL, ending in `/v1`. It and `port` are known once started."""
        return f"http://{self.settings.host}:{self.port}/v1"

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None when there is none."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the child is alive (it may still be loading)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the child and wait until `/health` says ok. Started again, it has the port that it
        had at first.

        Raises:
            EngineError: not installed, no such file, not a GGUF file, the child ended, or it was
                not ready within `start_timeout` seconds. No child is left behind.
        """
        if self.running:
            return
        self.stop()  # of a child that died there are pipes left
        self._check()
        self._tail.clear()
        settings = msgspec.structs.replace(self.settings, port=self._first_port)
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "backends.local.engine", *_arguments(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"PYTHONPATH": _python_path()},
        )
        listening = threading.Event()
        threading.Thread(target=self._drain, args=(process, listening), daemon=True).start()
        deadline = time.monotonic() + self.start_timeout
        try:
            listening.wait(self.start_timeout)
            while not self._healthy():
                if process.poll() is not None:
                    raise self._failure(f"ended with status {process.returncode}")
                if time.monotonic() > deadline:
                    raise self._failure(f"was not ready within {self.start_timeout:g} s")
                time.sleep(0.02)
            self._first_port = self.port
        except BaseException:
            # Also on Ctrl-C: no child is left behind.
            self.stop()
            raise

    def stop(self) -> None:
        """End the child: politely, and after five seconds by force."""
        process, self._process = self._process, None
        if process is None:
            return
        self.port = 0
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _check(self) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise EngineError(INSTALL_HINT)
        path = self.settings.model
        try:
            with open(path, "rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise EngineError(f"model file {path}: {error.strerror or error}") from error
        if magic != b"GGUF":
            raise EngineError(f"model file {path}: not a GGUF file")

    def _drain(self, process: subprocess.Popen[str], listening: threading.Event) -> None:
        """Keep the child's last lines and pick its port out of them, until it closes its output."""
        if process.stdout is None:
            raise TypeError("the child has no output pipe")
        with process.stdout:
            for line in process.stdout:
                if line.startswith(READY):
                    self.port = int(line.rstrip().rpartition(":")[2])
                    listening.set()
                else:
                    self._tail.append(line.rstrip())
        listening.set()

    def _healthy(self) -> bool:
        if not self.port:
            return False
        connection = http.client.HTTPConnection(self.settings.host, self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _failure(self, what: str) -> EngineError:
        lines = "\n".join(self._tail) or "(it wrote nothing)"
        return EngineError(f"the engine for {self.settings.model} {what}; its last lines:\n{lines}")


def _python_path() -> str:
    """PYTHONPATH for the child, so that it finds this package from any working directory."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))


def _arguments(settings: EngineSettings) -> list[str]:
    """The child's command line; `_parse` is its inverse."""
    return [
        f"--{name}={json.dumps(value) if isinstance(value, bool) else value}"
        for name, value in msgspec.structs.asdict(settings).items()
    ]


def _parse(arguments: list[str] | None) -> EngineSettings:
    parser = argparse.ArgumentParser(description="Serve one GGUF model over HTTP.")
    for field in msgspec.structs.fields(EngineSettings):
        parser.add_argument(f"--{field.name}", default=argparse.SUPPRESS)
    return msgspec.convert(vars(parser.parse_args(arguments)), EngineSettings, strict=False)


def _serve(settings: EngineSettings) -> NoReturn:
    """Load the model, listen, report the address, and live until stdin closes."""
    import xllamacpp  # type: ignore[import-untyped,unused-ignore]  # ships no type information

    params = xllamacpp.CommonParams()
    params.model.path = settings.model
    params.model_alias = {settings.alias}
    params.hostnames = [settings.host]
    params.port = settings.port
    params.n_parallel = settings.parallel
    params.n_ctx = settings.parallel * settings.context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    # A kept-alive connection holds one of these threads, busy or not.
    params.n_threads_http = 4 * settings.parallel + 16
    params.use_jinja = True
    params.warmup = False
    params.endpoint_metrics = True
    params.endpoint_slots = False
    params.ui = False
    params.offline = True
    params.cache_ram_mib = 0  # the default may grow to 8 GiB of old prompts
    params.verbosity = 1  # errors only: no prompt ever reaches a log
    if settings.embeddings:
        params.embedding = True  # chat stays available
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        params.n_batch = params.n_ubatch = min(settings.context, 2048)  # longest embedding input
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:  # its reason is in the log lines before
        raise SystemExit(f"llama.cpp refused to start: {error}") from error
    try:
        sys.stdout.write(f"{READY}{server.listening_address}\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()
    finally:
        # Not by returning: the server's destructor waits for open streams, and was seen to hang.
        os._exit(0)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the child. Ctrl-C is the parent's business."""
    settings = _parse(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(settings)


if __name__ == "__main__":
    main()
