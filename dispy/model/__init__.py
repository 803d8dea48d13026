"""Floor 1: plain data and rules; imports nothing else of dispy."""
