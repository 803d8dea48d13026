"""dispy: turn any set of machines into a compute cluster."""

__version__ = "5.0.0"
