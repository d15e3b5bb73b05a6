"""What the program and the sandbox say to each other: lengths, a JSON message, a frame as an Arrow stream. Never a pickle."""

import struct
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from tidemill.config import Settings

_PREFIX = struct.Struct(">IQ")
_LENGTH = struct.Struct(">Q")
READY = b"tidemill sandbox\n"


class Limits(msgspec.Struct, frozen=True):
    """seconds: of one request, by the clock. memory: of the whole process, MiB; it binds where the process is `guarded`."""

    seconds: float
    memory: int
    guarded: bool = True


class Bounds(msgspec.Struct, frozen=True):
    """What calls of a user's file may take: of features and labels in the guarded process, of engines and strategies in the
    other one.
    """

    features: Limits = Limits(60.0, 4096)
    engines: Limits = Limits(3_600.0, 4096, guarded=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those that the settings give."""
        memory = settings.module_memory
        return cls(Limits(settings.module_seconds, memory), Limits(settings.engine_seconds, memory, guarded=False))


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Run the file `path` whose content is `text` and answer what it declares; or, where a `kind` is given, call the function
    declared as `name`, or the `second` one of its declaration, on the arguments that follow.

    args, kwargs: what each argument is and its number of bytes (see `values`). data: data file → digest. by_tail: rows that
    the function is given at each time (see `tails`), 0: all at once. newest: of so many times it is asked, 0: of all.
    prepares: import what such a request needs, and no more. stays: run the file in the process itself, which answers calls of
    it from then on and of no other.
    """

    path: str
    text: str
    kind: str = ""
    name: str = ""
    second: bool = False
    args: tuple[tuple[str, int], ...] = ()
    kwargs: dict[str, tuple[str, int]] = {}
    data: dict[str, str] = {}
    by_tail: int = 0
    newest: int = 0
    prepares: bool = False
    stays: bool = False


def described(request: Request) -> str:
    """The subject of a sentence about what was asked: "The function weekly of mine.py"."""
    file = Path(request.path).name
    if not request.kind:
        return f"The module {file}"
    if request.kind == "engine":
        return f"{'predict' if request.second else 'fit'} of the engine {request.name} of {file}"
    return f"The {'function' if request.kind == 'features' else request.kind} {request.name} of {file}"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`error` is empty when all went well; a value of this kind follows a call that went well (see `values`).

    raised: whether the error is what the function itself raised.
    """

    error: str = ""
    raised: bool = False
    kind: str = ""


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


def framed(data: bytes) -> bytes:
    """`data` behind its length, as `exactly` reads it."""
    return _LENGTH.pack(len(data)) + data


def exactly(pipe: BinaryIO) -> bytes:
    """What `framed` wrote; EOFError when the other side is gone."""
    return _exactly(pipe, *_LENGTH.unpack(_exactly(pipe, _LENGTH.size)))


def _exactly(pipe: BinaryIO, count: int) -> bytes:
    parts = []
    while count:
        part = pipe.read(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
