"""Which network interface carries an address of this machine."""

import fcntl
import socket
import struct

SIOCGIFADDR = 0x8915
"""Linux's request for the IPv4 address of an interface."""

NAME_BYTES = 15


def interface_of(address: str) -> str | None:
    """Give the interface that has an IPv4 address; None where none has.

    Gloo binds to what the machine's own name resolves to, which on many machines is a loopback address that no other
    machine can reach. The address under which Ray knows the machine is reachable, so its interface is.

    Example:
        >>> interface_of("127.0.0.1")
        'lo'
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:NAME_BYTES])
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
