"""The users of this machine, as far as jobs are to run as one of them."""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispy.model.errors import DispyError

_LARGEST = 2**32 - 2  # the number after it means "leave it as it is" to the kernel


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine, as whom jobs run; one with a number alone need not be known to it."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # all that it is in, its own among them
    name: str
    home: str
    shell: str

    def __str__(self) -> str:
        groups = ", ".join(map(str, self.groups))
        return f"{self.name} (user {self.uid}, group {self.gid}, in groups {groups})"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell a process whose it is."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}

    @property
    def start(self) -> dict[str, Any]:
        """What `subprocess.Popen` takes to start a program as this user.

        Its directory is one that every user may be in.
        """
        assert self.groups, "with none a process would keep those of its parent"
        return {
            "user": self.uid, "group": self.gid, "extra_groups": list(self.groups), "cwd": "/"
        }  # fmt: skip

    def may(self, state: os.stat_result, bit: int) -> bool:
        """Say whether the mode of a file gives a right: 4 to read, 2 to write, 1 to enter."""
        if state.st_uid == self.uid:
            bit <<= 6
        elif state.st_gid == self.gid or state.st_gid in self.groups:
            bit <<= 3
        return bool(state.st_mode & bit)


def find_user(wanted: str, source: str) -> User:
    """Return the user of this name or number, or of USER:GROUP; raises DispyError.

    With all its groups. `source` says where it was asked for.
    """
    import pwd

    user, colon, group = wanted.strip().partition(":")
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        hint = "; a user that has no name is said by --suid and --sgid" * user.isdecimal()
        raise DispyError(f"{source}: this machine has no user {user!r}{hint}") from None
    gid = _group(group, source) if colon else entry.pw_gid
    groups = tuple(sorted(os.getgrouplist(entry.pw_name, gid)))
    found = User(
        entry.pw_uid, gid, groups, entry.pw_name, entry.pw_dir or "/", entry.pw_shell or "/bin/sh"
    )
    return _checked(found, source)


def user_of_numbers(uid: int, gid: int | None, source: str) -> User:
    """Return the user with these numbers, who is in no other group; raises DispyError.

    gid None: the user's own. A number that nobody has is as good as a user: it owns nothing.
    """
    import pwd

    try:
        entry = pwd.getpwuid(uid)
        name, home, shell = entry.pw_name, entry.pw_dir or "/", entry.pw_shell or "/bin/sh"
        gid = entry.pw_gid if gid is None else gid
    except (KeyError, OverflowError):
        name, home, shell = str(uid), "/", "/bin/sh"
    if gid is None:
        raise DispyError(f"{source}: this machine has no user {uid}; say its group too: --sgid")
    return _checked(User(uid, gid, (gid,), name, home, shell), source)


def _group(wanted: str, source: str) -> int:
    import grp

    try:
        return int(wanted) if wanted.isdecimal() else grp.getgrnam(wanted).gr_gid
    except KeyError:
        raise DispyError(f"{source}: this machine has no group {wanted!r}") from None


def _checked(user: User, source: str) -> User:
    """Refuse a user as whom nothing would be gained."""
    if not 0 <= user.uid <= _LARGEST or not 0 <= user.gid <= _LARGEST:
        raise DispyError(f"{source}: {user.uid}:{user.gid} are no numbers of a user and a group")
    if user.uid == 0 or 0 in user.groups:
        raise DispyError(
            f"{source}: jobs that run as root, or in its group, can do with this machine what they "
            f"like; name another user, who owns nothing else"
        )
    return user


def closed_to(user: User, path: str) -> str | None:
    """Return the first directory on the way to `path`, or itself, that a user may not enter.

    By their modes alone. A file is asked for the right to read it.
    """
    for place in [*_way_to(os.path.abspath(path)), *_way_to(os.path.realpath(path))]:
        try:
            state = os.stat(place)
        except OSError:
            return place
        if not user.may(state, 1 if stat.S_ISDIR(state.st_mode) else 4):
            return place
    return None


def in_the_hands_of(user: User, path: str) -> str | None:
    """Return the first directory above `path` in which a user may rename what others own."""
    for place in _way_to(os.path.dirname(os.path.realpath(path))):
        state = os.stat(place)
        if state.st_uid == user.uid or (user.may(state, 2) and not state.st_mode & stat.S_ISVTX):
            return place
    return None


def is_ours(path: Path) -> bool:
    """Say whether this is a directory, and no link to one, of the user that this process has."""
    state = path.lstat()
    mine = not hasattr(os, "geteuid") or state.st_uid == os.geteuid()
    return stat.S_ISDIR(state.st_mode) and mine


def _way_to(path: str) -> list[str]:
    way = [path]
    while (above := os.path.dirname(way[-1])) != way[-1]:
        way.append(above)
    return way[::-1]


@contextmanager
def acting_as(user: User) -> Iterator[None]:
    """Have this very thread reach files as a user does, and make what it makes as his.

    So nothing that the user does meanwhile can turn our rights against others: what may not be
    done is refused. Raises OSError. Linux alone can do it; not for a main
    thread, whose `die_with_parent` it would end. Groups stay those of the process.
    """
    library = ctypes.CDLL(None)
    try:
        library.setfsgid(user.gid)
        library.setfsuid(user.uid)
        if library.setfsuid(-1) != user.uid:  # it tells of no failure but like this
            raise PermissionError(errno.EPERM, f"cannot act as {user.name}")
        yield
    finally:
        library.setfsuid(os.geteuid())
        library.setfsgid(os.getegid())


def hand_over(descriptor: int, user: User) -> bool:
    """Make an open directory a user's, and nobody else's; False where it is neither his nor ours.

    By a descriptor and no path, which might lead elsewhere by then. Raises OSError.
    """
    state = os.fstat(descriptor)
    if state.st_uid == user.uid:
        return True
    if state.st_uid != os.geteuid():
        return False
    os.fchmod(descriptor, 0o700)
    os.fchown(descriptor, user.uid, user.gid)
    return True
