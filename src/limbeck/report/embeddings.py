"""What the report tells of a teacher's embeddings, for arms that split classes by them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A row at the end of a direction.

    Args:
        row: Position in the pool.
        text: What it says, shortened.
        image: A small picture of it as a data URI, or empty.
        score: How far along the direction it is; the class's own r.m.s. is 1.
        probability: The teacher's, of the class, in [0, 1].
    """

    row: int
    text: str
    image: str
    score: float
    probability: float


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a class, with the rows furthest to either side, the furthest first."""

    class_name: str
    number: int
    low: tuple[Example, ...]
    high: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class ArmSplit:
    """What an arm's targets say of a row, in nats.

    Args:
        title: Of the arm.
        outputs: Of its student's head.
        class_nats: What the class probabilities say.
        split_nats: What the split of the classes adds.
        bound: Most that a split into so many can add.
    """

    title: str
    outputs: int
    class_nats: float
    split_nats: float
    bound: float


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What the embeddings hold; the figures are those of `limbeck.objectives.embedding_figures`.

    Args:
        rows: Answers that were looked at.
        dim: Numbers of an embedding.
        ratio: Variance within classes over that between them, or None where class means are equal.
        nc1, norm_spread, angle_gap: Figures of neural collapse; the first None as `ratio`.
        null_share, centered_null_share: Share of the variance within classes outside the last
            layer's rows; None where the layer is unknown or nothing varies.
        null_room: What even variance would give.
        words: What that means for a split, sentences.
        splits: One for each arm that splits classes.
        directions: Of the first arm that has any, some of them.
        directions_of: The title of that arm.
        all_directions: How many it has.
    """

    rows: int
    dim: int
    ratio: float | None
    nc1: float | None
    norm_spread: float
    angle_gap: float
    null_share: float | None
    centered_null_share: float | None
    null_room: float | None
    words: tuple[str, ...]
    splits: tuple[ArmSplit, ...]
    directions: tuple[Direction, ...] = ()
    directions_of: str = ""
    all_directions: int = 0

    @property
    def pictured(self) -> bool:
        """Whether any example has a picture."""
        return any(one.image for each in self.directions for one in (*each.low, *each.high))
