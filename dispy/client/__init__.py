"""Floor 5: what a user's program holds: clusters, jobs, nodes, and the thread behind them."""
