"""Sign-in links and sessions, signed with a key that `up` and the gate share. Apart from the gate: `up` needs no web stack."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

LINK_SECONDS = 600
SESSION_SECONDS = 7 * 86_400
# How `up` hands the web process what others must not see in a list of processes.
KEY_VARIABLE, LINKS_VARIABLE = "TIDEMILL_GATE_KEY", "TIDEMILL_GATE_LINKS"


class Passes:
    """Makes and checks sign-in links and sessions with one key, which dies with `up`.

    A pass is `kind.made.nonce.signature`. It needs no store: a restarted gate knows its sessions. It is not believed when its
    time is over, and a link not when it was used, or made before this object was: then nobody knows whether it was used.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key, self._clock = key, clock
        self._born = clock()
        self._used: dict[str, float] = {}

    def make(self, kind: str) -> str:
        stated = f"{kind}.{self._clock():.3f}.{secrets.token_urlsafe(32)}"
        return f"{stated}.{self._sign(stated)}"

    def session_is_valid(self, text: str) -> bool:
        return self._age(text, "session") is not None

    def take_link(self, text: str) -> bool:
        """Whether `text` is a link's token that was never used; it is used after this."""
        made = self._age(text, "link")
        if made is None or made < self._born:
            return False
        digest = hashlib.sha256(text.encode()).hexdigest()
        now = self._clock()
        self._used = {used: when for used, when in self._used.items() if now - when <= LINK_SECONDS}
        if digest in self._used:
            return False
        self._used[digest] = now
        return True

    def _age(self, text: str, kind: str) -> float | None:
        """When the pass was made, if it is one of ours, of this kind and in time."""
        stated, _, signature = text.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(stated).encode()):
            return None
        stated_kind, _, rest = stated.partition(".")
        made = float(rest.rpartition(".")[0])
        lifetime = LINK_SECONDS if kind == "link" else SESSION_SECONDS
        return made if stated_kind == kind and 0 <= self._clock() - made <= lifetime else None

    def _sign(self, stated: str) -> str:
        return hmac.new(self._key, stated.encode(), hashlib.sha256).hexdigest()
