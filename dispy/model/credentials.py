"""What a process proves itself by, and has others prove themselves by: secrets, certificates.

Pure. A secret never shows: not by `repr`, not in a traceback, not in an error.
"""

import os
import re
from dataclasses import dataclass, field

from dispy.model.errors import DispyError

GENERATED = "dispy-"  # leads a secret that `dispy secret` made
SECRET_LIMIT = 1024  # letters: longer than any that people make, and not a file by mistake
SECRETS_LIMIT = 8  # valid at once: an old one, a new one, and some for those who share nodes
WEAK = 12  # letters; a shorter one that a person made up can be guessed by who has heard a proof

OTHER_SECRET = "it has not the secret that this side has"  # why a peer is refused

_STRONG = re.compile(re.escape(GENERATED) + r"[A-Za-z0-9_-]{43}")
# RFC 7914; 60 ms and 16 MB once in a process, and for each guess of somebody who guesses.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}
_SALT = b"dispy secret 1"


class Secret:
    """One shared secret; equal to another by its text."""

    __slots__ = ("__key", "__text", "source")

    def __init__(self, text: str, source: str) -> None:
        """`source` says where it came from. Raises DispyError for what cannot be a secret."""
        self.__text, self.source = text.strip(), source
        self.__key = b""
        if not self.__text:
            raise DispyError(f"{source}: the secret is empty; `dispy secret` makes one")
        if len(self.__text) > SECRET_LIMIT:
            raise DispyError(f"{source}: a secret has {SECRET_LIMIT} letters at most")

    @property
    def strong(self) -> bool:
        """Whether `dispy secret` made it, of 256 random bits."""
        return _STRONG.fullmatch(self.__text) is not None

    @property
    def weak(self) -> bool:
        """Whether it is so short that it can be guessed."""
        return len(self.__text) < WEAK

    @property
    def key(self) -> bytes:
        """32 bytes by which proofs are computed; the first call may take 60 ms.

        A text that a person made up is stretched: who has heard a proof, by having pretended to
        be the other side, tries guesses at the rate that this leaves.
        """
        if not self.__key:
            import hashlib  # 4 ms that only these need

            text = self.__text.encode()
            if self.strong:
                self.__key = hashlib.sha256(_SALT + text).digest()
            else:
                self.__key = hashlib.scrypt(text, salt=_SALT, dklen=32, **_SCRYPT)
        return self.__key

    @property
    def fingerprint(self) -> str:
        """Eight letters by which people see that two machines have the same; it reveals nothing."""
        import hmac

        return hmac.digest(self.key, b"dispy secret fingerprint", "sha256").hex()[:8]

    @property
    def text(self) -> str:
        """The secret itself, for the file in which it is kept and for nothing else."""
        return self.__text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__text == other.__text

    def __hash__(self) -> int:
        return hash(self.__text)

    def __repr__(self) -> str:
        return f"<secret of {self.source}>"

    def __reduce__(self) -> str:
        raise TypeError("a secret stays in its process")


def new_secret() -> str:
    """Return the text of a new secret of 256 random bits."""
    import base64

    return GENERATED + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


def read_secrets(text: str, source: str) -> tuple[Secret, ...]:
    """Return the secrets of a file, one a line; '#' begins a comment.

    Raises DispyError where there is none, or more than SECRETS_LIMIT.
    """
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    secrets = tuple(dict.fromkeys(Secret(line, source) for line in lines if line))
    if not secrets:
        raise DispyError(f"{source} has no secret in it; `dispy secret` makes one")
    if len(secrets) > SECRETS_LIMIT:
        raise DispyError(f"{source} has {len(secrets)} secrets; {SECRETS_LIMIT} at most are valid")
    return secrets


def with_new_secret(text: str, source: str) -> str:
    """Return a secret file's text with a new secret before those that it has.

    Raises DispyError as `read_secrets`, and where one more would be too many.
    """
    if len(read_secrets(text, source)) >= SECRETS_LIMIT:
        raise DispyError(
            f"{source} has {SECRETS_LIMIT} secrets already; `dispy secret --retire` removes all "
            f"but the first"
        )
    return f"{new_secret()}\n{text}"


def without_old_secrets(text: str, source: str) -> tuple[str, int]:
    """Return a secret file's text with the first secret alone, and how many were removed."""
    first, *others = read_secrets(text, source)
    return f"{first.text}\n", len(others)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of PEM files. Without a `cafile`, both sides have the same certificate."""

    certfile: str
    keyfile: str | None = None  # None: in the certfile
    cafile: str | None = None
    revoked: str | None = None  # SHA-256 fingerprints, one a line


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key that was made for one process, and its certificate, both as PEM text."""

    key: str = field(repr=False)
    certificate: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that a process has; nothing: it is among friends of this machine only."""

    secrets: tuple[Secret, ...] = ()
    certificate: Certificate | None = None
    insecure: bool = False  # said by a person: other machines are used without any
    secrets_file: str | None = None  # that the secrets came from, and where they may change
    pair: KeyPair | None = None  # of a process that died, whom we speak for; None: our own

    @property
    def protected(self) -> bool:
        """Whether links are encrypted, and both sides prove who they are."""
        return bool(self.secrets) or self.certificate is not None


NOTHING = Credentials()
