"""Orders: reservations that wait for people and outlive the process that made them.

An order is a reservation whose owner is written as `human:` and the run's name. No process is
called so, and it is never taken for what a dead process left behind. It ends when each of its
questions is recorded or released.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from limbeck.ledger.base import Reservation
from limbeck.ledger.codec import key_ids
from limbeck.ledger.owners import ORDER
from limbeck.teachers.base import Money


class Order(NamedTuple):
    """What is still open of an order.

    Args:
        reservation: Its questions that nobody has answered yet, and the worst that they can cost.
        at: When it went out, milliseconds since 1970.
    """

    reservation: Reservation
    at: int


def open_orders(connection: sqlite3.Connection, run: str, fingerprint: str) -> list[Order]:
    """What a run has out with people, oldest first."""
    rows = connection.execute(
        """SELECT r.id, r.currency, r.at, a.question, a.worst, r.uid FROM reservations r
            JOIN attempts a ON a.reservation = r.id AND a.state = 'reserved'
            WHERE r.run = ? AND r.owner = ? AND r.in_flight > 0
                AND r.teacher = (SELECT id FROM teachers WHERE fingerprint = ?)
            ORDER BY r.id, a.question""",
        (run, ORDER + run, fingerprint),
    ).fetchall()
    orders = []
    for key in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == key]
        worst = Money(sum(row[4] for row in own), own[0][1])
        reservation = Reservation(key, key_ids([row[3] for row in own]), worst, own[0][5])
        orders.append(Order(reservation, own[0][2]))
    return orders


def failed_questions(
    connection: sqlite3.Connection, run: str, fingerprint: str, *, paid: bool = False
) -> NDArray[np.uint8]:
    """Questions that this run has asked a teacher without getting an answer, (n, 16).

    Args:
        paid: Only those that had a reply or a price.
    """
    # Most runs have no failures, and their totals say so without a look at their reservations.
    (some,) = connection.execute(
        "SELECT TOTAL(failed) FROM totals WHERE run = ?", (run,)
    ).fetchone()
    if not some:
        return key_ids([])
    rows: Sequence[tuple[bytes]] = connection.execute(
        f"""SELECT DISTINCT a.question FROM reservations r JOIN attempts a ON r.id = a.reservation
            WHERE a.state = 'failed' AND r.run = ? AND r.failed > 0 AND length(a.question) = 16
                AND r.teacher = (SELECT id FROM teachers WHERE fingerprint = ?)
                {"AND (a.price > 0 OR a.raw IS NOT NULL)" if paid else ""}""",
        (run, fingerprint),
    ).fetchall()
    return key_ids([key for (key,) in rows])
