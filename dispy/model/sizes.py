"""Numbers of bytes, as people write and read them."""

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_TOLD = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def read_bytes(text: str) -> int:
    """Return how many bytes "2 GB", "512 MiB", "1.5g" or "4096" are; raises ValueError.

    kB, MB, GB are powers of 1000, KiB, MiB, GiB and the bare letters (as in `ulimit` and in most
    batch systems) powers of 1024.
    """
    compact = text.strip().lower().replace("_", "")
    number = compact.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = compact[len(number) :].strip()
    if unit not in _UNITS:
        raise ValueError(f"{text!r} is not a number of bytes")
    size = float(number) * _UNITS[unit]
    if not 0 <= size < 2**62:
        raise ValueError(f"{text!r} is not a number of bytes")
    return round(size)


def tell_bytes(size: float) -> str:
    """Return a number of bytes with the unit that fits ("1.5 GB")."""
    for unit, factor in _TOLD:
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"
