"""How long to wait before a request is sent again."""

import random

FIRST_SECONDS = 0.5
MOST_SECONDS = 60.0
PATIENCE_SECONDS = 600.0
"""The longest that a server may ask us to wait; beyond that the run ends and says so."""


class Backoff:
    """Exponential back-off with full jitter: uniform between 0 and a bound that doubles.

    Args:
        seed: The same seed, the same waits.
        first_seconds: Bound of the first wait.
        most_seconds: The bound grows no further.
    """

    def __init__(
        self,
        seed: int,
        *,
        first_seconds: float = FIRST_SECONDS,
        most_seconds: float = MOST_SECONDS,
    ) -> None:
        self._random = random.Random(seed)
        self._first, self._most = first_seconds, most_seconds

    def seconds(self, tries: int, retry_after: float | None = None) -> float:
        """Wait before the next try.

        Args:
            tries: Tries that have failed, >= 1.
            retry_after: What the server asks for: it is waited in full, and then some, so that not
                all come back in the same moment.
        """
        bound: float = min(self._most, self._first * 2.0 ** min(tries - 1, 60))
        if retry_after is None:
            return self._random.uniform(0.0, bound)
        return retry_after + self._random.uniform(0.0, min(bound, self._first))
