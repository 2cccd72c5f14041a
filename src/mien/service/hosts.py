"""Addresses and names: where the service listens, which names requests may use for it, and its API key."""

import ipaddress
import socket
from collections.abc import Collection, Sequence

from mien.base.errors import MienError

LOOPBACK = "localhost"


def check_api_key(api_key: str | None) -> None:
    """Refuses a key that protects nothing, or that no request can send.

    Raises:
        MienError: It is empty, or has characters that a header cannot hold.
    """
    if api_key is None:
        return
    if not api_key.strip():
        raise MienError("the API key (MIEN_API_KEY, --api-key) is empty; give a key, or unset it to serve without one")
    if not all("!" <= letter <= "~" for letter in api_key):
        raise MienError("the API key (MIEN_API_KEY, --api-key) has characters other than ASCII without spaces")


def _ip(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.partition("%")[0])  # %: the zone of an IPv6 address
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches the host."""
    ip = _ip(host)
    return host.lower() == LOOPBACK if ip is None else ip.is_loopback


def listening(host: str, port: int) -> list[socket.socket]:
    """Returns bound sockets, one for each address of the host.

    Raises:
        MienError: The name is unknown, the port is taken, or there is no permission.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(place)
            one.listen(1)
    except OSError as error:
        for one in sockets:
            one.close()
        raise MienError(f"cannot listen on --host {host!r} --port {port}: {error.strerror or error}") from None
    return sockets


def address(host: str, sockets: Sequence[socket.socket]) -> str:
    """Returns host and port as in a URL."""
    return f"{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}"


def is_allowed(header: str, names: Collection[str]) -> bool:
    """Returns whether the header Host names this service.

    A page of another site can make its own name lead to this machine (DNS rebinding), and would then read responses.
    It cannot do that with an address: addresses are always allowed, names only if they were stated.

    Args:
        header: The header, with or without a port; empty if absent, which no browser does.
        names: Lower-case names.
    """
    name = header.strip().lower()
    if name.startswith("["):
        return _ip(name[1:].partition("]")[0]) is not None
    name = name.partition(":")[0].removesuffix(".")
    return not header or name == LOOPBACK or name in names or _ip(name) is not None
