"""Floor 2: the scheduler's decisions, a pure state machine."""
