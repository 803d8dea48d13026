"""The users of this machine, as far as jobs are to run as one of them."""

import os
from dataclasses import dataclass

from dispy.model.errors import DispyError


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine, as whom jobs run; one with a number alone need not be known to it."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # all that it is in
    name: str
    home: str
    shell: str

    @property
    def text(self) -> str:
        """What `read_user` reads: the numbers, which a command line can carry."""
        return f"{self.uid}:{self.gid}:{','.join(map(str, self.groups))}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell a process whose it is."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


def find_user(wanted: str, source: str) -> User:
    """Return the user of this name or number, or of USER:GROUP; raises DispyError.

    `source` says where it was asked for.
    """
    import grp
    import pwd

    user, _, group = wanted.partition(":")
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
        home, shell = entry.pw_dir or "/", entry.pw_shell or "/bin/sh"
    except KeyError:
        if not user.isdecimal():
            raise DispyError(f"{source}: this machine has no user {user!r}") from None
        # A number that nobody has is as good as a user: it owns nothing.
        uid, gid, name, home, shell = int(user), int(user), user, "/", "/bin/sh"
    except OverflowError:
        raise DispyError(f"{source}: {user} is no number of a user") from None
    if group:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise DispyError(f"{source}: this machine has no group {group!r}") from None
    groups = (gid,) if name == user and user.isdecimal() else tuple(os.getgrouplist(name, gid))
    return User(uid, gid, groups, name, home, shell)
