"""Connections to other processes, and sockets that wait for them."""

from gevent import socket

from dispy.system.tcp import go_on_soon


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """Return a connected TCP socket that sends small frames at once; raises OSError."""
    sock = socket.create_connection((host, port), timeout=seconds)
    make_ready(sock)
    return sock


def make_ready(sock: socket.socket) -> None:
    """Have a TCP connection send small frames at once; raises OSError."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    go_on_soon(sock)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock
