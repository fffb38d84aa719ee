"""What lies beside an exported student for people: the model card and a stand-alone example."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.data.schema import Schema
from limbeck.storage import write_text
from limbeck.students import Student, seal

if TYPE_CHECKING:
    from limbeck.distill.export import ExportReport, OnnxFile

EXAMPLE, CARD = "example.py", "README.md"
_SHOWN_COLUMNS = 6


def write_example(student: Student, folder: Path) -> bool:
    """Write `example.py`, which classifies rows with numpy and onnxruntime alone.

    Returns:
        False when the kind of student has no portable encoder; nothing is written then.
    """
    source = student.encoder.portable_source()
    if source is None:
        return False
    docstring, _, code = source.removeprefix('"""').partition('"""')
    about = "# " + "\n# ".join(docstring.strip().splitlines())
    parts = (_EXAMPLE_HEAD, about.replace("# \n", "#\n"), code.strip(), _EXAMPLE_MAIN)
    write_text(folder / EXAMPLE, "\n\n".join(part.strip() for part in parts) + "\n")
    return True


def write_card(
    student: Student,
    folder: Path,
    *,
    temperature: float,
    threshold: float,
    report: "ExportReport | None" = None,
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
        "temperature of the probabilities": f"{temperature:.4g}",
        "unsure up to": f"{threshold:.4g}" if threshold else "no threshold was set",
        **(facts or {}),
    }
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())
    example = _EXAMPLE_USE if (folder / EXAMPLE).is_file() else ""
    onnx = _onnx_table(report) if report else ""
    card = _CARD.format(table=table, onnx=onnx, example=example, row=_row(schema))
    write_text(folder / CARD, card)
    seal(folder)


def _row(schema: Schema) -> str:
    """A row as one would type it; of many columns, the first few."""
    row: dict[str, str | float] = {name: "..." for name in schema.text + schema.category}
    row |= {name: 0.0 for name in schema.numeric}
    if len(row) <= _SHOWN_COLUMNS:
        return repr(row)
    return repr(dict(list(row.items())[:_SHOWN_COLUMNS])).removesuffix("}") + ", ...}"


def _listed(names: tuple[str, ...]) -> str:
    if len(names) <= 4 * _SHOWN_COLUMNS:
        return ", ".join(names)
    return f"{len(names)} columns, from {names[0]} to {names[-1]} (all of them in config.json)"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _onnx_table(report: "ExportReport") -> str:
    head = (
        f"## ONNX files\n\nMeasured on {report.rows:,} rows; times are of one row on one core, "
        f"median / 95th percentile, in ms.\n\n"
        "| file | size, MB | accuracy | same class as PyTorch | largest difference | "
        "encoded row | raw row |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(_onnx_row(file) for file in (report.float32, report.int8)) + "\n"


def _onnx_row(file: "OnnxFile") -> str:
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

_EXAMPLE_USE = """Without Limbeck and PyTorch, with numpy and onnxruntime alone, a JSON row a line:

```
python example.py < rows.jsonl
```

"""

_EXAMPLE_HEAD = '''
"""Classify rows with model.onnx; needs numpy and onnxruntime only.

    python example.py < rows.jsonl

Each line of input is a JSON object with the columns that the student reads, or, when it reads one
column, that column's value alone. Each line of output is the class and all probabilities.
"""

import json
import sys
from pathlib import Path

import onnxruntime
'''

_EXAMPLE_MAIN = '''
class Student:
    """The files beside this one, ready to classify."""

    def __init__(self, folder, model="model.onnx"):
        self.config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.classes = self.config["schema"]["classes"]
        schema = self.config["schema"]
        self.columns = schema["text"] + schema["numeric"] + schema["category"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(Path(folder) / model), options, providers=["CPUExecutionProvider"]
        )

    def predict_proba(self, rows):
        """Class probabilities, float32 (n, C), of a list of dicts or of single values."""
        only = self.columns[0]
        rows = [row if isinstance(row, dict) else {only: row} for row in rows]
        return self.session.run(None, {"rows": encode(rows, self.config["encoder"])})[0]


if __name__ == "__main__":
    student = Student(Path(__file__).parent)
    for line in sys.stdin:
        probs = student.predict_proba([json.loads(line)])[0]
        answer = {"class": student.classes[int(probs.argmax())], "probabilities": probs.tolist()}
        print(json.dumps(answer, ensure_ascii=False))
'''
