"""Which files go along, and where each of them lies on a node: manifests.

A manifest is a list of entries [path, digest, size, mode, mtime]: the path relative to the working
directory with `/`, the content's digest, bytes, permission bits, nanoseconds since the epoch. An
entry with an empty digest is a directory. One whose mode is LINK is another name for the entry
whose path is its digest. Made on the client by `manifest`, believed on a node only after `check`.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dispy.model.errors import DispyError
from dispy.shipping.contents import DIGEST_SIZE, Content

LINK = stat.S_IFLNK | 0o777
ENTRIES_LIMIT = 50_000  # of one manifest, which travels within one message,
PATHS_LIMIT = 8 * 1024 * 1024  # and bytes of all their paths
PATH_LIMIT = 4000  # bytes of one; the kernel takes 4096 with the directory before it
NAME_LIMIT = 255  # bytes of each part: what file systems take
SIZE_LIMIT = 1 << 62  # bytes
LEFT_OUT = frozenset({"__pycache__"})  # good for one version of Python at most, and made anew


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a manifest."""

    path: str
    digest: bytes
    size: int
    mode: int
    mtime: int  # nanoseconds since the epoch

    @property
    def is_link(self) -> bool:
        """Whether it is another name for an entry."""
        return self.mode == LINK

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return not self.digest

    @property
    def is_file(self) -> bool:
        """Whether it has a content."""
        return bool(self.digest) and not self.is_link


def manifest(
    paths: Iterable[str | os.PathLike[str]], cwd: str | None = None
) -> tuple[list[list[Any]], list[Content]]:
    """Return the manifest of files and directories, and the contents that it names.

    What lies below `cwd` (the current directory) keeps its path relative to that; a file is
    reachable by its base name too, where nothing else has that. Of anything else the base name
    is taken, and a directory's tree is below it. Raises DispyError for what is not there, cannot
    be read, or would lie where another one lies.
    """
    cwd = os.getcwd() if cwd is None else cwd
    found: dict[str, _Found] = {}
    files: list[str] = []  # that were named one by one
    for given in paths:
        source = os.fspath(given)
        place = _place_of(source, cwd)
        if os.path.isdir(source):
            for one in _tree(source, place):
                _add(found, one)
        else:
            _add(found, _file(source, place))
            files.append(place)
    _check_inside_files(found)
    entries = [[place, *one.entry] for place, one in found.items()]
    _check_limits(entries)
    entries += [[name, place.encode(), 0, LINK, 0] for name, place in _links(found, files)]
    return entries, [one.content for one in found.values() if one.content is not None]


@dataclass(frozen=True, slots=True)
class _Found:
    source: str
    place: str
    entry: tuple[bytes, int, int, int]  # without the path
    content: Content | None = None


def _place_of(source: str, cwd: str) -> str:
    """Return where a file or directory lies on the node; empty for `cwd` itself."""
    for path, directory in (
        (os.path.abspath(source), os.path.abspath(cwd)),
        (_real(source), os.path.realpath(cwd)),
    ):
        if path == directory:
            return ""
        if os.path.commonpath([path, directory]) == directory:
            return os.path.relpath(path, directory).replace(os.sep, "/")
    return os.path.basename(os.path.abspath(source)) or os.path.basename(_real(source))


def _real(path: str) -> str:
    """Return a path without links on the way; its last part may be one."""
    parent, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(parent), name)


def _file(source: str, place: str) -> _Found:
    try:
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode):
            raise DispyError(f"{source!r} is neither a file nor a directory")
        content = Content.of_file(source)
    except OSError as error:
        raise _cannot(source, error) from None
    mode = stat.S_IMODE(status.st_mode) & 0o777
    return _Found(source, place, (content.digest, content.size, mode, status.st_mtime_ns), content)


def _cannot(source: str, error: OSError) -> DispyError:
    if isinstance(error, FileNotFoundError):
        where = "" if os.path.isabs(source) else f" in {os.getcwd()}"
        return DispyError(f"there is no file {source!r}{where}")
    return DispyError(f"{source!r} cannot be read: {error.strerror or error}")


def _tree(source: str, place: str, above: tuple[str, ...] = ()) -> Iterator[_Found]:
    """Yield what is in a directory, links followed, and itself where that is nothing."""
    real = os.path.realpath(source)
    if real in above:
        raise DispyError(f"{source!r} leads back to a directory above it")
    try:
        with os.scandir(source) as scan:
            inside = sorted((one for one in scan if one.name not in LEFT_OUT), key=_name)
        status = os.stat(source)
    except OSError as error:
        raise _cannot(source, error) from None
    if not inside and place:
        mode = stat.S_IMODE(status.st_mode) & 0o777
        yield _Found(source, place, (b"", 0, mode, status.st_mtime_ns))
    for one in inside:
        below = f"{place}/{one.name}" if place else one.name
        if one.is_dir():
            yield from _tree(one.path, below, (*above, real))
        else:
            yield _file(one.path, below)


def _name(one: "os.DirEntry[str]") -> str:
    return one.name


def _add(found: dict[str, _Found], one: _Found) -> None:
    other = found.setdefault(one.place, one)
    if other.entry[0] != one.entry[0]:
        raise DispyError(
            f"{other.source!r} and {one.source!r} would both be {one.place!r} on the "
            f"nodes; give one of them another name"
        )


def _check_inside_files(found: dict[str, _Found]) -> None:
    for place, one in found.items():
        for above in _above(place):
            other = found.get(above)
            if other is not None and other.content is not None:
                raise DispyError(
                    f"{other.source!r} would be the file {above!r} on the nodes, and "
                    f"{one.source!r} lie in a directory of that name; rename one of them"
                )


def _above(place: str) -> Iterator[str]:
    """Yield the directories that a place lies in, the innermost first."""
    while "/" in place:
        place = place.rpartition("/")[0]
        yield place


def _links(found: dict[str, _Found], files: Iterable[str]) -> list[tuple[str, str]]:
    """Return the base names by which files in directories can be reached too."""
    taken = {place.partition("/")[0] for place in found}
    named: dict[str, set[str]] = {}
    for place in files:
        name = place.rpartition("/")[2]
        if name != place and name not in taken:
            named.setdefault(name, set()).add(place)
    return [(name, *places) for name, places in named.items() if len(places) == 1]  # type: ignore[misc]


def _check_limits(entries: Sequence[list[Any]]) -> None:
    size = 0
    for path, *_ in entries:
        why = why_not_inside(path)
        if why is not None:
            raise DispyError(f"{path!r} cannot be sent: {why}")
        size += len(path.encode())
    if len(entries) > ENTRIES_LIMIT or size > PATHS_LIMIT:
        raise DispyError(
            f"these are {len(entries)} files; at most {ENTRIES_LIMIT} go along at once. "
            f"Pack them into an archive"
        )


# -- on the node


def check(entries: Any, size_limit: int = 0) -> list[Entry]:
    """Return the entries of a manifest that a peer sent.

    `size_limit`: bytes of each file; 0: any. Raises DispyError for a manifest that is none, that
    would leave the directory, or that has a file which is too large.
    """
    if not isinstance(entries, list) or len(entries) > 2 * ENTRIES_LIMIT:
        raise DispyError("the list of its files is none")
    checked = [_entry(entry) for entry in entries]
    by_path = {entry.path: entry for entry in checked}
    if len(by_path) < len(checked):
        raise DispyError("the list of its files has one twice")
    for entry in checked:
        if entry.is_link:
            target = by_path.get(entry.digest.decode(errors="replace"))
            if target is None or not target.is_file or "/" in entry.path:
                raise DispyError(f"{entry.path!r} is another name for nothing")
        elif size_limit and entry.size > size_limit:
            raise DispyError(
                f"file {entry.path!r} has {entry.size:,} bytes, and this node takes at most "
                f"{size_limit:,} (its max_file_size)"
            )
    return checked


def _entry(entry: Any) -> Entry:
    kinds = [str, bytes, int, int, int]
    if not isinstance(entry, list) or list(map(type, entry)) != kinds:
        raise DispyError("an entry of its files is none")
    checked = Entry(*entry)
    why = why_not_inside(checked.path)
    if why is not None:
        raise DispyError(f"file {checked.path[:200]!r} is refused: {why}")
    sized = 0 <= checked.size < SIZE_LIMIT and abs(checked.mtime) < SIZE_LIMIT
    moded = checked.is_link or not checked.mode & ~0o777
    if not sized or not moded or not (checked.is_link or len(checked.digest) in (0, DIGEST_SIZE)):
        raise DispyError(f"file {checked.path[:200]!r} is refused: it is not described as a file")
    return checked


def why_not_inside(path: str) -> str | None:
    """Say why a path cannot lie in a working directory; None when it can."""
    parts = path.split("/")
    if path.startswith("/") or os.path.isabs(path):
        return "it is absolute, and would leave the directory"
    if ".." in parts:
        return "it would leave the directory"
    if "\0" in path or "" in parts or "." in parts:
        return "it is no path of a file"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not text (UTF-8)"
    if len(path.encode()) > PATH_LIMIT or any(len(part.encode()) > NAME_LIMIT for part in parts):
        return "it is too long"
    return None
