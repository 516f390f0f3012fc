"""The duplex channel between the caller and a program: frames of a 4-byte big-endian length and that many bytes.

The other end is hostile: it may write garbage, announce any length, stop in the middle, or never read.
"""

from __future__ import annotations

import select
import socket
import struct
import time

from donod_fast.evaluation.sandbox.limits import Ended, Timeout, TooLarge

_LENGTH = struct.Struct(">I")
_PART = 1 << 16


class Channel:
    """The caller's end of the channel. One thread may send while another receives."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._text = bytearray()
        self._unsent = memoryview(b"")
        self._broken: TooLarge | None = None

    def send(self, data: bytes, deadline: float) -> None:
        """Send one frame.

        Raises:
            Timeout: the program did not read it by ``deadline`` (:func:`time.monotonic`); :meth:`send_rest` must come
                before another frame then.
            Ended: the program closed the channel or has ended.
        """
        if self._unsent:
            raise Timeout("an earlier frame has not been read")
        self._unsent = memoryview(_LENGTH.pack(len(data)) + data)
        self.send_rest(deadline)

    def send_rest(self, deadline: float) -> None:
        """Send what a :class:`Timeout` left of a frame. Raises as :meth:`send`."""
        while self._unsent:
            try:
                sent = self._end.send(self._unsent, socket.MSG_NOSIGNAL if hasattr(socket, "MSG_NOSIGNAL") else 0)
                self._unsent = self._unsent[sent:]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            except OSError as error:
                raise Ended(f"the program no longer listens ({error.strerror})") from None

    def receive(self, deadline: float, max_bytes: int) -> bytes:
        """Receive one frame; after a :class:`Timeout` a further call resumes the same frame.

        Raises:
            Timeout: no whole frame by ``deadline`` (:func:`time.monotonic`).
            Ended: the program closed the channel or has ended.
            TooLarge: the frame's announced length exceeds ``max_bytes``.
        """
        if self._broken:
            raise self._broken
        while True:
            if len(self._text) >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._text)
                if length > max_bytes:
                    self._broken = TooLarge(f"a frame of {length} bytes was announced; at most {max_bytes} are allowed")
                    raise self._broken
                if len(self._text) >= _LENGTH.size + length:
                    frame = bytes(self._text[_LENGTH.size : _LENGTH.size + length])
                    del self._text[: _LENGTH.size + length]
                    return frame
            if deadline <= time.monotonic():
                raise Timeout("no answer in time")
            try:
                part = self._end.recv(_PART)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            except OSError as error:
                raise Ended(f"the channel broke ({error.strerror})") from None
            if not part:
                raise Ended("the program closed the channel")
            self._text += part

    def close_sending(self) -> None:
        """Signal the end of input to the program."""
        try:
            self._end.shutdown(socket.SHUT_WR)
        except OSError:  # the program has already exited
            return

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _wait(self, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._end, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise Timeout("no answer in time")
