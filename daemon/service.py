"""What a process owes the service manager that started it: notifications, watchdog, signals.

No dependency: systemd's protocol is one datagram of `KEY=value` lines. Signals do nothing but put a
`Demand` into the owner's queue, the same queue that commands use.
"""

from __future__ import annotations

import enum
import faulthandler
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from daemon.config.errors import EX_CONFIG

if TYPE_CHECKING:
    import asyncio  # most processes have no loop, and it takes a while to import

LAUNCHD_LABEL = "io.shardbus.shardd"
SEND_TIMEOUT_S = 1.0


class Notifier:
    """Tells systemd how the service is; does nothing when there is no `$NOTIFY_SOCKET`."""

    def __init__(self, address: str | None) -> None:
        self.address = address

    @classmethod
    def from_environment(cls) -> Notifier:
        """Take `$NOTIFY_SOCKET` out of the environment: children must not speak for us."""
        return cls(os.environ.pop("NOTIFY_SOCKET", None) or None)

    def ready(self, status: str) -> bool:
        return self.send(READY="1", STATUS=status)

    def stopping(self, status: str = "stopping") -> bool:
        return self.send(STOPPING="1", STATUS=status)

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for so much more time, from now, for starting or stopping."""
        return self.send(EXTEND_TIMEOUT_USEC=str(int(seconds * 1e6)))

    def watchdog(self) -> bool:
        return self.send(WATCHDOG="1")

    def send(self, **fields: str) -> bool:
        """Whether the manager was told. A manager that is gone is no reason to stop serving."""
        if not self.address:
            return False
        lines = [f"{key}={' '.join(value.split())}" for key, value in fields.items()]
        # A leading @ means Linux's abstract namespace, where names start with a zero byte.
        address = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_TIMEOUT_S)
                sender.connect(address)
                sender.sendall("\n".join(lines).encode())
        except OSError:
            return False
        return True


def watchdog_interval() -> float | None:
    """Seconds between two pings: half of what systemd allows. None when it does not watch us.

    Takes the variables out of the environment, like `Notifier.from_environment`.
    """
    microseconds = os.environ.pop("WATCHDOG_USEC", "")
    process = os.environ.pop("WATCHDOG_PID", "")
    if process not in ("", str(os.getpid())) or not microseconds.isdecimal():
        return None
    return int(microseconds) / 2e6 or None


def config_exit_code() -> int:
    """What to exit with on a ConfigError: EX_CONFIG, or 0 under our launchd job, which would start
    the daemon again after any other code, for ever.
    """
    return 0 if os.environ.get("XPC_SERVICE_NAME") == LAUNCHD_LABEL else EX_CONFIG


class Demand(enum.Enum):
    """What a signal asks for. The second STOP is NOW: do not wait for running requests."""

    STOP = "stop"
    NOW = "now"
    RELOAD = "reload"


_DEMANDS = {
    signal.SIGTERM: Demand.STOP,
    signal.SIGINT: Demand.STOP,
    signal.SIGHUP: Demand.RELOAD,
}


def handle_signals(
    enqueue: Callable[[Demand], object], loop: asyncio.AbstractEventLoop | None = None
) -> None:
    """Turn SIGTERM, SIGINT and SIGHUP into `enqueue(demand)`; SIGUSR1 prints all stacks.

    With a loop, `enqueue` runs as its callback. Without one it runs inside the signal handler, on
    the main thread between any two instructions: `queue.SimpleQueue.put` or `deque.append`, no
    locks, no logging.
    """
    stops = 0

    def on_signal(number: int) -> None:
        nonlocal stops
        demand = _DEMANDS[signal.Signals(number)]
        if demand is Demand.STOP:
            stops += 1
            demand = Demand.NOW if stops > 1 else Demand.STOP
        enqueue(demand)

    for number in _DEMANDS:
        if loop is not None:
            loop.add_signal_handler(number, on_signal, number)
        else:
            signal.signal(number, lambda number, _frame: on_signal(number))
    dump_stacks_on_request()


def dump_stacks_on_request() -> None:
    """SIGUSR1 writes every thread's Python stack to stderr, also when the interpreter hangs; so
    does a crash in native code.
    """
    faulthandler.enable(sys.__stderr__ or 2)
    faulthandler.register(signal.SIGUSR1, sys.__stderr__ or 2, all_threads=True, chain=False)


def compute_in_batches() -> None:
    """Python and MLX's own thread hand each other small pieces of work: waking one must not
    interrupt the other each time (measured: 880 switches a token become 80).
    """
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def settle() -> None:
    """What there is now will stay: the collector of reference cycles need not look through it again
    and again, which takes tens of milliseconds, in which no frame goes on.
    """
    gc.collect()
    gc.freeze()


def unsettle() -> None:
    """Something large has gone: look through everything once."""
    gc.unfreeze()
    gc.collect()
