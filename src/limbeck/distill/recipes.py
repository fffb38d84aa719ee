"""From the name of an arm to its objective.

An arm is an objective by name, one of your own as `package.module:Class`, or a sum of them such as
"slam+my_losses:Feature". SLaM with an undecided target stands for two arms.
"""

import difflib
import inspect
from collections.abc import Mapping
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import torch

from limbeck.distill.config import DistillConfig
from limbeck.errors import ConfigError, LimbeckError, one_line
from limbeck.numerics.classmap import ClassMap
from limbeck.objectives import Combined, Slam, Supervised, objective_class
from limbeck.objectives.base import Objective, StudentOut
from limbeck.students import rng
from limbeck.teachers.imports import import_object, source_of

TITLES = {
    "labels": "Labels only",
    "labels_and_validation": "Labels and validation",
    "hard_kd": "Hard distillation",
    "soft_kd": "Soft distillation",
    "slam_soft": "SLaM, soft target",
    "slam_hard": "SLaM, hard target",
    "alpha_weighted": "Alpha as weight",
    "fidelity": "Fidelity weighting",
    "taylor": "Taylor cross-entropy",
    "ups": "UPS",
    "weighted": "Weighted distillation",
    "lelp": "LELP",
    "dkd": "DKD",
    "dist": "DIST",
    "rkd": "RKD",
    "embedding": "Embedding regression",
    "fitnet": "FitNet",
    "vid": "VID",
    "crd": "CRD",
    "pca_split": "Split by principal components",
    "random_projections": "Split by random projections",
    "kmeans_split": "Split by k-means",
    "agglomerative_split": "Split by agglomerative clusters",
    "random_split": "Random split",
    "subclass_teacher": "Teacher with subclasses",
    "subclass": "Subclass distillation",
}
ELSEWHERE = {
    "slam": {"target": "slam_target", "normalized": "slam_normalized"},
    "soft_kd": {"temperature": "temperature"},
}
"""Settings that have a place of their own under [objective]."""
SUBCLASS = "subclass"
"""The arm that fits subclasses which the teacher has invented."""
ONE_OPINION = ("table", "module", "sklearn", "callable")
"""Kinds of teacher whose answers never hold a spread."""


def expand(config: DistillConfig) -> tuple[str, ...]:
    """Names of the arms to train; SLaM with an undecided target becomes two, in a sum too."""
    return tuple(name for arm in config.objective.arms for name in expand_arm(arm, config))


def every_arm(config: DistillConfig) -> tuple[str, ...]:
    """Names of the arms, and of the one by which rows are chosen where answers come in rounds."""
    return (*expand(config), *_choosing(config))


def expand_arm(arm: str, config: DistillConfig) -> tuple[str, ...]:
    """Names of the arms that one of the run file stands for."""
    target, parts = config.objective.slam_target, arm.split("+")
    if "slam" not in parts:
        return (arm,)
    targets = ("soft", "hard") if target == "auto" else (target,)
    return tuple(
        "+".join(f"slam_{t}" if part == "slam" else part for part in parts) for t in targets
    )


def title(name: str) -> str:
    """What people call an arm."""
    return " + ".join(TITLES.get(part, part) for part in name.split("+"))


def make_objective(name: str, config: DistillConfig) -> Objective:
    """The objective of an arm, not yet fitted.

    Random numbers that its constructor draws from global generators come from the run's seed, which
    is also its setting `seed` where it has one and the run file gives none.

    Raises:
        ConfigError: there is no such objective, a setting is unknown or refused, or the parts of a
            sum do not go together.
    """
    parts = name.split("+")
    with rng.isolated(config.seed):
        made = _make(parts[0], config)
        if len(parts) == 1:
            return made
        whole = "+".join(_plain(part) for part in parts)
        values = config.objective.settings.get(whole, {})
        checked = checked_settings(whole, Combined, values, positional=2)
        for part in parts[1:]:
            made = Combined(made, _make(part, config), **checked)  # type: ignore[arg-type]  # checked against the signature
    return made


def check_objectives(config: DistillConfig, num_classes: int) -> None:
    """Refuse arms that cannot be trained before anything is spent.

    Raises:
        ConfigError: as `make_objective`, or the objective needs a head whose outputs do not belong
            to one class each, labelled rows that the run leaves out, or a spread that the teacher
            does not give.
    """
    if any(not make_objective(name, config).needs_answers for name in _choosing(config)):
        raise ConfigError(
            f"buy.arm={config.buy.arm!r} learns from labels alone, so the student that chooses "
            f"would stay the same in all rounds; take soft_kd or slam."
        )
    for name in every_arm(config):
        made = make_objective(name, config)
        if made.needs_spread and _has_one_opinion(config):
            raise ConfigError(
                f"objective.arms holds {name!r}, which needs answers with a spread, but the "
                f"teacher {config.teacher.kind} has one opinion; set teacher.kind = 'fit' with "
                f"teacher.members = 5, or change the objective's settings."
            )
        if config.train.labelled_weight == 0:
            _check_without_labels(name, made)
        _check_class_map(name, made, num_classes)


def _choosing(config: DistillConfig) -> tuple[str, ...]:
    """The arm by which the student that chooses rows is trained, or none."""
    return expand_arm(config.buy.arm, config)[:1] if config.buy.in_rounds else ()


def class_maps(config: DistillConfig, num_classes: int) -> tuple[ClassMap, ...]:
    """The different heads that the arms need."""
    made = (make_objective(name, config).class_map(num_classes) for name in expand(config))
    return tuple(dict.fromkeys(made))


def _check_without_labels(name: str, made: Objective) -> None:
    """Refuse an arm that answers alone cannot teach."""
    if not made.needs_answers:
        return
    if made.pretrain > 0:
        raise ConfigError(
            f"objective.arms holds {name!r}, which begins with labelled rows alone, but "
            f"train.labelled_weight is 0; raise it, or set the arm's pretrain to 0."
        )
    if not made.uses_outputs:
        raise ConfigError(
            f"objective.arms holds {name!r}, whose loss is over embeddings alone, and "
            f"train.labelled_weight is 0, so nothing would teach the head; add a part that does, "
            f"'soft_kd+{name}', or raise the weight."
        )


def _check_class_map(name: str, made: Objective, num_classes: int) -> None:
    """Refuse an objective that a student could not predict by once it is saved."""
    width, class_map = made.width(num_classes), made.class_map(num_classes)
    if (class_map.width, class_map.num_classes) != (width, num_classes):
        raise ConfigError(
            f"objective.arms holds {name!r}, which needs a head of {width} outputs for "
            f"{num_classes} classes, but its class_map names {class_map.num_classes} classes for "
            f"{class_map.width} outputs; give it a class_map that says of each output to which "
            f"class it belongs."
        )
    outputs = torch.randn(8, width, generator=torch.Generator().manual_seed(0))
    try:
        said = made.class_log_probs(StudentOut(outputs, torch.zeros(8, 1)))
    except Exception as error:  # a method of the user's may raise anything
        raise ConfigError(
            f"the objective {name} cannot tell class probabilities before it is fitted "
            f"({type(error).__name__}: {one_line(error)}); let class_log_probs give "
            f"self.class_map(C).log_probs(out.outputs)."
        ) from error
    expected = class_map.log_probs(outputs)
    if said.shape != expected.shape or not torch.allclose(said.float(), expected, atol=1e-4):
        raise ConfigError(
            f"the class_log_probs of the objective {name} are not what its class_map says, and a "
            f"saved student predicts by the map alone; let class_log_probs give "
            f"self.class_map(C).log_probs(out.outputs)."
        )


def _has_one_opinion(config: DistillConfig) -> bool:
    """Whether the teacher is known to give no spread; a student folder may hold members."""
    teacher = config.teacher
    return teacher.kind in ONE_OPINION or (teacher.kind == "fit" and teacher.members == 1)


def own_sources(config: DistillConfig) -> list[str]:
    """Text of the files that define the user's own objectives: other code is another experiment."""
    parts = {part for arm in config.objective.arms for part in arm.split("+") if ":" in part}
    return [source_of(_kind(part, config)) or "" for part in sorted(parts)]


def checked_settings(
    name: str, kind: type, values: Mapping[str, object], *, positional: int = 0
) -> dict[str, object]:
    """Check a table of settings against the keyword-only parameters of a constructor.

    Args:
        name: The arm, for messages.
        kind: Its class.
        values: The table.
        positional: How many parameters the caller gives by position.

    Returns:
        The settings; an integer for a float is made one.

    Raises:
        ConfigError: an unknown key (the nearest is named), a wrong type, or a setting is missing.
    """
    where = f"objective.settings.{name}"
    parameters = list(inspect.signature(kind).parameters.values())[positional:]
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    for p in parameters:
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD:
            raise ConfigError(
                f"{name} takes {p.name} by position; make the settings of an objective "
                f"keyword-only, `def __init__(self, *, {p.name}=...)`."
            )
        if p.default is p.empty and p.kind is p.KEYWORD_ONLY and p.name not in values:
            raise ConfigError(f"{where}.{p.name} is missing; {name} has no default for it.")
    hints = _hints(kind)
    checked: dict[str, object] = {}
    for key, value in values.items():
        moved = ELSEWHERE.get(name, {}).get(key)
        if moved is not None:
            raise ConfigError(f"{where}.{key} has a place of its own; set objective.{moved}.")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            hint = f"; did you mean {near[0]!r}?" if near else " and none at all."
            raise ConfigError(f"{name} has no setting {key!r}{hint}")
        checked[key] = _fitting(f"{where}.{key}", value, hints.get(key))
    return checked


def _plain(part: str) -> str:
    """A part of an arm as the run file writes it."""
    return "slam" if part in ("slam_soft", "slam_hard") else part


def _make(part: str, config: DistillConfig) -> Objective:
    objective, name = config.objective, _plain(part)
    kind = _kind(name, config)
    settings = checked_settings(name, kind, objective.settings.get(name, {}))
    if kind is Slam:
        settings |= {
            "target": part.removeprefix("slam_"),
            "normalized": objective.slam_normalized,
        }
    elif name == "soft_kd":
        settings["temperature"] = objective.temperature
    if "seed" in inspect.signature(kind).parameters:
        settings.setdefault("seed", config.seed)
    if name == SUBCLASS and config.teacher.subclasses > 1:
        settings.setdefault("subclasses", config.teacher.subclasses)
    try:
        made: Objective = kind(**settings)
    except ConfigError as error:
        if name not in objective.settings:
            raise
        raise ConfigError(f"objective.settings.{name}: {error}") from error
    except LimbeckError:
        raise
    except Exception as error:  # a constructor of the user's may raise anything
        raise ConfigError(
            f"the objective {name} cannot be made ({type(error).__name__}: {one_line(error)}); "
            f"repair its constructor, or its settings under [objective.settings]."
        ) from error
    return made


def _kind(name: str, config: DistillConfig) -> type[Objective]:
    if name in ("labels", "labels_and_validation"):
        return Supervised
    if ":" not in name:
        return objective_class(name)
    found = import_object(name, config.code, what="objective.arms")
    if not (isinstance(found, type) and issubclass(found, Objective)):
        raise ConfigError(
            f"objective.arms holds {name!r}, which is no subclass of limbeck.objectives.Objective; "
            f"name a class that is."
        )
    return found


def _hints(kind: type) -> dict[str, object]:
    try:
        return get_type_hints(kind.__init__)  # type: ignore[misc]  # only looked at
    except (NameError, TypeError, AttributeError):  # annotations that cannot be evaluated
        return {}


def _fitting(where: str, value: object, hint: object) -> object:
    """The value as the annotation wants it; what is not annotated takes anything."""
    if hint is None:
        return value
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise ConfigError(f"{where}={value!r}: must be {' or '.join(map(repr, choices))}.")
        return value
    allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if type(value) in allowed:
        return value
    if float in allowed and type(value) is int:
        return float(value)
    wanted = " or ".join(getattr(each, "__name__", str(each)) for each in allowed)
    raise ConfigError(f"{where}={value!r}: must be {wanted}, not {type(value).__name__}.")
