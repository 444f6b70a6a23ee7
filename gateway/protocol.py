"""The server's side of HTTP/1.1: uvicorn's, with bounds on what is kept and waited for before a
request is known. The parser itself has none: a header that never ends is copied again for each
piece of it, and a connection that says nothing stays open.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.errors import GatewayError

MAX_HEAD_BYTES = 64 * 1024
"""Of the request line and all headers together, and of whatever else is neither body nor the end of
a request: trailers, extensions of chunks, empty lines."""
# How much more of a refused client is read, and how long it has to read why: closed with something
# unread, the connection is reset.
_LINGER_BYTES = 1024 * 1024
_LINGER_SECONDS = 1.0

_TOO_LARGE = GatewayError(
    431,
    "request_header_fields_too_large",
    f"The address and headers of the request are larger than {MAX_HEAD_BYTES >> 10} KiB.",
)
_INVALID = GatewayError(400, "invalid_http", "This is not a valid HTTP request.")


class HeadTooLarge(Exception):
    """Ends the parsing of a request."""


class Protocol(HttpToolsProtocol):
    """One connection of a client. A head has as many seconds to arrive as a connection may be idle
    (`timeout_keep_alive`). Trailers are read and forgotten: none of them may pass for a header
    (RFC 9110, section 6.5.1)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._moved = False
        self._refused = False
        # Bytes since the last piece of a body or end of a head or request.
        self._stalled = 0
        self._timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._stalled += len(data)
        if self._refused:
            if self._stalled > _LINGER_BYTES:
                self.transport.pause_reading()
            return
        self._moved = False
        super().data_received(data)
        if self._moved:
            self._stalled = 0
        elif self._stalled > MAX_HEAD_BYTES:
            self._refuse(_TOO_LARGE)
        if self._timer is None and (self._in_head or self._is_idle()):
            self._wait()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._moved = True
        self._stop_waiting()
        if self._stalled > MAX_HEAD_BYTES:
            size = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
            if size > MAX_HEAD_BYTES:
                raise HeadTooLarge
        super().on_headers_complete()
        # Trailers come into a list that nobody reads.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called inside the handler of the parser's error."""
        cause = sys.exception()
        too_large = cause is not None and isinstance(cause.__context__, HeadTooLarge)
        self._refuse(_TOO_LARGE if too_large else _INVALID)

    def _refuse(self, error: GatewayError) -> None:
        """Answer, and close. Where another answer is still going out, only close: nothing may be
        written into it."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if not self._is_idle():
            self.transport.close()
            return
        body = error.body()
        lines = [b"%b: %b\r\n" % header for header in error.headers()]
        lines += [b"content-length: %d\r\n" % len(body), b"connection: close\r\n\r\n"]
        self.transport.write(STATUS_LINE[error.status] + b"".join(lines) + body)
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _is_idle(self) -> bool:
        """Whether no request is being served."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.timeout_keep_alive, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_idle():
            self.transport.close()
        else:
            self._wait()
