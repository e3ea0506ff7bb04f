"""Where a stage listens: for its own user alone, and never in another's place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared.pair import WATCHDOG_S
from tests.transports.contract import LIMITS
from transports.errors import AddressError
from transports.shared import folder
from transports.shared.greeting import Peer
from transports.shared.port import SharedPort
from transports.shared.stage_end import connect

PEER = Peer(7, 1, 3, frozenset({2}), 1)


def test_where_a_stage_listens(tmp_path: Path) -> None:
    short = folder.socket_path(Path("/var/lib/shardbus"))
    assert short == Path("/var/lib/shardbus/run/rdma.sock")
    deep = tmp_path / ("x" * 120)
    assert folder.socket_path(deep) == folder.socket_path(deep)
    assert folder.socket_path(deep) != folder.socket_path(deep / "y")
    assert len(os.fsencode(folder.socket_path(deep))) <= folder.MAX_PATH


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    with pytest.raises(AddressError, match="others may enter"):
        SharedPort(tmp_path / "run" / "rdma.sock", LIMITS, WATCHDOG_S)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AddressError):
        SharedPort(tmp_path / "file" / "rdma.sock", LIMITS, WATCHDOG_S)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Path]:
    """Where somebody listens who is no stage."""
    path = tmp_path / "run" / "rdma.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        yield path


def test_a_stage_in_a_folder_that_others_may_enter_is_none(listener: Path) -> None:
    listener.parent.chmod(0o770)
    with pytest.raises(AddressError, match="others may enter"):
        connect(listener, PEER, 0.1)


def test_a_stage_in_a_folder_that_is_not_made_may_come(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect(tmp_path / "run" / "rdma.sock", PEER, 0.1)


def test_a_stage_of_another_user_is_none(listener: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(listener))
        assert folder.peer_uid(connection) == os.getuid()
    other = os.getuid() + 1
    monkeypatch.setattr(folder, "peer_uid", lambda connection: other)
    with pytest.raises(AddressError, match=f"a process of user {other} listens there"):
        connect(listener, PEER, 0.1)


def test_only_what_nobody_uses_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run" / "rdma.sock"
    first = SharedPort(path, LIMITS, WATCHDOG_S)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AddressError, match="another process listens"):
        SharedPort(path, LIMITS, WATCHDOG_S)
    first.close()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(AddressError, match="no socket"):
        SharedPort(path, LIMITS, WATCHDOG_S)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    SharedPort(path, LIMITS, WATCHDOG_S).close()
