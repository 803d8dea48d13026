"""Floor 4: the service that runs jobs on one machine."""
