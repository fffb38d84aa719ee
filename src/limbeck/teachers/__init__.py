"""Whatever can answer: a table, a network, an estimator, a saved student, any Python function.

The names come when they are asked for: settings and `limbeck --help` do not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from limbeck.teachers.config import TeacherConfig

if TYPE_CHECKING:
    from limbeck.teachers.base import HasHead, Money, Replies, Teacher
    from limbeck.teachers.callable import CallableTeacher
    from limbeck.teachers.columns import candidate_columns
    from limbeck.teachers.ensemble import EnsembleTeacher
    from limbeck.teachers.huggingface import HuggingfaceTeacher
    from limbeck.teachers.human import HumanTeacher
    from limbeck.teachers.local import LocalTeacher, Said
    from limbeck.teachers.mean import MeanTeacher, mean_of
    from limbeck.teachers.module import ModuleTeacher
    from limbeck.teachers.registry import TEACHERS, build
    from limbeck.teachers.simulated import SimulatedTeacher
    from limbeck.teachers.sklearn import SklearnTeacher
    from limbeck.teachers.student import StudentTeacher
    from limbeck.teachers.table import ColumnsTeacher, TableTeacher
    from limbeck.teachers.wrappers import align_classes, with_price

__all__ = [
    "TEACHERS",
    "CallableTeacher",
    "ColumnsTeacher",
    "EnsembleTeacher",
    "HasHead",
    "HuggingfaceTeacher",
    "HumanTeacher",
    "LocalTeacher",
    "MeanTeacher",
    "ModuleTeacher",
    "Money",
    "Replies",
    "Said",
    "SimulatedTeacher",
    "SklearnTeacher",
    "StudentTeacher",
    "TableTeacher",
    "Teacher",
    "TeacherConfig",
    "align_classes",
    "build",
    "candidate_columns",
    "mean_of",
    "with_price",
]

_HOMES = {
    "base": ("HasHead", "Money", "Replies", "Teacher"),
    "callable": ("CallableTeacher",),
    "columns": ("candidate_columns",),
    "ensemble": ("EnsembleTeacher",),
    "huggingface": ("HuggingfaceTeacher",),
    "human": ("HumanTeacher",),
    "local": ("LocalTeacher", "Said"),
    "mean": ("MeanTeacher", "mean_of"),
    "module": ("ModuleTeacher",),
    "registry": ("TEACHERS", "build"),
    "simulated": ("SimulatedTeacher",),
    "sklearn": ("SklearnTeacher",),
    "student": ("StudentTeacher",),
    "table": ("ColumnsTeacher", "TableTeacher"),
    "wrappers": ("align_classes", "with_price"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"limbeck.teachers.{home}"), name)
    raise AttributeError(f"module 'limbeck.teachers' has no attribute {name!r}")
