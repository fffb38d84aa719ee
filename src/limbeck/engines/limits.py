"""How fast a server may be asked: so many requests and so many tokens a minute.

Time comes from a monotonic clock, so setting the machine's clock changes nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

BURST_SECONDS = 5.0
"""What a bucket holds: so many seconds' worth may be asked at once."""

_SLIVER = 1e-6

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Bucket:
    """A token bucket that may go below zero, so that nothing is too large for it.

    Over any span of t seconds it lets through at most `rate * (t + BURST_SECONDS)` plus the one
    request that took it below zero.

    Args:
        per_minute: What it lets through in a minute, > 0.
        clock: Seconds that never go back.
    """

    def __init__(self, per_minute: float, clock: Clock = time.monotonic) -> None:
        self._rate = per_minute / 60
        # At least one, or a limit below 12 a minute would never let anything through.
        self._size = max(1.0, self._rate * BURST_SECONDS)
        self._clock = clock
        self._level = self._size
        self._at = clock()

    def wait_seconds(self) -> float:
        """How long until something may be taken; 0 when it may be now."""
        self._fill()
        # Rounding may leave a sliver, and a clock may be too coarse to wait for one.
        return max(0.0, (1.0 - _SLIVER - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Take what is asked for; a negative amount gives back."""
        self._fill()
        self._level = min(self._size, self._level - amount)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._size, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now


class Gate:
    """Lets requests through as fast as the limits allow, and none while the server is busy.

    Args:
        requests_per_minute, tokens_per_minute: 0 for no limit.
        clock: Seconds that never go back.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        requests_per_minute: int,
        tokens_per_minute: int,
        *,
        clock: Clock,
        sleep: Sleep,
    ) -> None:
        self._requests = Bucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, clock) if tokens_per_minute else None
        self._clock, self._sleep = clock, sleep
        self._open_at = clock()
        self._turn = asyncio.Lock()
        self._share = 1.0  # of the worst case that replies really use

    async def enter(self, worst_tokens: int) -> float:
        """Wait until a request may be sent.

        Args:
            worst_tokens: The most tokens that it can use.

        Returns:
            Tokens that were taken for it, for `leave`.
        """
        async with self._turn:  # first come, first served
            while (wait := self._wait_seconds()) > 0:
                await self._sleep(wait + _SLIVER)
            return self._take(worst_tokens)

    def _take(self, worst_tokens: int) -> float:
        if self._requests is not None:
            self._requests.take(1)
        taken = self._share * worst_tokens
        if self._tokens is not None:
            self._tokens.take(taken)
        return taken

    def leave(self, taken: float, worst_tokens: int, used_tokens: int | None) -> None:
        """Count what a request has really used; later ones are taken to be alike.

        Args:
            taken: What `enter` gave.
            worst_tokens: What `enter` was given.
            used_tokens: Tokens used, or None for a request that was refused.
        """
        if self._tokens is None:
            return
        self._tokens.take((used_tokens or 0) - taken)
        if used_tokens is not None and worst_tokens > 0:
            self._share += 0.1 * (used_tokens / worst_tokens - self._share)

    def pause(self, seconds: float) -> None:
        """Let nothing through for some seconds."""
        self._open_at = max(self._open_at, self._clock() + seconds)

    def _wait_seconds(self) -> float:
        waits = [self._open_at - self._clock()]
        waits += [one.wait_seconds() for one in (self._requests, self._tokens) if one is not None]
        return max(0.0, *waits)
