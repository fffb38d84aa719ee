"""A student as a folder: weights, description and checksums; and the predictor it opens as.

`model.safetensors` holds the weights, `config.json` everything else, and `SHA256SUMS`, written
last, the hash of every file in the format that `sha256sum --check` reads. Nothing is pickled.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

import limbeck
from limbeck.data.schema import Schema
from limbeck.data.tables import as_batch
from limbeck.errors import LimbeckError, MissingExtraError, StudentError
from limbeck.numerics.classmap import ClassMap
from limbeck.storage import sha256, write_bytes, write_json, write_text
from limbeck.students.base import Student
from limbeck.students.kinds import find_kind, settings_of

FORMAT = 1
"""Version of the folder's layout."""
WEIGHTS, CONFIG, SUMS = "model.safetensors", "config.json", "SHA256SUMS"
UNSEALED = (SUMS, "README.md")


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """Of two classes, name the positive one from a probability on.

    Args:
        positive: The class, one of the two.
        threshold: It is named where its calibrated probability is at least this, in [0, 1]; 0
            names it always, 1 never.
        cost_false_positive, cost_false_negative: What the threshold was chosen for.
    """

    positive: str
    threshold: float
    cost_false_positive: float = 1.0
    cost_false_negative: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """A trained student, ready to classify rows.

    Args:
        student: The student; its module is in evaluation mode.
        temperature: The logits are divided by it, which calibrates the probabilities; > 0.
        threshold: Rows whose largest probability is at most this are better sent to the teacher;
            0 keeps all rows.
        extra: What was saved beside it: plain JSON values.
        decision: Which class is named; None names the most probable one.
    """

    student: Student
    temperature: float
    threshold: float
    extra: Mapping[str, object]
    decision: DecisionRule | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.student.schema.classes

    def predict(self, rows: object) -> list[str]:
        """Name the class of each row: the most probable one, or what the decision rule says."""
        return [self.classes[i] for i in self.decide(self.predict_proba(rows))]

    def decide(self, probs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Position of the class to name for rows of probabilities (n, C), int64, shape (n,)."""
        if self.decision is None:
            best: NDArray[np.int64] = probs.argmax(axis=1)
            return best
        place, threshold = self.classes.index(self.decision.positive), self.decision.threshold
        # In float64: a float32 threshold could fall on the other side of a row.
        named = (probs[:, place].astype(np.float64) >= threshold) & (threshold < 1)
        return np.where(named, place, 1 - place)

    def predict_proba(self, rows: object) -> NDArray[np.float32]:
        """Calibrated class probabilities, float32, shape (n, C).

        Args:
            rows: Texts, dicts, a dict of lists, a DataFrame, an Arrow table or a matrix.

        Raises:
            DataError: a column that the student reads is missing or of the wrong type.
        """
        return self.probabilities(as_batch(rows, self.student.schema))

    def probabilities(self, rows: pa.RecordBatch) -> NDArray[np.float32]:
        """The same for rows that have the schema's columns already."""
        at_once = self.student.module.rows_at_once
        parts = [_softmax(self, batch) for batch in _slices(rows, at_once)]
        empty = np.empty((0, len(self.classes)), dtype=np.float32)
        return np.concatenate([empty, *parts])

    def defer(self, rows: object) -> NDArray[np.bool_]:
        """Which rows the student is too unsure about, bool, shape (n,)."""
        return self.unsure(self.predict_proba(rows))

    def unsure(self, probs: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which rows of probabilities, shape (n, C), are at or below the threshold."""
        unsure: NDArray[np.bool_] = probs.max(axis=1) <= self.threshold
        return unsure


def _slices(rows: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    for first in range(0, rows.num_rows, size):
        yield rows.slice(first, size)


def _softmax(predictor: Predictor, rows: pa.RecordBatch) -> NDArray[np.float32]:
    student = predictor.student
    inputs = student.encoder.collate(student.encoder.encode(rows))
    with torch.inference_mode():
        logits = student.class_logits(student.module(inputs).outputs) / predictor.temperature
        probs: NDArray[np.float32] = torch.softmax(logits, dim=-1).numpy()
    return probs


def save(
    student: Student,
    folder: str | Path,
    *,
    temperature: float = 1.0,
    threshold: float = 0.0,
    extra: Mapping[str, object] | None = None,
    decision: DecisionRule | None = None,
) -> None:
    """Write a student folder.

    Args:
        student: Its head must have the outputs that its class map says, one a class without a map;
            the module may be on any device.
        folder: Made if missing; files of the same names are replaced.
        temperature: Divides the class logits, > 0 and finite.
        threshold: Rows whose largest probability is at most this are deferred, in [0, 1].
        extra: Plain JSON values to keep beside it, such as measured accuracies.
        decision: Which of two classes is named; None names the most probable class.

    Raises:
        StudentError: the head, the temperature, the threshold or the decision cannot be used.
        StorageError: the disk is full or read-only.
    """
    _check_head(student)
    if not 0 < temperature < float("inf"):
        raise StudentError(f"temperature={temperature}: must be finite and > 0; 1 changes nothing.")
    if not 0 <= threshold <= 1:
        raise StudentError(f"threshold={threshold}: must be in [0, 1]; 0 defers no row.")
    if decision is not None:
        _check_decision(decision, student.schema.classes)
    folder = Path(folder)
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in student.module.state_dict().items()
    }
    write_bytes(folder / WEIGHTS, safetensors.torch.save(weights))
    files = student.encoder.files()
    for name, data in files.items():
        write_bytes(folder / name, data)
    config = {
        "format": FORMAT,
        "limbeck": limbeck.__version__,
        "kind": student.encoder.kind,
        "settings": asdict(student.module.settings),
        "encoder": student.encoder.to_config(),
        "files": sorted(files),
        "schema": asdict(student.schema),
        "class_map": None if student.class_map is None else asdict(student.class_map),
        "temperature": temperature,
        "threshold": threshold,
        "decision": None if decision is None else asdict(decision),
        "extra": dict(extra or {}),
    }
    write_json(folder / CONFIG, config)
    seal(folder)


def _check_head(student: Student) -> None:
    width, classes = student.module.head.out_features, student.schema.num_classes
    if student.class_map is not None and student.class_map.num_classes != classes:
        raise StudentError(
            f"the class map names {student.class_map.num_classes} classes but the task has "
            f"{classes}; give the map of this task."
        )
    if width != student.width:
        raise StudentError(
            f"the head has {width} outputs but the task has {classes} classes, for which this "
            f"student needs {student.width} outputs; a saved student needs one output a class, or "
            f"a class_map that says to which class each belongs."
        )


def _check_decision(rule: DecisionRule, classes: Sequence[str]) -> None:
    if len(classes) != 2 or rule.positive not in classes:
        raise StudentError(
            f"a decision about {rule.positive!r} needs two classes with it among them but the "
            f"classes are {', '.join(classes)}; save without a decision."
        )
    if not 0 <= rule.threshold <= 1:
        raise StudentError(
            f"decision.threshold={rule.threshold}: must be in [0, 1], a probability."
        )


def seal(folder: Path) -> None:
    """Write the hash of every file of the folder but its README, which is for people to edit.

    Call it again after adding files.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    lines = [f"{sha256(path)}  {path.name}\n" for path in files if path.name not in UNSEALED]
    write_text(folder / SUMS, "".join(lines))


def load(folder: str | Path) -> Predictor:
    """Open a student folder, after its files were compared with their hashes.

    Raises:
        StudentError: a file is missing or was changed, the folder is of another version, or the
            code of a network of yours cannot be imported.
        MissingExtraError: the kind of student needs an optional package.
    """
    folder = Path(folder)
    checked = _check_files(folder)
    config = _read_config(folder)
    try:
        predictor = _rebuild(config, folder, checked)
    except (MissingExtraError, StudentError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, LimbeckError) as error:
        raise StudentError(
            f"{folder / CONFIG} cannot be used ({error}); export the student again."
        ) from error
    _load_weights(predictor.student, folder / WEIGHTS)
    return predictor


def _check_files(folder: Path) -> frozenset[str]:
    """Compare every file with its hash; the names of those that were compared."""
    if not (folder / SUMS).is_file():
        raise StudentError(
            f"{folder} has no {SUMS}, so it is not a student folder; give one that a run wrote."
        )
    listed = dict(_read_sums(folder / SUMS))
    for name in {CONFIG: "", WEIGHTS: "", **listed}:
        path = folder / name
        if not path.is_file():
            raise StudentError(f"{path} is missing; export the student again or copy all of it.")
        if sha256(path) != listed.get(name):
            raise StudentError(
                f"{path} was changed since the student was written (its hash differs from {SUMS}); "
                f"export the student again or copy all of it."
            )
    return frozenset(listed)


def _read_sums(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        # A path could lead out of the folder; only names are ever written.
        if not name or Path(name).name != name:
            raise StudentError(f"{path} holds the line {line!r}; export the student again.")
        yield name, digest


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise StudentError(f"{folder / CONFIG} is not JSON; export the student again.") from error
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise StudentError(
            f"{folder / CONFIG} has format {found!r} but Limbeck {limbeck.__version__} reads "
            f"{FORMAT}; update Limbeck or export the student again."
        )
    return dict(config)


def _rebuild(config: dict[str, Any], folder: Path, checked: frozenset[str]) -> Predictor:
    columns: dict[str, Any] = config["schema"]
    schema = Schema(
        text=tuple(columns["text"]),
        numeric=tuple(columns["numeric"]),
        category=tuple(columns["category"]),
        label=columns["label"],
        classes=tuple(columns["classes"]),
        image=tuple(columns.get("image", ())),  # folders written before images were read have none
    )
    kind = find_kind(config["kind"])
    settings = settings_of(config["kind"], config["settings"])
    names = config.get("files", ())
    if not checked.issuperset(names):
        raise ValueError(f"files {names} are not all in {SUMS}")
    files = {name: (folder / name).read_bytes() for name in names}
    encoder = kind.encoder.from_files(config["encoder"], files)
    # Folders written before heads could be wider have none.
    described = config.get("class_map")
    class_map = None
    if described is not None:
        class_map = ClassMap(tuple(described["class_of"]), float(described["temperature"]))
    width = schema.num_classes if class_map is None else class_map.width
    module = kind.module(encoder, settings, width, torch.Generator().manual_seed(0))
    student = Student(encoder, module.eval(), schema, class_map)
    _check_head(student)
    # Folders written before costs could be set have none.
    rule = None if config.get("decision") is None else DecisionRule(**config["decision"])
    if rule is not None:
        _check_decision(rule, schema.classes)
    return Predictor(
        student,
        temperature=float(config["temperature"]),
        threshold=float(config["threshold"]),
        extra=dict(config["extra"]),
        decision=rule,
    )


def _load_weights(student: Student, path: Path) -> None:
    try:
        student.module.load_state_dict(safetensors.torch.load(path.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        raise StudentError(
            f"{path} does not hold this student's weights; export the student again."
        ) from error
