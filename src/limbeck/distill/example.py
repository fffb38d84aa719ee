"""A stand-alone example beside an exported student: rows in, classes out, without PyTorch."""

from pathlib import Path

from limbeck.storage import write_text
from limbeck.students import Student

EXAMPLE = "example.py"


def write_example(student: Student, folder: Path) -> bool:
    """Write `example.py`, which classifies rows with `example_packages` alone.

    Returns:
        False when the kind of student has no portable encoder; nothing is written then.
    """
    source = student.encoder.portable_source()
    if source is None:
        return False
    docstring, _, code = source.removeprefix('"""').partition('"""')
    about = "# " + "\n# ".join(docstring.strip().splitlines())
    how, lines, row = _IMAGES if student.schema.image else _ROWS
    head = _EXAMPLE_HEAD.replace("PACKAGES", example_packages(student)).replace("HOW", how.strip())
    main = _EXAMPLE_MAIN.replace("LINES", lines).replace("ROW", row)
    parts = (head, about.replace("# \n", "#\n"), code.strip(), main)
    write_text(folder / EXAMPLE, "\n\n".join(part.strip() for part in parts) + "\n")
    return True


def example_packages(student: Student) -> str:
    """What the example needs to be installed, as words."""
    return f"{', '.join(student.encoder.portable_packages)} and onnxruntime"


_ROWS = (
    """
    python example.py < rows.jsonl

Each line of input is a JSON object with the columns that the student reads, or, when it reads one
column, that column's value alone.""",
    "sys.stdin",
    "json.loads(line)",
)
_IMAGES = (
    """
    python example.py photo.jpg scan.png ...
    python example.py < paths.txt

Images come as paths, one an argument or one a line.""",
    "sys.argv[1:] or sys.stdin",
    'line.rstrip("\\n")',
)

_EXAMPLE_HEAD = '''
"""Classify rows with model.onnx; needs PACKAGES only.

    HOW

Each line of output is the class, all probabilities, and whether the student is so unsure that the
row is better sent to the teacher.
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
        groups = ("text", "numeric", "category", "image")
        self.columns = [name for group in groups for name in schema[group]]
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

    def decide(self, probs):
        """Position of the class to name for one row of probabilities."""
        rule = self.config.get("decision")
        if rule is None:
            return int(probs.argmax())
        place = self.classes.index(rule["positive"])
        named = float(probs[place]) >= rule["threshold"] and rule["threshold"] < 1
        return place if named else 1 - place


if __name__ == "__main__":
    student = Student(Path(__file__).parent)
    for line in LINES:
        probs = student.predict_proba([ROW])[0]
        answer = {
            "class": student.classes[student.decide(probs)],
            "probabilities": probs.tolist(),
            "defer": bool(probs.max() <= student.config["threshold"]),
        }
        print(json.dumps(answer, ensure_ascii=False))
'''
