"""Floor 2: a node's decisions, a pure state machine."""
