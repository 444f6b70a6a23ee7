"""What can go wrong with the store.

StoreError
|-- StoreTimeout       no reply within the deadline; the command may still have run
|-- StoreUnavailable   not connected, connection lost, or the breaker is open
|   |-- StoreLoading   the server reads its data from disk
|   `-- StoreMoved     the keys live on another node (MOVED, ASK, CLUSTERDOWN, TRYAGAIN)
|-- StoreReadOnly      the server is a replica, or cannot persist
|-- StoreFull          out of memory: maxmemory reached and nothing may be evicted
|-- StoreRefused       credentials or permissions
`-- StoreScriptError   anything else the server answered: a defect in a script or command
"""

from __future__ import annotations


class StoreError(Exception):
    """Any failure of the store."""


class StoreTimeout(StoreError):
    """No reply within the deadline. Whether the command ran is not known."""


class StoreUnavailable(StoreError):
    """There is no usable connection. Raised at once while the breaker is open."""


class StoreLoading(StoreUnavailable):
    """The server is up but still reads its data."""


class StoreMoved(StoreUnavailable):
    """The keys are served by another cluster node."""


class StoreReadOnly(StoreError):
    """Writes are refused: a demoted primary, or a server that cannot write to its disk."""


class StoreFull(StoreError):
    """Writes are refused for lack of memory."""


class StoreRefused(StoreError):
    """The server does not accept these credentials or this command."""


class StoreScriptError(StoreError):
    """The server rejected the command itself."""


_BY_CODE: dict[str, type[StoreError]] = {
    "LOADING": StoreLoading,
    "MASTERDOWN": StoreUnavailable,
    "BUSY": StoreUnavailable,
    "MOVED": StoreMoved,
    "ASK": StoreMoved,
    "CLUSTERDOWN": StoreMoved,
    "TRYAGAIN": StoreMoved,
    "READONLY": StoreReadOnly,
    "MISCONF": StoreReadOnly,
    "NOREPLICAS": StoreReadOnly,
    "OOM": StoreFull,
    "NOAUTH": StoreRefused,
    "WRONGPASS": StoreRefused,
    "NOPERM": StoreRefused,
}

# Errors raised inside a script carry the code of the failing command somewhere in the text:
# "ERR Error running script ...: @user_script:12: -OOM command not allowed ..."
_IN_SCRIPTS: tuple[str, ...] = ("OOM", "READONLY", "MISCONF", "MOVED", "CLUSTERDOWN")


def translate(message: str) -> StoreError:
    """The error for a server's error reply, by its first word (RESP: `-CODE text`)."""
    code = message.partition(" ")[0]
    kind = _BY_CODE.get(code)
    if kind is None:
        words = message.replace("-", " ").split()
        inner = next((code for code in _IN_SCRIPTS if code in words), None)
        kind = _BY_CODE[inner] if inner else StoreScriptError
    return kind(message)
