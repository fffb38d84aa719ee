"""What the columns of a task are: inputs, label, classes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns that a student may look at, and the classes it tells apart.

    Args:
        text: Names of text columns (Arrow large_string in a `Dataset`).
        numeric: Names of numeric columns (float64 in a `Dataset`; missing values are NaN).
        category: Names of columns with few distinct strings (large_string in a `Dataset`).
        label: Name of the label column, or None when labels come from elsewhere.
        classes: Class names; a label is a position in this tuple.
        image: Names of image columns (large_binary in a `Dataset`: the bytes of an image file).
    """

    text: tuple[str, ...]
    numeric: tuple[str, ...]
    category: tuple[str, ...]
    label: str | None
    classes: tuple[str, ...]
    image: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """All input columns: text, then numeric, then category, then image."""
        return self.text + self.numeric + self.category + self.image

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.classes)
