"""The reading list: which rows, why, in which order."""

import numpy as np

from limbeck.report.disagreements import (
    BROKEN,
    LOST,
    RESISTED,
    SURE,
    Scored,
    pick_disagreements,
)

# Each row: truth, then (class, sureness) of student, labels-only student, teacher.
ROWS = [
    (0, (1, 0.9), (0, 0.6), (0, 0.8)),  # lost and broken
    (0, (1, 0.7), (1, 0.6), (0, 0.9)),  # lost, less sure
    (0, (0, 0.8), (0, 0.6), (1, 0.95)),  # resisted
    (1, (0, 0.6), (1, 0.9), (0, 0.9)),  # broken
    (1, (0, 0.99), (0, 0.9), (0, 0.9)),  # everyone sure and wrong
    (1, (1, 0.9), (1, 0.9), (1, 0.9)),  # nothing to see
]


def scored(*, teacher: bool = True) -> Scored:
    def probs(i: int) -> np.ndarray:
        out = np.empty((len(ROWS), 2))
        for r, row in enumerate(ROWS):
            says, sure = row[i]
            out[r, says], out[r, 1 - says] = sure, 1 - sure
        return out

    return Scored(
        ("no", "yes"),
        np.array([row[0] for row in ROWS]),
        probs(1),
        probs(2),
        probs(3) if teacher else None,
        np.linspace(0.5, 1, len(ROWS)) if teacher else None,
    )


def test_kinds_take_turns_and_the_surest_come_first() -> None:
    found = pick_disagreements(scored(), text=str)
    # First turn: lost 0, resisted 2, broken 0 (taken), sure 4. Second: lost 1, broken 3.
    assert [(d.row, d.why) for d in found] == [
        (0, LOST),
        (2, RESISTED),
        (4, SURE),
        (1, LOST),
        (3, BROKEN),
    ]


def test_a_row_everyone_gets_right_is_never_shown_and_none_is_shown_twice() -> None:
    rows = [d.row for d in pick_disagreements(scored(), text=str)]
    assert 5 not in rows
    assert len(set(rows)) == len(rows)


def test_the_count_is_kept_and_only_chosen_rows_are_read() -> None:
    read: list[int] = []

    def text(row: int) -> str:
        read.append(row)
        return f"row {row}"

    found = pick_disagreements(scored(), text=text, count=2)
    assert read == [0, 2] == [d.row for d in found]
    assert pick_disagreements(scored(), text=text, count=0) == ()


def test_what_everyone_said_is_written_down() -> None:
    first = pick_disagreements(scored(), text=lambda _: "hello")[0]
    assert (first.text, first.truth, first.student, first.labels_only, first.teacher) == (
        "hello",
        "no",
        "yes",
        "no",
        "no",
    )
    assert (first.student_probability, first.teacher_probability, first.alpha) == (0.9, 0.8, 0.5)


def test_without_a_teacher_its_kinds_and_words_are_left_out() -> None:
    found = pick_disagreements(scored(teacher=False), text=str)
    assert {d.why for d in found} == {BROKEN, SURE}
    assert all(d.teacher is None and d.alpha is None for d in found)


def test_long_texts_are_cut() -> None:
    found = pick_disagreements(scored(), text=lambda _: "x" * 10_000, count=1)
    assert len(found[0].text) == 600
    assert found[0].text.endswith("…")
