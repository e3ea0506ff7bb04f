"""Setting up a ZeroMQ socket for a link: options, keys, and a bind whose errors an operator
understands.
"""

from __future__ import annotations

import errno
import os
import socket as plain
import stat
from typing import Any

import zmq

from transports.address import Address
from transports.errors import AddressError
from transports.limits import FrameLimits
from transports.options import CurveKeys, LinkOptions

_ZAP_ENFORCE_DOMAIN = 93  # pyzmq has no name for it


def configure(
    socket: zmq.Socket[Any], address: Address, limits: FrameLimits, options: LinkOptions
) -> None:
    """All options of DESIGN.md §8; none of libzmq's defaults that matter is left as it is."""
    socket.setsockopt(zmq.SNDHWM, options.queue)
    socket.setsockopt(zmq.RCVHWM, options.queue)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDTIMEO, _ms(options.send_timeout_s))
    socket.setsockopt(zmq.MAXMSGSIZE, limits.max_part_bytes)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # without it frames queue for a peer that is not there
    socket.setsockopt(zmq.HEARTBEAT_IVL, _ms(options.heartbeat_s))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _ms(options.heartbeat_timeout_s))
    socket.setsockopt(zmq.HEARTBEAT_TTL, _ms(options.heartbeat_timeout_s))
    socket.setsockopt(zmq.HANDSHAKE_IVL, _ms(options.handshake_timeout_s))
    socket.setsockopt(zmq.RECONNECT_IVL, _ms(options.reconnect_s))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _ms(options.reconnect_max_s))
    if address.scheme == "tcp":
        socket.setsockopt(zmq.IPV6, int(address.is_ipv6 or address.is_name))
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    if options.socket_buffer:
        socket.setsockopt(zmq.SNDBUF, options.socket_buffer)
        socket.setsockopt(zmq.RCVBUF, options.socket_buffer)


def set_keys(
    socket: zmq.Socket[Any], address: Address, keys: CurveKeys | None, *, server: bool
) -> None:
    """CURVE for this socket; without keys it stays plain, which the caller must have allowed."""
    if keys is None:
        return
    receiver_key = keys.public if server else keys.server
    if receiver_key is None:
        socket.close()
        raise AddressError(str(address), "the receiver's public key is not known", "add its node")
    try:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        if server:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.ZAP_DOMAIN, keys.zap_domain)
            socket.setsockopt(_ZAP_ENFORCE_DOMAIN, 1)  # else no ZAP handler lets everyone in
        else:
            socket.setsockopt(zmq.CURVE_SERVERKEY, receiver_key)
    except zmq.ZMQError as e:
        socket.close()
        raise AddressError(str(address), "a CURVE key is not 40 Z85 characters", "renew it") from e


def bind(socket: zmq.Socket[Any], address: Address) -> str:
    """Bind and return the address with the port that was chosen. AddressError says who is in the
    way.
    """
    text = str(address)
    if address.scheme == "ipc":
        _refuse_live_path(text, address.name)
    try:
        socket.bind(text)
    except zmq.ZMQError as e:
        raise _bind_error(address, e) from e
    if address.scheme == "ipc":
        os.chmod(address.name, 0o600)  # there are no keys: only this user may connect
    return str(socket.getsockopt_string(zmq.LAST_ENDPOINT))


def _bind_error(address: Address, error: zmq.ZMQError) -> AddressError:
    text = str(address)
    if error.errno == errno.EADDRINUSE:
        find = f"find the owner with `lsof -nP -iTCP:{address.port} -sTCP:LISTEN`"
        return AddressError(text, f"port {address.port} is in use", f"{find}, or choose another")
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        why = f"no interface of this machine has {address.host}"
        return AddressError(text, why, "`ifconfig` or `ip address` lists those it has")
    if error.errno == errno.EACCES:
        return AddressError(text, "not permitted", "choose a port above 1023 or a writable folder")
    return AddressError(text, str(error), "check host, port and path")


def _refuse_live_path(text: str, path: str) -> None:
    """libzmq unlinks whatever stands at the path, so that a second receiver would silently steal
    the first one's.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(text, "a file that is no socket stands there", "choose another path")
    with plain.socket(plain.AF_UNIX, plain.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return  # left behind by a process that is gone
    raise AddressError(
        text,
        "another process listens there",
        f"find the owner with `lsof {path}`, or choose another",
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
