"""Floor 3: moves frames between processes with gevent; knows nothing of jobs."""
