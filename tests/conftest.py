"""Settings for every test: no test depends on a wall-clock speed."""

from hypothesis import HealthCheck, settings

settings.register_profile("dispy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dispy")
