"""Floor 1: everything that differs between operating systems, and nothing else."""
