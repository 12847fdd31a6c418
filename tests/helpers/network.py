"""Refuse connections to other machines, so that tests notice a program that opens one.

Python reports every call of its socket module to audit hooks. Connections that C++ code opens are not seen.
"""

import ipaddress
import socket
import sys
from typing import Any

ATTEMPTS: list[str] = []
"""The connections that this process was refused so far. A library may catch the exception, but its entry remains."""
_LOCAL_NAMES = {None, "", "localhost", socket.gethostname()}


def is_local(host: Any) -> bool:
    """Return whether a host is this machine."""
    host = host.decode() if isinstance(host, bytes) else host
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_other_machines() -> None:
    """Raise a ConnectionError in this process whenever another machine is connected to, or its name is looked up.

    An audit hook cannot be removed, so that this lasts until the process ends.
    """

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            address = arguments[1]
            host = address[0] if isinstance(address, tuple) else None  # the other addresses are those of Unix sockets
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = arguments[0]
        else:
            return
        if not is_local(host):
            ATTEMPTS.append(f"{event} {host}")
            raise ConnectionError(f"{event} {host}: tests must not connect to other machines")

    sys.addaudithook(check)
