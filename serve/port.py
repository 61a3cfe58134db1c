"""TCP ports: is this one free, and which one is."""

from __future__ import annotations

import os
import socket

from ..core.errors import InputError


def check_port(host: str, port: int) -> str:
    """The numeric address of `host`; raises InputError unless `host:port` can be bound.

    Granian binds with SO_REUSEPORT, under which a second router would start without complaint and take half of the requests; binding
    once without that option finds the first one.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno and error.errno > 0 else str(error)
        raise InputError(where, f"cannot be listened on ({reason})", fix="choose another --port, or stop what listens there") from None
    return str(address[0])


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
