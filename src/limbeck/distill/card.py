"""The model card that lies beside a student."""

from collections.abc import Mapping
from pathlib import Path

from limbeck.data.schema import Schema
from limbeck.distill.example import EXAMPLE, example_packages
from limbeck.distill.export import ExportReport, OnnxFile
from limbeck.storage import write_text
from limbeck.students import Student, seal

CARD = "README.md"
_SHOWN_COLUMNS = 6


def write_card(
    student: Student,
    folder: Path,
    *,
    temperature: float,
    threshold: float,
    report: ExportReport | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the model card `README.md` into a student folder, and seal it.

    Args:
        student: The student.
        folder: A folder that `students.save` has written.
        temperature: The calibration inside the probabilities.
        threshold: The deferral threshold.
        report: What the export measured, or None without ONNX files.
        facts: Lines for the table "What is known", such as {"test accuracy": "91.2 %"}.
    """
    schema = student.schema
    count = sum(p.numel() for p in student.module.parameters())
    rows = {
        "kind": student.encoder.kind,
        "reads": _listed(schema.inputs),
        "classes": ", ".join(schema.classes),
        "parameters": f"{count:,}",
        **({} if student.class_map is None else {"outputs of the head": _grouped(student)}),
        "temperature of the probabilities": f"{temperature:.4g}",
        "unsure up to": f"{threshold:.4g}" if threshold else "no threshold was set",
        **(facts or {}),
    }
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())
    packages = example_packages(student)
    example = (
        _EXAMPLE_USE.format(packages, *_USES[bool(schema.image)])
        if (folder / EXAMPLE).is_file()
        else ""
    )
    onnx = _onnx_table(report) if report else ""
    card = _CARD.format(table=table, onnx=onnx, example=example, row=_row(schema))
    write_text(folder / CARD, card)
    seal(folder)


def _row(schema: Schema) -> str:
    """A row as one would type it; of many columns, the first few."""
    row: dict[str, str | float] = {name: "..." for name in schema.text + schema.category}
    row |= {name: "photo.jpg" for name in schema.image}
    row |= {name: 0.0 for name in schema.numeric}
    row |= {name: "path/of/an/image.png" for name in schema.image}
    if len(row) <= _SHOWN_COLUMNS:
        return repr(row)
    return repr(dict(list(row.items())[:_SHOWN_COLUMNS])).removesuffix("}") + ", ...}"


def _grouped(student: Student) -> str:
    return f"{student.width}, summed into {student.schema.num_classes} classes"


def _listed(names: tuple[str, ...]) -> str:
    if len(names) <= 4 * _SHOWN_COLUMNS:
        return ", ".join(names)
    return f"{len(names)} columns, from {names[0]} to {names[-1]} (all of them in config.json)"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _onnx_table(report: ExportReport) -> str:
    head = (
        f"## ONNX files\n\nMeasured on {report.rows:,} rows; times are of one row on one core, "
        f"median / 95th percentile, in ms.\n\n"
        "| file | size, MB | accuracy | same class as PyTorch | largest difference | "
        "encoded row | raw row |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(_onnx_row(file) for file in (report.float32, report.int8)) + "\n"


def _onnx_row(file: OnnxFile) -> str:
    accuracy = "not measured" if file.accuracy is None else f"{file.accuracy:.1%}"
    encoded, raw = (f"{t.p50_ms:.3f} / {t.p95_ms:.3f}" for t in (file.encoded, file.raw))
    return (
        f"| `{file.name}` | {file.size_bytes / 1e6:.2f} | {accuracy} | {file.agreement:.1%} | "
        f"{file.difference:.1e} | {encoded} | {raw} |\n"
    )


_CARD = """# A small classifier made by Limbeck

| | |
| --- | --- |
{table}

{onnx}## Use it

With Limbeck:

```python
import limbeck

student = limbeck.load("path/of/this/folder")
student.predict([{row}])
student.predict_proba([{row}])
student.defer([{row}])  # True where it is unsure
```

{example}## Limits

It chooses among the classes above whatever it reads, so rows of another kind get one of them too.
It can repeat the mistakes and biases of the labels and answers it was trained on. Measure it
again when the rows change. `sha256sum --check SHA256SUMS` tells whether the files are as written
(this page is yours to edit).
"""

_EXAMPLE_USE = """Without Limbeck and PyTorch, with {} alone, {}:

```
python example.py {}
```

"""
_USES = (("a JSON row a line", "< rows.jsonl"), ("image files by path", "photo.jpg scan.png"))
