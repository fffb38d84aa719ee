"""Functions for worker processes, which find them by name."""

import os
import time

from limbeck.errors import DataError


def double(x: int) -> int:
    print("what a function prints does not get between the answers")
    return 2 * x


def slow_first(x: int) -> int:
    time.sleep(0.2 if x == 0 else 0)
    return x


def process(x: object) -> int:
    return os.getpid()


def length(x: bytes) -> bytes:
    return x * 2


def fail_at_three(x: int) -> int:
    if x == 3:
        raise DataError("three is refused.")
    return x


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("cannot be sent")
        self.lock = lambda: None


def odd(x: int) -> int:
    raise Odd(1, 2)


def die(x: int) -> int:
    os._exit(9)


def wait(x: int) -> int:
    time.sleep(60)
    return x
