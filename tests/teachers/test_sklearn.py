"""Fitted scikit-learn estimators as teachers: what they are given, and what is refused."""

import builtins
import pickle

import joblib
import numpy as np
import pyarrow as pa
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from limbeck.data.schema import Schema
from limbeck.engines.questions import batch_ids
from limbeck.errors import AnswerError, ConfigError, LimbeckWarning, MissingExtraError
from limbeck.teachers import SklearnTeacher, TeacherConfig, build

CLASSES = ("bad", "good")
TEXT = Schema(("text",), (), (), None, CLASSES)
NUMBERS = Schema((), ("a", "b"), (), None, CLASSES)
MIXED = Schema((), ("a", "b"), ("c",), None, CLASSES)
TEXTS = ["good film", "bad film", "good fun", "bad, bad"]
X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [3.0, 1.0]])
Y = ["bad", "bad", "good", "good"]
TREE = ("sklearn.tree._tree.Tree",)


def of_texts():
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
        TEXTS, ["good", "bad", "good", "bad"]
    )


def text_rows(texts=TEXTS):
    return pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.large_string())})


def number_rows(x=X):
    columns = {"c": pa.array(["u", None, "v", "u"][: len(x)], pa.large_string())}
    return pa.RecordBatch.from_pydict(columns | {"b": x[:, 1], "a": x[:, 0]})


def dumped(folder, estimator, name="model.skops"):
    skops.io.dump(estimator, folder / name)
    return folder / name


def made(path=None, schema=TEXT, folder=None, **settings):
    return build(TeacherConfig(kind="sklearn", path=path, **settings), schema, folder)


def ask(teacher, rows):
    return teacher.parse(teacher.ask(batch_ids(rows, teacher), rows))[0]


class Spy(LogisticRegression):
    """Keeps what it is asked about; fitted by its attributes alone."""

    def __init__(self, **fitted):
        super().__init__()
        self.classes_ = np.array(CLASSES)
        self.coef_ = np.zeros((1, 2))
        for name, value in fitted.items():
            setattr(self, name, value)

    def predict_proba(self, rows):
        self.seen = rows
        return np.full((4, 2), 0.5)


def test_a_pipeline_from_a_file_answers_about_texts_as_itself(tmp_path):
    pipeline = of_texts()
    answers = ask(made(dumped(tmp_path, pipeline)), text_rows())
    assert np.array_equal(answers.probs.numpy(), pipeline.predict_proba(TEXTS).astype("f4"))
    assert answers.embeddings is None
    assert answers.spread is None


def test_numbers_go_in_the_order_of_the_inputs_and_missing_ones_as_nan():
    spy = Spy()
    x = X.copy()
    x[0, 1] = np.nan
    ask(SklearnTeacher(spy, NUMBERS, fingerprint="1"), number_rows(x))
    assert spy.seen.dtype == np.float64
    assert np.array_equal(spy.seen, x, equal_nan=True)


def test_columns_choose_what_it_sees(tmp_path):
    tree = DecisionTreeClassifier().fit(X[:, [1]], Y)
    teacher = made(dumped(tmp_path, tree), NUMBERS, columns=("b",), trusted=TREE)
    assert teacher.columns == ("b",)
    answers = ask(teacher, number_rows())
    assert np.array_equal(answers.probs.numpy(), tree.predict_proba(X[:, [1]]))


def test_categories_beside_numbers_are_strings_in_a_matrix_of_objects():
    spy = Spy()
    ask(SklearnTeacher(spy, MIXED, fingerprint="1"), number_rows())
    assert spy.seen.dtype == object
    assert spy.seen.tolist() == [[0, 1, "u"], [1, 0, None], [2, 5, "v"], [3, 1, "u"]]


def test_columns_that_it_was_fitted_on_are_found_by_name(tmp_path):
    """A ColumnTransformer against the same made by hand."""
    colours = np.array(["u", "w", "v", "u"], object)
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["b"]), ("words", OneHotEncoder(), ["c"])]
    )
    named = make_pipeline(columns, LogisticRegression())
    named.fit(pa.table({"c": pa.array(colours), "b": X[:, 1]}), Y)
    scaled = (X[:, 1] - X[:, 1].mean()) / X[:, 1].std()
    by_hand = np.column_stack([scaled, *(colours == name for name in "uvw")])
    expected = LogisticRegression().fit(by_hand, Y).predict_proba(by_hand)
    teacher = made(dumped(tmp_path, named), MIXED)
    assert teacher.columns == ("c", "b")
    rows = number_rows().set_column(0, "c", pa.array(colours, pa.large_string()))
    assert np.allclose(ask(teacher, rows).probs, expected, atol=1e-5)


def test_an_estimator_with_names_gets_a_table_in_their_order():
    spy = Spy(feature_names_in_=np.array(["b", "a"], object))
    # `columns` says what is a question; the estimator's order stays its own.
    teacher = SklearnTeacher(spy, MIXED, fingerprint="1", columns=("a", "b"))
    ask(teacher, number_rows())
    assert np.array_equal(np.asarray(spy.seen), X[:, ::-1])


def test_where_pandas_is_it_gets_a_data_frame():
    pandas = pytest.importorskip("pandas")
    spy = Spy(feature_names_in_=np.array(["c", "a"], object))
    ask(SklearnTeacher(spy, MIXED, fingerprint="1"), number_rows())
    assert isinstance(spy.seen, pandas.DataFrame)
    assert list(spy.seen.columns) == ["c", "a"]


@pytest.mark.parametrize(
    ("labels", "names"), [((0, 1), ("0", "1")), ((1.0, 2.0), ("1", "2")), (("b", "a"), ("a", "b"))]
)
def test_classes_are_written_as_labels_are(labels, names):
    estimator = LogisticRegression().fit(X, [labels[0], labels[0], labels[1], labels[1]])
    assert SklearnTeacher(estimator, NUMBERS, fingerprint="1").classes == names


def test_classes_are_told_by_name_or_named_anew(tmp_path):
    numbered = LogisticRegression().fit(X, [0, 0, 1, 1])
    path = dumped(tmp_path, numbered)
    expected = numbered.predict_proba(X)
    schema = Schema((), ("a", "b"), (), None, ("1", "0"))
    assert np.allclose(ask(made(path, schema), number_rows()).probs, expected[:, ::-1])
    renamed = made(path, NUMBERS, classes=("good", "bad"))
    assert np.allclose(ask(renamed, number_rows()).probs, expected[:, ::-1])
    with pytest.raises(ConfigError, match=r"names 3 classes.*was fitted on 2: \['0', '1'\]"):
        made(path, NUMBERS, classes=("good", "bad", "ugly"))


def test_classes_of_another_task_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"classes \['bad', 'good'\] are not the task's"):
        made(dumped(tmp_path, of_texts()), Schema(("text",), (), (), None, ("neg", "pos")))


FACTORY = """
from sklearn.tree import DecisionTreeClassifier


def fitted():
    return DecisionTreeClassifier().fit([[0, 1], [3, 1]], ["bad", "good"])


def broken():
    raise OSError("no such bucket")


def number():
    return 3


def raw():
    return DecisionTreeClassifier


name = "fitted"
"""


@pytest.fixture
def factories(tmp_path, request):
    """A module of its own for each test: modules are kept by name."""
    name = f"factories_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    return lambda function, **more: made(
        None, NUMBERS, tmp_path, factory=f"{name}:{function}", **more
    )


def test_a_factory_gives_the_estimator_and_its_source_the_fingerprint(factories):
    teacher = factories("fitted")
    assert ask(teacher, number_rows()).probs.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    marked = {factories("fitted", fingerprint=text).fingerprint for text in ("1", "1", "2")}
    assert len(marked) == 2
    assert factories("fitted").fingerprint == teacher.fingerprint not in marked


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken", "raised OSError: no such bucket; it must give a fitted estimator"),
        ("number", "int: expected a fitted scikit-learn estimator or pipeline, got 3"),
        ("raw", "expected a fitted scikit-learn estimator or pipeline, got <class"),
        ("name", r"teacher\.factory=.* is no function"),
    ],
)
def test_factories_that_give_no_estimator_are_refused(factories, function, message):
    with pytest.raises(ConfigError, match=message):
        factories(function)


def test_a_pickle_is_never_opened(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name, write in (
        ("a.pkl", pickle.dump),
        ("a.joblib", joblib.dump),
        ("a.skops", pickle.dump),
    ):
        with (tmp_path / name).open("wb") as file:
            write(Trap(), file)
        with pytest.raises(
            ConfigError,
            match=r"not a skops file.*run any code.*skops\.io\.dump\(estimator, 'a\.skops",
        ):
            made(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def shout(texts):
    return [text.upper() for text in texts]


def test_types_that_skops_does_not_know_need_a_word(tmp_path):
    pipeline = make_pipeline(FunctionTransformer(shout), of_texts())
    path = dumped(tmp_path, pipeline)
    (unknown,) = skops.io.get_untrusted_types(file=path)
    with pytest.raises(ConfigError, match=rf"to be safe: {unknown};.*teacher\.trusted"):
        made(path, trusted=("other.Type",))
    answers = ask(made(path, trusted=(unknown,)), text_rows())
    assert np.array_equal(answers.probs.numpy(), pipeline.predict_proba(TEXTS).astype("f4"))


def test_an_estimator_without_probabilities_is_refused_and_a_calibrated_one_answers(tmp_path):
    with pytest.raises(
        ConfigError, match=r"LinearSVC has no predict_proba.*CalibratedClassifierCV"
    ):
        made(dumped(tmp_path, LinearSVC().fit(X, Y)), NUMBERS)
    calibrated = CalibratedClassifierCV(LinearSVC(), cv=2).fit(X, Y)
    path = dumped(tmp_path, calibrated)
    with pytest.raises(ConfigError, match=r"safe: sklearn\.calibration\._CalibratedClassifier, "):
        made(path, NUMBERS)
    trusted = tuple(skops.io.get_untrusted_types(file=path))
    answers = ask(made(path, NUMBERS, trusted=trusted), number_rows())
    assert np.allclose(answers.probs, calibrated.predict_proba(X))


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        make_pipeline(TfidfVectorizer(), LogisticRegression()),
        make_pipeline(TfidfVectorizer(), LogisticRegression().fit(X, Y)),
    ],
    ids=["an estimator", "a pipeline", "the first step of a pipeline"],
)
def test_what_is_not_fitted_is_refused(tmp_path, estimator):
    with pytest.raises(ConfigError, match="is not fitted"):
        made(dumped(tmp_path, estimator))


def test_columns_that_do_not_fit_are_refused(tmp_path):
    path = dumped(tmp_path, LogisticRegression().fit(X, Y))
    with pytest.raises(ConfigError, match=r"fitted on 2 columns but sees 1: \['a'\]"):
        made(path, NUMBERS, columns=("a",))
    with pytest.raises(ConfigError, match=r"teacher\.columns names 'z', which is no input"):
        made(path, NUMBERS, columns=("z",))
    named = Spy(feature_names_in_=np.array(["a", "z"], object))
    with pytest.raises(ConfigError, match=r"fitted on a column 'z' but sees"):
        SklearnTeacher(named, NUMBERS, fingerprint="1")
    with pytest.raises(ConfigError, match="sees the image column 'photo'"):
        SklearnTeacher(Spy(), Schema((), ("a",), (), None, CLASSES, ("photo",)), fingerprint="1")


def test_an_estimator_of_several_labels_is_refused(tmp_path):
    several = DecisionTreeClassifier().fit(X, [[0, 1], [0, 0], [1, 0], [1, 1]])
    with pytest.raises(ConfigError, match="one label a row"):
        made(dumped(tmp_path, several), NUMBERS, trusted=TREE)


def test_a_file_or_a_factory_and_not_both(tmp_path):
    for settings in ({}, {"path": tmp_path / "a.skops", "factory": "a:b"}):
        with pytest.raises(ConfigError, match="give one of the two"):
            made(**settings)
    with pytest.raises(ConfigError, match="there is no file"):
        made(tmp_path / "a.skops")


def test_a_damaged_file_is_refused(tmp_path):
    path = dumped(tmp_path, of_texts())
    data = bytearray(path.read_bytes())
    data[40:200] = b"x" * 160
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"model\.skops cannot be read.*write it again"):
        made(path)


def test_skops_names_its_install_line(tmp_path, monkeypatch):
    path = dumped(tmp_path, of_texts())
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("skops"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[sklearn\]'"):
        made(path)


def test_a_bad_answer_names_the_estimator():
    spy = Spy()
    spy.predict_proba = lambda rows: np.full((4, 2), 0.7)
    with pytest.raises(AnswerError, match="sklearn teacher Spy"):
        ask(SklearnTeacher(spy, NUMBERS, fingerprint="1"), number_rows())


def test_settings_that_other_kinds_do_not_read_are_told():
    with pytest.warns(LimbeckWarning, match=r"teacher\.trusted means nothing to the teacher 'fit'"):
        TeacherConfig(kind="fit", trusted=("a.B",))
