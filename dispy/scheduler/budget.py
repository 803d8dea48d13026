"""The memory that a scheduler has for what it can read back from its journal."""


class Budget:
    """Bytes of arguments and results that are kept in memory, beside their copies on disk."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes may be kept."""
        return self.used + size <= self.limit
