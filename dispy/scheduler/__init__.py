"""Floor 4: the object that drives the scheduling core; embedded in clients, later a service."""
