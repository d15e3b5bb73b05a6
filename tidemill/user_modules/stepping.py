"""The process of one module while a decider is in force: the file runs in it once, and its functions answer bar after bar.

It is started as the process of batch calls is, under the same guards and limits, and no other module is ever in it. It ends
with its owner.
"""

from __future__ import annotations

import subprocess  # nosec B404  # for its type
import weakref
from collections.abc import Mapping
from typing import Any

import msgspec

from tidemill.domain.errors import InputError
from tidemill.user_modules.sandbox import Sandbox
from tidemill.user_modules.values import KEPT
from tidemill.user_modules.wire import Answer, Limits, Request, described


class Stepping(Sandbox):
    """Serves calls of one module, one at a time. file: asks for no more than to run it.

    One that died or was stopped is started again by the next call, with nothing of what the module remembered.
    """

    def __init__(self, file: Request, limits: Limits) -> None:
        super().__init__(limits)
        self._file = file
        self._models: dict[str, dict[str, Any]] = {}  # engine → the arrays that its process has

    def _prepare(self, process: subprocess.Popen[bytes], request: Request, what: str) -> None:
        if self._prepared:
            return
        super()._prepare(process, msgspec.structs.replace(self._file, kind=request.kind), what)
        self._models.clear()
        run = msgspec.structs.replace(self._file, stays=True)
        message, _ = self._exchange(process, run, b"", described(self._file), self._limits.seconds)
        error = msgspec.json.decode(message, type=Answer).error
        if error:
            self._end()
            raise InputError(error)

    def _ask(self, request: Request, payload: bytes) -> tuple[Answer, bytes]:
        return super()._ask(msgspec.structs.replace(request, text="", data={}), payload)

    def _packed(self, request: Request, at: int, value: Any) -> tuple[str, bytes]:
        """A model goes once, not with every bar."""
        if at or not request.second or not isinstance(value, Mapping):
            return super()._packed(request, at, value)
        running = self._process is not None and self._process.poll() is None
        known = running and _same(self._models.get(request.name), value)
        return (KEPT, b"") if known else super()._packed(request, at, value)

    def apply(self, request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        answer = super().apply(request, args, kwargs)
        if request.second:
            self._models[request.name] = dict(args[0])
        return answer


def _same(kept: Mapping[str, Any] | None, given: Mapping[str, Any]) -> bool:
    """Whether these are the very arrays; a copy may have been changed."""
    return kept is not None and kept.keys() == given.keys() and all(kept[name] is array for name, array in given.items())


_OWNED: weakref.WeakKeyDictionary[object, dict[tuple[str, str, bool], Stepping]] = weakref.WeakKeyDictionary()


def stepping(owner: object, file: Request, limits: Limits) -> Stepping:
    """The process of a module that lives as long as `owner` does."""
    own = _OWNED.setdefault(owner, {})
    key = (file.path, file.text, limits.guarded)
    if key not in own:
        own[key] = Stepping(file, limits)
        weakref.finalize(owner, own[key].close)  # at the end of this process, too
    return own[key]
