"""pyOpenSSL alone between two processes: what bulk can be sent with it on this machine at all.

The same protocol, ciphers and modes as dispy's links; blocking sockets, buffers that are used
again, and no more Python than one line for each record.
"""

import contextlib
import os
import socket
from time import perf_counter

from OpenSSL import SSL

from dispy.cli.companions import answer
from dispy.net.tls import RECORD_BYTES, own_context


def run_alone() -> None:
    """Measure how long it takes to send bytes to a child process, and to get them back."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        context = own_context()
        child = os.fork()
        if not child:
            with contextlib.suppress(SSL.Error):  # the other side has ended
                _send_back(listening, context)
            os._exit(0)
        sock = socket.create_connection(listening.getsockname())
    connection = _connection(sock, context)
    connection.set_connect_state()
    connection.do_handshake()
    buffers: dict[int, bytearray] = {}

    def measurement(what: str, size: int) -> float:
        buffer = buffers.get(size) or buffers.setdefault(size, bytearray(b"\xa5" * size))
        begin = perf_counter()
        connection.sendall(size.to_bytes(8, "big"))
        connection.sendall(buffer)
        _receive(connection, memoryview(buffer))
        return 2 * size / (perf_counter() - begin)

    answer(measurement)
    sock.close()
    os.waitpid(child, 0)


def _send_back(listening: socket.socket, context: SSL.Context) -> None:
    sock, _ = listening.accept()
    connection = _connection(sock, context)
    connection.set_accept_state()
    connection.do_handshake()
    head, buffer = bytearray(8), bytearray()
    while True:
        _receive(connection, memoryview(head))
        size = int.from_bytes(head, "big")
        if len(buffer) != size:
            buffer = bytearray(size)
        _receive(connection, memoryview(buffer))
        connection.sendall(buffer)


def _connection(sock: socket.socket, context: SSL.Context) -> SSL.Connection:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return SSL.Connection(context, sock)


def _receive(connection: SSL.Connection, place: memoryview) -> None:
    at, size = 0, len(place)
    while at < size:
        at += connection.recv_into(place[at : at + RECORD_BYTES])
