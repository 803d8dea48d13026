"""What this program keeps ready for its nodes: contents, by digest, as long as somebody needs them.

Whoever opens a cluster or submits a job holds them, in any thread; the hub answers nodes that ask.
"""

import threading
from collections.abc import Hashable, Sequence

from dispy.shipping.contents import Content


class Contents:
    """Counts holders; a content that nobody holds is forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # two dictionary operations long; nobody waits inside
        self._held: dict[bytes, tuple[Content, int]] = {}
        self._of_users: dict[Hashable, list[bytes]] = {}

    def hold(self, content: Content) -> None:
        """Have it ready from now on; once more for each call."""
        with self._lock:
            _, count = self._held.get(content.digest, (content, 0))
            # The newest, because the file of an older one may be another by now.
            self._held[content.digest] = (content, count + 1)

    def release(self, digest: bytes) -> None:
        """Take one `hold` back."""
        with self._lock:
            held = self._held.get(digest)
            if held is None:
                return
            content, count = held
            if count > 1:
                self._held[digest] = (content, count - 1)
            else:
                del self._held[digest]

    def hold_for(self, user: Hashable, contents: Sequence[Content]) -> None:
        """Hold what a job (its number) or somebody else needs until `release_for`; may be called
        again for more."""
        for content in contents:
            self.hold(content)
        with self._lock:
            digests = self._of_users.setdefault(user, [])
            digests.extend(content.digest for content in contents)

    def release_for(self, user: Hashable) -> None:
        """Release what was held for a job that is final, or for somebody else."""
        for digest in self._of_users.pop(user, ()):
            self.release(digest)

    def get(self, digest: bytes) -> Content | None:
        """Return what is held under this digest."""
        held = self._held.get(digest)
        return held[0] if held is not None else None
