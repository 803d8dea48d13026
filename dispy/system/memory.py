"""Memory for large buffers: taken without being written first, and kept for the next one.

Fresh memory is what big data costs: 64 MiB that the kernel has not given before take 50 to 90 ms
to fill, used ones 8 ms.
"""

import ctypes
import gc
import mmap
import sys

BLANK_SIZE = 1024 * 1024  # bytes; from here on it pays not to write zeros first
LARGE_PAGES_SIZE = 4 * 1024 * 1024  # bytes; from here on the kernel is asked for large pages
_KEPT = 256 * 1024 * 1024  # bytes of freed memory that a process of ours does not give back
_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3
_libc = ctypes.CDLL(None) if hasattr(mmap, "MADV_HUGEPAGE") else None
_CPYTHON = sys.implementation.name == "cpython"


def blank(size: int, readonly: bool) -> tuple[bytes | bytearray, memoryview]:
    """Return memory of `size` bytes, and the view through which to fill it once.

    `readonly` asks for bytes, which are whole only when the view has been filled; nobody may
    see them before. The kernel takes memory for what has been filled, not for what was asked.
    """
    if not _CPYTHON or size < BLANK_SIZE:
        buffer = bytearray(size)
        return buffer, memoryview(buffer)
    if not readonly:
        blank_array: bytearray = _array_of(None, size)
        view = memoryview(blank_array)
        _take_in_large_pages(ctypes.addressof(ctypes.c_char.from_buffer(view)), size)
        return blank_array, view
    # The C API's own way to make bytes that are then received into.
    blank_bytes: bytes = _bytes_of(None, size)
    address = id(blank_bytes) + bytes.__basicsize__ - 1
    _take_in_large_pages(address, size)
    return blank_bytes, memoryview((ctypes.c_char * size).from_address(address)).cast("B")


if _CPYTHON:
    _bytes_of = ctypes.pythonapi.PyBytes_FromStringAndSize
    _array_of = ctypes.pythonapi.PyByteArray_FromStringAndSize
    for _function in (_bytes_of, _array_of):
        _function.restype = ctypes.py_object
        _function.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]


def _take_in_large_pages(address: int, size: int) -> None:
    """Have the kernel give this memory by 2 MiB at a time where it can: filling 64 MiB of fresh
    memory takes 15 ms then, not 60."""
    if size < LARGE_PAGES_SIZE or _libc is None:
        return
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + size - start) // mmap.PAGESIZE * mmap.PAGESIZE
    # Without them, or in a kernel that has been told otherwise, it is refused, or does nothing.
    _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)


def keep_freed_memory() -> None:
    """Have this process use freed memory again; for processes that are ours alone."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # not every C library has it
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def collect_rarely() -> None:
    """Look for garbage in cycles less often than Python does by itself, in a process that holds
    much and makes little of that: a scheduler with a million jobs spent 40 % of its time so."""
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def return_freed_memory() -> None:
    """Give the system what the C library holds and nobody uses: a fork pays for each page."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # not every C library has it
        trim(0)
