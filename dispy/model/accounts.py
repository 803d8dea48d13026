"""What one of many may have of something: bytes, counted and limited."""

from dataclasses import dataclass

from dispy.model.sizes import tell_bytes


@dataclass(slots=True)
class Account:
    """What is held for one owner; `setting` names the limit, 0 bytes is none."""

    limit: int
    setting: str
    held: int = 0

    def fits(self, size: int) -> bool:
        """Say whether so many bytes more may be held."""
        return not self.limit or self.held + size <= self.limit

    def take(self, size: int) -> None:
        """Count bytes that are held from now on."""
        self.held += size

    def release(self, size: int) -> None:
        """Count bytes that are held no more."""
        self.held -= size

    def why_not(self, what: str, size: int) -> str:
        """Say why `what`, of so many bytes, cannot be held too."""
        beside = f" beside {tell_bytes(self.held)} that it has there" if self.held else ""
        return (
            f"there is no room for {what} of {tell_bytes(size)}{beside}: one client may have "
            f"{tell_bytes(self.limit)} there ({self.setting})"
        )
