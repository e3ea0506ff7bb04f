"""The local cluster as the commands use it: waiting with progress, errors as ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctl.client import Client
from ctl.endpoint import Endpoint, load_config
from ctl.errors import CommandError, ExitCode
from ctl.progress import LoadProgress, failed_lines
from ctl.session import Session
from daemon.local import LocalCluster, LocalError, default_state, find, plan

READY_SECONDS = 600.0
STUCK_SECONDS = 30.0
ATTEMPT_SECONDS = 2.0


@contextmanager
def our_errors(quote: bool = True) -> Iterator[None]:
    """LocalError becomes CommandError; the log it brings is quoted on stderr."""
    try:
        yield
    except LocalError as error:
        if quote:
            failed_lines(list(error.log))
        code = ExitCode.USAGE if error.usage else ExitCode.FAILED
        raise CommandError(code, error.what, error.why, error.todo) from error


def parse_split(text: str) -> tuple[int, ...]:
    """`5,2,1` as numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise CommandError(
            ExitCode.USAGE,
            f"wrong split {text!r}",
            "it must be whole numbers with commas, one per node",
            "write for example --split 5,2,1",
        ) from error


def make_plan(
    state: Path | None, nodes: int | None, split: str | None, model: str, port: int | None
) -> LocalCluster:
    """What `up` would start."""
    parts = None if split is None else parse_split(split)
    with our_errors():
        return plan(
            state or default_state(),
            nodes=nodes,
            split=parts,
            model=model,
            models=load_config().models,
            port=port,
        )


def find_cluster(state: Path | None) -> LocalCluster | None:
    """The cluster that was started in that folder."""
    with our_errors():
        return find(state)


def start(session: Session, cluster: LocalCluster, *, wait: bool) -> LocalCluster:
    """Start it and wait for its model. A second Ctrl-C on the way kills what was started."""
    progress = LoadProgress(not session.quiet and not session.output.machine)
    readiness = Readiness(cluster.endpoint, progress)
    session.signals.last_resort = cluster.kill_started
    try:
        with our_errors(not session.output.machine):
            return cluster.start(readiness.check if wait else lambda: True, READY_SECONDS)
    finally:
        progress.close()


def stop(session: Session, cluster: LocalCluster) -> list[str]:
    """End it; a second Ctrl-C kills it."""
    session.signals.last_resort = cluster.kill
    with our_errors():
        return cluster.stop()


class Readiness:
    """Asks the coordinator whether the model is loaded. Gives up on a cluster that says for a long
    time why it cannot.
    """

    def __init__(self, endpoint: str, progress: LoadProgress) -> None:
        self._endpoint = Endpoint(endpoint, "the local cluster")
        self._progress = progress
        self._stuck_since: float | None = None

    def check(self) -> bool:
        """One question; False while nothing listens yet."""
        try:
            with Client(self._endpoint, ATTEMPT_SECONDS) as client:
                status = client.request("status")
        except CommandError as error:
            if error.code in (ExitCode.UNREACHABLE, ExitCode.TIMEOUT):
                return False
            raise
        self._progress.update_nodes(status.get("nodes"))
        if status.get("state") == "ready":
            return True
        self._give_up(status.get("state"), status.get("reason"))
        return False

    def _give_up(self, state: object, reason: object) -> None:
        now = time.monotonic()
        if state == "loading" or not reason:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > STUCK_SECONDS:
            raise LocalError(
                "the local cluster does not become ready", str(reason), "see the logs of its nodes"
            )
