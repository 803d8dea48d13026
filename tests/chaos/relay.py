"""A bad line: passes packets on between two network interfaces, late, and not in their order.

Usage: relay.py INTERFACE INTERFACE SEED

Run in the namespace that has both. Prints a line when it passes packets, and goes on until killed.
"""

import heapq
import random
import select
import socket
import sys
import time

ALL = 3  # ETH_P_ALL
LATE = (0.005, 0.08)  # seconds, drawn for each packet: the next one may overtake it
LONGEST = 65536  # bytes of a packet


def relay(first: str, second: str, seed: str) -> None:
    """Pass packets on both ways; does not return."""
    draw = random.Random(seed)
    sockets = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)) for _ in "ab"]
    for sock, name in zip(sockets, (first, second), strict=True):
        sock.bind((name, ALL))
    others = {sockets[0]: sockets[1], sockets[1]: sockets[0]}
    waiting: list[tuple[float, int, socket.socket, bytes]] = []
    count = 0
    print("passes packets", flush=True)
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for sock in select.select(sockets, [], [], pause)[0]:
            try:
                packet, address = sock.recvfrom(LONGEST)
            except OSError:  # the interface went down
                continue
            if address[2] != socket.PACKET_OUTGOING:  # else it is one that we have passed on
                count += 1
                due = time.monotonic() + draw.uniform(*LATE)
                heapq.heappush(waiting, (due, count, others[sock], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, sock, packet = heapq.heappop(waiting)
            try:
                sock.send(packet)
            except OSError:  # the interface is down, or the packet too long for it
                continue


if __name__ == "__main__":
    relay(*sys.argv[1:])
