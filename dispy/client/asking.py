"""Pings with plain sockets, for whoever has no hub: a cluster that opens, and `dispy doctor`."""

import os
import socket
from collections.abc import Iterator, Sequence
from time import monotonic

from dispy.model.credentials import Secret
from dispy.protocol.discovery import (
    NONCE_BYTES,
    PACKET_BYTES,
    Here,
    Packet,
    PacketRefused,
    Ping,
    decode_packet,
    encode_packet,
)


class Asker:
    """Owns a UDP socket while its `with` block lasts; `secrets`: those that nodes should have."""

    def __init__(self, secrets: Sequence[Secret] = ()) -> None:
        self._secrets = secrets

    def __enter__(self) -> "Asker":
        self._nonce = os.urandom(NONCE_BYTES)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, address: str, port: int, wanted: int = 0) -> str | None:
        """Ping an IPv4 address or a broadcast; return why that could not be sent.

        wanted: the port of nodes that are to answer; 0: any.
        """
        try:
            ping: Packet = Ping(self._nonce, wanted)
            if self._secrets:
                from dispy.protocol.signing import signed  # 10 ms that only these need

                ping = signed(ping, self._secrets)
            self._socket.sendto(encode_packet(ping), (address, port))
        except OSError as error:
            return error.strerror or str(error)
        return None

    def answers(self, seconds: float) -> Iterator[tuple[Here, str, bool]]:
        """Yield each answer, its address, and whether it has proven one of our secrets.

        As they come, for so long at most. Where we have none all count as proven.
        """
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data, (address, _) = self._socket.recvfrom(PACKET_BYTES + 1)
                packet = decode_packet(data)
            except (PacketRefused, ConnectionError):
                continue
            except OSError:  # most often a timeout
                return
            if isinstance(packet, Here) and packet.nonce == self._nonce:
                yield packet, address, self._is_proven(packet, address)

    def _is_proven(self, packet: Here, address: str) -> bool:
        if not self._secrets:
            return True
        from dispy.protocol.signing import is_signed

        return is_signed(packet, self._secrets, address)
