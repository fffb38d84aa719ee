"""Shared set-up of the tests."""

import os
import signal

from hypothesis import HealthCheck, settings

# Timings on a busy machine are no reason to fail: properties are about values. In continuous
# integration the same examples are tried every time; elsewhere new ones, which is how faults are
# found.
settings.register_profile(
    "limbeck",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("limbeck")

# A shell that starts the tests in the background lets them, and every process that they start,
# ignore Ctrl-C; but what Ctrl-C does is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
