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
    head = _EXAMPLE_HEAD.replace("PACKAGES", example_packages(student))
    parts = (head, about.replace("# \n", "#\n"), code.strip(), _EXAMPLE_MAIN)
    write_text(folder / EXAMPLE, "\n\n".join(part.strip() for part in parts) + "\n")
    return True


def example_packages(student: Student) -> str:
    """What the example needs to be installed, as words."""
    return f"{', '.join(student.encoder.portable_packages)} and onnxruntime"


_EXAMPLE_HEAD = '''
"""Classify rows with model.onnx; needs PACKAGES only.

    python example.py < rows.jsonl

Each line of input is a JSON object with the columns that the student reads, or, when it reads one
column, that column's value alone. Each line of output is the class, all probabilities, and whether
the student is so unsure that the row is better sent to the teacher.
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
    for line in sys.stdin:
        probs = student.predict_proba([json.loads(line)])[0]
        answer = {
            "class": student.classes[student.decide(probs)],
            "probabilities": probs.tolist(),
            "defer": bool(probs.max() <= student.config["threshold"]),
        }
        print(json.dumps(answer, ensure_ascii=False))
'''
