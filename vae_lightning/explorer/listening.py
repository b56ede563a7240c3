"""Opens the socket of the page, before anything is loaded."""

import errno
import socket
from ipaddress import ip_address

FIRST_PORT, LAST_PORT = 7860, 7959
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_for_this_machine(address: str) -> bool:
    """Whether only this machine can reach the address; False for names other than localhost."""
    try:
        return address in LOOPBACK or ip_address(address).is_loopback
    except ValueError:
        return False


def open_socket(host: str, port: int | None) -> socket.socket:
    """Listens at the port, or at the first free one of FIRST_PORT to LAST_PORT.

    Raises:
        ValueError: the port is taken, or there is no such address here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason = ""
    for candidate in range(FIRST_PORT, LAST_PORT + 1) if port is None else [port]:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()
        except OSError as error:
            listener.close()
            reason = str(error.strerror or error)
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise ValueError(
                    f"--host {host}: {reason}; name an address of this machine (127.0.0.1), or 0.0.0.0 for all"
                ) from error
            continue
        return listener
    where = f"--port {port}" if port is not None else f"ports {FIRST_PORT} to {LAST_PORT}"
    raise ValueError(f"{where} on {host}: {reason}; name another --port, or leave it out")
