"""A cable between two namespaces that is slow and loses frames; it ends when its standard input does.

``slow_cable.py NAMESPACE DEVICE NAMESPACE DEVICE DELAY RATE LOSS``: seconds, bits per second, and the share of frames
that are lost. The kernel's netem does the same, where it is built in.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time
from pathlib import Path

_NEW_NETWORK = 0x40000000
_SET_INTERFACE = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
_LONGEST_QUEUE = 2.0  # seconds; a frame that would wait longer is lost


def open_tap(namespace: str, device: str) -> int:
    """Create a TAP device in a namespace, and open it."""
    with Path(f"/run/netns/{namespace}").open("rb") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _SET_INTERFACE, struct.pack("16sH22x", device.encode(), _TAP_WITHOUT_HEADER))
    return end


def relay(ends: tuple[int, int], delay: float, rate: float, loss: float) -> None:
    """Carry frames in both directions until standard input ends."""
    draw = random.Random(0)
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    free = dict.fromkeys(ends, 0.0)  # when the cable has sent what it has, by direction
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([*ends, sys.stdin], [], [], patience)
        if sys.stdin in ready:
            return
        now = time.monotonic()
        for end in ready:
            frame = os.read(end, 65_536)
            begin = max(now, free[end])
            if draw.random() < loss or begin - now > _LONGEST_QUEUE:
                continue
            free[end] = begin + 8 * len(frame) / rate
            number += 1
            heapq.heappush(waiting, (free[end] + delay, number, other[end], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, end, frame = heapq.heappop(waiting)
            try:
                os.write(end, frame)
            except OSError:  # the other side is down
                continue


if __name__ == "__main__":
    first, second = open_tap(*sys.argv[1:3]), open_tap(*sys.argv[3:5])
    print("up", flush=True)
    relay((first, second), *map(float, sys.argv[5:8]))
