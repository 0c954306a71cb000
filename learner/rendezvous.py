"""Where processes meet: torch's store, listening on one address instead of on every interface of the machine."""

import socket
from datetime import timedelta

import torch.distributed as dist


def bound_socket(address: str, port: int) -> socket.socket:
    """Give a listening socket that only this address reaches."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)


def meet(address: str, port: int, *, rank: int, world_size: int, timeout: timedelta) -> dist.TCPStore:
    """Join the store of a group of ranks, which rank 0 serves; returns when all have come.

    Args:
        address: of rank 0's machine, as the others reach it.
        port: a free port there.
        rank: of this process.
        world_size: number of ranks.
        timeout: to wait for the others, and for an answer of the store later on.
    """
    if rank > 0:
        return dist.TCPStore(address, port, world_size, is_master=False, timeout=timeout)
    # The store owns the descriptor from here on.
    listener = bound_socket(address, port).detach()
    return dist.TCPStore(address, port, world_size, is_master=True, timeout=timeout, master_listen_fd=listener)
