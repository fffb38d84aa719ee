"""Shared set-up of the tests."""

from hypothesis import HealthCheck, settings

# Timings on a busy machine are no reason to fail: properties are about values.
settings.register_profile("limbeck", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("limbeck")
