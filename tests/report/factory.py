"""Made-up but plausible run records: what the report's tests render and look at."""

from dataclasses import replace

import numpy as np

from limbeck.distill.config import DecisionConfig
from limbeck.distill.decision import Sided
from limbeck.distill.decision import study as study_decision
from limbeck.distill.deferral import Split, study
from limbeck.distill.evaluate import ArmRun, TeacherRun, evaluate
from limbeck.distill.verdict import trust_check, verdict
from limbeck.numerics.intervals import Interval, score_interval
from limbeck.numerics.metrics import nll, tempered
from limbeck.report.disagreements import Scored, pick_disagreements
from limbeck.report.purchase import PoolEstimate, Purchase, RoundView
from limbeck.report.record import (
    Cost,
    DataView,
    Latency,
    RunRecord,
    Size,
    SplitView,
    TrustView,
    bin_margins,
)

ARMS = {
    "labels": ("Labels only", "labels", 1.25),
    "labels_and_validation": ("Labels only, with validation", "labels", 1.4),
    "hard_kd": ("Hard distillation", "distilled", 1.55),
    "soft_kd": ("Soft distillation", "distilled", 1.75),
    "slam_soft": ("SLaM with soft targets", "distilled", 1.95),
    "slam_hard": ("SLaM with hard targets", "distilled", 1.7),
}
TEXTS = (
    "I wanted to love this film. The photography is lovely and the leads try hard, but the script "
    "gives them nothing to say and two hours in which to say it.",
    "Do not believe the trailer: it is slow, odd and quietly one of the best things I have seen "
    "this year. The last twenty minutes alone are worth the ticket.",
    "Not bad at all, which from me is high praise for a sequel nobody asked for.",
    "10/10 if you enjoy watching paint dry, and then being charged for the paint.",
)
STOPPED = (
    "Three batches in a row moved validation accuracy by less than half a point, -0.1 in the last."
)
CONFIG = """[data]
labelled = "reviews/labelled.parquet"
validation = "reviews/validation.parquet"
test = "reviews/test.parquet"
pool = "reviews/pool.parquet"
text = ["review"]
label = "sentiment"

[teacher]
kind = "module"
factory = "our_models:reviewer"
weights = "reviewer.safetensors"

[budget]
queries = 25_500
money = 40.0
currency = "USD"

[train]
steps = 4_000
batch = 256
seed = 0
"""


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    grid = np.linspace(0.5, 3.0, 51)
    return float(min(grid, key=lambda t: nll(tempered(np.log(probs), t), labels)))


class World:
    """Rows of differing difficulty, and models of differing skill that look at them."""

    def __init__(self, rows: int, classes: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.labels = self.rng.integers(0, classes, rows)
        self.classes = classes
        self.shared = self.rng.normal(0, 1, (rows, classes))

    def probs(self, skill: float, *, sharpness: float = 1.5) -> np.ndarray:
        own = self.rng.normal(0, 0.8, self.shared.shape)
        truth = np.eye(self.classes)[self.labels]
        return softmax(sharpness * (skill * truth + self.shared + own))


def curve(best: float, steps: int = 4_000) -> tuple[tuple[int, float, float, float], ...]:
    points = []
    for step in range(100, steps + 1, 100):
        t = step / steps
        accuracy = best - 0.3 * np.exp(-9 * t) - 0.012 * t
        loss = 0.62 * np.exp(-4 * t) + 0.1
        points.append((step, float(loss), float(loss + 0.12 + 0.14 * t * t), float(accuracy)))
    return tuple(points)


def make_record(
    *,
    rows: int = 5_000,
    classes: tuple[str, ...] = ("negative", "positive"),
    teacher_skill: float = 2.4,
    chosen: str = "slam_soft",
    texts: tuple[str, ...] = TEXTS,
    seed: int = 0,
) -> RunRecord:
    c = len(classes)
    test, held = World(rows, c, seed), World(600, c, seed + 1)
    probs = {name: test.probs(skill) for name, (_, _, skill) in ARMS.items()}
    teacher, teacher_held = test.probs(teacher_skill), held.probs(teacher_skill)
    arms = []
    for name, (title, kind, skill) in ARMS.items():
        seen = held.probs(skill)
        accuracy = float((seen.argmax(1) == held.labels).mean())
        both = name == "labels_and_validation"
        arms.append(
            ArmRun(
                name,
                title,
                kind,
                np.log(probs[name]).astype(np.float32),
                chosen=name == chosen,
                temperature=None if both else fit_temperature(seen, held.labels),
                validation_accuracy=accuracy,
                validation_nll=0.4,
                steps=4_000,
                best_step=3_100 if kind == "distilled" else 900,
                seconds=61.0 + 9 * skill,
                parameters=1_180_674,
                curve=() if both else curve(accuracy),
                settings={"learning_rate": 0.003},
            )
        )
    taught = TeacherRun(teacher, "Teacher", 0.91, 1.2)
    evaluation = evaluate(arms, taught, test.labels, classes, generator=np.random.default_rng(seed))
    trust, alpha = make_trust(held, teacher_held, teacher, test.labels)
    student = probs[chosen]
    deferral = study(
        Split(held.probs(ARMS[chosen][2]), teacher_held, held.labels),
        Split(student, teacher, test.labels),
        price=840.0,
    )
    decision = None
    if c == 2:
        costs = DecisionConfig(cost_false_positive=1.0, cost_false_negative=10.0)
        heat = next(a.temperature for a in arms if a.name == chosen) or 1.0
        seen = held.probs(ARMS[chosen][2])
        decision = study_decision(
            Sided.of(np.exp(tempered(np.log(seen), heat)), held.labels, 1),
            Sided.of(np.exp(tempered(np.log(student), heat)), test.labels, 1),
            costs,
            positive=classes[1],
            seed=seed,
        )
    scored = Scored(classes, test.labels, student, probs["labels"], teacher, alpha)
    return RunRecord(
        title="Film reviews",
        created="2026-11-21 14:02",
        verdict=verdict(evaluation, trust.check),
        evaluation=evaluation,
        data=DataView(
            splits=(
                SplitView("labelled", 500, tuple(np.full(c, 500 // c).tolist())),
                SplitView("validation", 600, tuple(np.bincount(held.labels, minlength=c).tolist())),
                SplitView("test", rows, tuple(np.bincount(test.labels, minlength=c).tolist())),
                SplitView("pool", 20_000),
            ),
            guesses=("text column: review (the only column with long strings)",),
            removed=(("pool rows that are also in test", 114), ("pool rows seen twice", 23)),
        ),
        config_toml=CONFIG,
        trust=trust,
        deferral=deferral,
        cost=Cost(25_412, 88, 3, 0, 21_346_080, "USD", 25_500, 40_000_000, 9.4, 1_310_000_000),
        size=Size(
            1_180_674,
            (
                ("model.onnx", 4_730_112),
                ("model.int8.onnx", 1_204_331),
                ("model.safetensors", 4_722_904),
            ),
            (
                Latency("from ids, ONNX", 0.081, 0.112),
                Latency("from ids, ONNX int8", 0.074, 0.101),
                Latency("from raw text, ONNX", 0.31, 0.52),
            ),
            6.1e-8,
            float((probs[chosen].argmax(1) == test.labels).mean()) - 0.0012,
        ),
        disagreements=pick_disagreements(scored, text=lambda row: texts[row % len(texts)]),
        environment={"limbeck": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "cores": "2"},
        warnings=("114 pool rows are also in test; they were removed from the pool.",),
        decision=decision,
    )


def make_trust(
    held: World, held_probs: np.ndarray, test_probs: np.ndarray, test_labels: np.ndarray
) -> tuple[TrustView, np.ndarray]:
    from sklearn.isotonic import IsotonicRegression

    def margin(p: np.ndarray) -> np.ndarray:
        top = np.sort(p, axis=1)
        return top[:, -1] - top[:, -2]

    right = held_probs.argmax(1) == held.labels
    fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(margin(held_probs), right)
    alpha = fit.predict(margin(test_probs))
    knots = fit.X_thresholds_, np.maximum(fit.y_thresholds_, 0.5)
    view = TrustView(
        margins=tuple(knots[0].tolist()),
        alpha=tuple(knots[1].tolist()),
        bins=bin_margins(margin(held_probs), right),
        lower=0.5,
        k=2,
        check=trust_check(alpha, test_probs.argmax(1) == test_labels, validation_rows=600),
    )
    return view, alpha


def bare(record: RunRecord) -> RunRecord:
    """The same run with every optional part left out."""
    return replace(
        record,
        trust=None,
        deferral=None,
        cost=None,
        size=None,
        disagreements=None,
        decision=None,
        missing={"trust": "No arm of this run uses trust."},
        environment={},
        warnings=(),
    )


def make_purchase(
    *,
    rule: str = "rad",
    rounds: int = 5,
    size: int = 400,
    beside: bool = True,
    stopped: bool = False,
    points: int = 300,
    seed: int = 0,
) -> Purchase:
    """Rounds whose students improve, and whose rule narrows down."""
    rng = np.random.default_rng(seed)
    pool, audit = 20_000, size // 10
    views, other = [], []
    for number in range(1, rounds + 2):
        answers = (number - 1) * size
        accuracy = 0.86 - 0.16 * float(np.exp(-answers / (1.2 * size)))
        chosen = size if number <= rounds else 0
        views.append(
            RoundView(
                number=number,
                answers=answers,
                accuracy=score_interval(accuracy, 600),
                chosen=chosen,
                audit=audit if chosen else 0,
                candidates=pool - answers,
                support=int((0.55 - 0.06 * number) * (pool - answers)) if chosen else None,
                wrong=0.21 - 0.012 * number if chosen else None,
            )
        )
        plain = score_interval(accuracy - 0.012 * (number > 1), 600)
        other.append((answers, plain.estimate, plain.low, plain.high))
    drawn = []
    for i in range(points):
        number = 1 + i * rounds // points
        gain = float(rng.beta(1.2 + 0.2 * number, 3 + number))
        chance = 0.0021 + (0.012 / (gain + 0.08) if gain > 0.12 else 0.0)
        drawn.append((gain, chance, float(number)))
    return Purchase(
        rule=rule,
        measure="margin",
        rounds=tuple(views),
        beside=tuple(other) if beside else (),
        points=tuple(drawn),
        estimates=(
            PoolEstimate("answers that are probably wrong", Interval(0.113, 0.094, 0.134)),
            PoolEstimate("the teacher says positive", Interval(0.481, 0.455, 0.507)),
            PoolEstimate("student and teacher differ", Interval(0.166, 0.149, 0.184)),
        ),
        teacher_accuracy=0.885,
        wrong_uniform=0.115,
        stopped=STOPPED if stopped else "",
        unbought=3_000 if stopped else 0,
        saved=2_520_000 if stopped else 0,
    )
