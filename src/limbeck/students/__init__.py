"""Small models and what they read: encoders, modules, their folders, their stores of rows."""

from limbeck.students.base import (
    Encoder,
    Ragged,
    Student,
    StudentModule,
    pad_rows,
    seeded_linear,
)
from limbeck.students.factory import FactoryConfig, FactoryEncoder, FactoryModule
from limbeck.students.folder import DecisionRule, Predictor, load, save, seal
from limbeck.students.huggingface import (
    HuggingfaceConfig,
    HuggingfaceEncoder,
    HuggingfaceModule,
)
from limbeck.students.image_cnn import ImageCnnConfig, ImageCnnModule
from limbeck.students.image_rows import ImageCnnEncoder
from limbeck.students.kept import Keep
from limbeck.students.kinds import (
    STUDENTS,
    Settings,
    StudentKind,
    build,
    default_kind,
    find_kind,
    large_kind,
    large_settings,
    recommended_lr,
    settings_of,
    with_outputs,
)
from limbeck.students.latency import Latency, measure_latency
from limbeck.students.search_spaces import StudentSpace, student_space
from limbeck.students.store import EncodedStore, MemoryStore, Store
from limbeck.students.tabular import TabularConfig, TabularEncoder, TabularModule
from limbeck.students.text_bag import TextBagConfig, TextBagEncoder, TextBagModule
from limbeck.students.text_transformer import (
    TextTransformerConfig,
    TextTransformerEncoder,
    TextTransformerModule,
)
from limbeck.students.timing import time_module

__all__ = [
    "STUDENTS",
    "DecisionRule",
    "EncodedStore",
    "Encoder",
    "FactoryConfig",
    "FactoryEncoder",
    "FactoryModule",
    "HuggingfaceConfig",
    "HuggingfaceEncoder",
    "HuggingfaceModule",
    "ImageCnnConfig",
    "ImageCnnEncoder",
    "ImageCnnModule",
    "Keep",
    "Latency",
    "MemoryStore",
    "Predictor",
    "Ragged",
    "Settings",
    "Store",
    "Student",
    "StudentKind",
    "StudentModule",
    "StudentSpace",
    "TabularConfig",
    "TabularEncoder",
    "TabularModule",
    "TextBagConfig",
    "TextBagEncoder",
    "TextBagModule",
    "TextTransformerConfig",
    "TextTransformerEncoder",
    "TextTransformerModule",
    "build",
    "default_kind",
    "find_kind",
    "large_kind",
    "large_settings",
    "load",
    "measure_latency",
    "pad_rows",
    "recommended_lr",
    "save",
    "seal",
    "seeded_linear",
    "settings_of",
    "student_space",
    "time_module",
    "with_outputs",
]
