"""Floor 1: bytes to messages and back, without a socket."""
