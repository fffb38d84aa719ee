"""Settings of the data: which files, which columns, how many rows to set aside."""

from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where rows come from and what their columns are.

    A path may be a file (Parquet, CSV, TSV, JSONL, Arrow, npz), a folder of parts of one format, a
    folder of images (with one sub-folder a class where they are labelled), or a pattern such as
    `logs/2024-*.parquet`.
    """

    labelled: Path
    """Rows with a true label. Rows whose label is empty join the pool."""
    pool: Path | None = None
    """Unlabelled rows. A label column in it is never read."""
    validation: Path | None = None
    """Labelled rows that fit trust and temperature. Default: cut from the labelled file."""
    test: Path | None = None
    """Labelled rows that are touched once, at the end. Default: cut from the labelled file."""
    text: tuple[str, ...] = ()
    """Text columns. Default: guessed, and reported."""
    numeric: tuple[str, ...] = ()
    """Numeric columns; empty values are missing. Default: guessed when no column is named."""
    category: tuple[str, ...] = ()
    """Columns with few distinct strings. Default: guessed when no column is named."""
    image: tuple[str, ...] = ()
    """Columns of images: paths (relative to the file), bytes, or both. Default: guessed when no
    column is named."""
    label: str = ""
    """The label column. Default: the one called label, class, target, sentiment, y, ..."""
    classes: tuple[str, ...] = ()
    """Class names in order. Default: those of the labelled rows, sorted (numbers by value)."""
    validation_rows: int = 0
    """Distinct labelled rows to cut for validation. 0: 20 % of them."""
    test_rows: int = 0
    """Distinct labelled rows to cut for testing. 0: 20 % of them."""
    drop_test_overlap: bool = False
    """Drop labelled and validation rows that repeat a test row, and validation rows that repeat a
    labelled row, rather than refuse the files. Test rows are never dropped."""

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            rows = getattr(self, f"{name}_rows")
            if rows < 0:
                raise ConfigError(f"{name}_rows={rows}: must be >= 0; 0 cuts 20 % of the rows.")
            if rows and getattr(self, name) is not None:
                raise ConfigError(
                    f"{name}_rows={rows} cuts rows from the labelled file but {name}="
                    f"{getattr(self, name)} is given too; leave one of them out."
                )
        self._check_columns()
        self._check_classes()

    def relative_to(self, folder: Path) -> "DataConfig":
        """The same settings with relative paths taken from `folder`, for a file that lies there."""
        return replace(
            self,
            labelled=folder / self.labelled,
            pool=None if self.pool is None else folder / self.pool,
            validation=None if self.validation is None else folder / self.validation,
            test=None if self.test is None else folder / self.test,
        )

    def _check_columns(self) -> None:
        inputs = self.text + self.numeric + self.category + self.image
        for name in inputs:
            if inputs.count(name) > 1:
                raise ConfigError(
                    f"column '{name}' is named twice among text, numeric, category and "
                    f"image; give it one role."
                )
        if self.label and self.label in inputs:
            raise ConfigError(
                f"column '{self.label}' is both the label and an input; a student that reads the "
                f"label learns nothing, so name it only as label."
            )

    def _check_classes(self) -> None:
        for name in self.classes:
            if self.classes.count(name) > 1:
                raise ConfigError(f"classes name '{name}' twice; class names must be distinct.")
        if len(self.classes) == 1:
            raise ConfigError(
                f"classes={self.classes}: one class only, expected at least two; name them all or "
                f"leave classes out to take them from the labelled rows."
            )
