"""Whether something listens at an endpoint, and how to say that it does not answer."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from ctl.endpoint import Endpoint
from ctl.errors import CommandError, ExitCode


def probe(endpoint: Endpoint, timeout: float) -> None:
    """A refused connection is known at once this way; ZeroMQ would retry in silence."""
    parts = urlsplit(endpoint.address)
    address = (parts.hostname or "", parts.port or 0)
    try:
        socket.create_connection(address, timeout=timeout).close()
    except ConnectionRefusedError as error:
        raise unreachable(endpoint, "connection refused", endpoint.hint()) from error
    except TimeoutError as error:
        raise unreachable(endpoint, f"no answer in {timeout:g} s", endpoint.hint()) from error
    except OSError as error:
        why = error.strerror or str(error)
        raise unreachable(endpoint, why, endpoint.hint()) from error


def unreachable(endpoint: Endpoint, why: str, todo: str) -> CommandError:
    """Nobody is there."""
    what = f"no coordinator at {endpoint.address}"
    return CommandError(ExitCode.UNREACHABLE, what, why, todo)


def silent(endpoint: Endpoint, seconds: float) -> CommandError:
    """Somebody is there, and does not answer."""
    return CommandError(
        ExitCode.TIMEOUT,
        f"the coordinator at {endpoint.address} does not answer",
        f"it was silent for {seconds:g} s",
        "see its log, or raise --timeout",
    )


def lost(endpoint: Endpoint) -> CommandError:
    """Somebody was there."""
    return CommandError(
        ExitCode.UNREACHABLE,
        f"the connection to the coordinator at {endpoint.address} was lost",
        "it ended or the network failed",
        "see `shardctl status`, then ask again",
    )
