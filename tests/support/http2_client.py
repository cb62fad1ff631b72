"""A client of HTTP/2 with a socket, which sends the frames that a test gives it."""

import socket

from edgefleet.http2 import frames
from support.http2_wire import GET, POST, Frame, Wire, frame, split

GUARD_S = 20.0


class FrameClient:
    """A client with a socket. It uses ``Wire`` to encode only."""

    def __init__(self, port: int) -> None:
        self.encoder = Wire()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=GUARD_S)
        self.data = b""
        self.send(frames.PREFACE + frame(frames.SETTINGS, 0, 0))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, stream: int, fields=GET, *, ends: bool = True) -> None:
        self.send(frame(frames.HEADERS, 5 if ends else 4, stream, self.encoder.block(fields)))

    def read(self) -> Frame | None:
        """The next frame, None at the end."""
        while len(self.data) < 9 or len(self.data) < 9 + int.from_bytes(self.data[:3], "big"):
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self.data += more
        end = 9 + int.from_bytes(self.data[:3], "big")
        (one,), self.data = split(self.data[:end]), self.data[end:]
        return one

    def until(self, kind: int) -> Frame:
        while (one := self.read()) is not None:
            if one.kind == kind:
                return one
        raise AssertionError(f"no frame {kind} came")

    def ended(self) -> bool:
        while self.read() is not None:
            pass
        return True

    def call(
        self,
        stream: int,
        message: bytes,
        *more: tuple[str, str],
        method: str = "ModelInfer",
        ends: bool = True,
    ) -> None:
        """A call of the inference service with its first message."""
        path = (":path", f"/inference.GRPCInferenceService/{method}")
        fields = (POST[0], POST[1], path, ("content-type", "application/grpc"), *more)
        self.request(stream, fields, ends=False)
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self.send(frame(frames.DATA, 1 if ends else 0, stream, body))

    def trailers(self) -> dict[str, str]:
        """The fields of the next block that ends a stream. Those before it are read, too."""
        while (one := self.read()) is not None:
            if one.kind == frames.HEADERS:
                fields = self.encoder.fields(one)
                if one.flags & frames.END_STREAM:
                    return fields
        raise AssertionError("the connection has ended")
