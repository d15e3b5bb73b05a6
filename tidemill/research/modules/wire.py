"""What the program and the sandbox say to each other: lengths, a JSON message, a frame as an Arrow stream. Never a pickle."""

import struct
from typing import BinaryIO

import msgspec

_PREFIX = struct.Struct(">IQ")
READY = b"tidemill sandbox\n"


class Limits(msgspec.Struct, frozen=True):
    """seconds: of one request, by the clock. memory: of the whole process, MiB."""

    seconds: float
    memory: int


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Run the file `path` whose content is `text`; then, where a `kind` is given, call the function declared as `name` on the
    frame that follows. An empty path asks for nothing but to be ready for frames.
    """

    path: str
    text: str
    kind: str = ""
    name: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`error` is empty when all went well; a frame follows a call that went well."""

    error: str = ""


def send(pipe: BinaryIO, message: Request | Answer | Limits, frame: bytes = b"") -> None:
    encoded = msgspec.json.encode(message)
    pipe.write(_PREFIX.pack(len(encoded), len(frame)))
    pipe.write(encoded)
    pipe.write(frame)
    pipe.flush()


def receive(pipe: BinaryIO) -> tuple[bytes, bytes]:
    """Message and frame; EOFError when the other side is gone."""
    length, size = _PREFIX.unpack(_exactly(pipe, _PREFIX.size))
    return _exactly(pipe, length), _exactly(pipe, size)


def _exactly(pipe: BinaryIO, count: int) -> bytes:
    parts = []
    while count:
        part = pipe.read(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
