"""Floor 3: the processes that run user code. No gevent, few imports."""
