"""Every objective that is registered or installed passes the suite that users run on their own."""

import pytest

from limbeck.errors import ConfigError
from limbeck.objectives import OBJECTIVES, Objective, objective_class
from limbeck.registry import names
from limbeck.testing import ObjectiveSuite

NAMES = names("objectives", OBJECTIVES)
BAD_SETTINGS: dict[str, list[dict[str, object]]] = {
    "labels": [],
    "hard_kd": [],
    "soft_kd": [{"temperature": 0.0}, {"temperature": -1.0}],
    "alpha_weighted": [{"target": "mild"}],
    "fidelity": [
        *({"beta": bad} for bad in (-1.0, float("inf"), float("nan"))),
        {"source": "mood"},
        {"target": "mild"},
    ],
    "taylor": [{"order": 0}, {"order": 1.5}],
    "ups": [
        {"rule": "mood"},
        *({"positive": bad} for bad in (0.5, 1.1)),
        *({"negative": bad} for bad in (0.0, 0.5)),
        {"positive_spread": -0.1},
        {"negative_spread": float("nan")},
    ],
    "weighted": [{"target": "mild"}, {"pretrain": 1.0}, {"refresh_every": -1.0}],
    "lelp": [
        *({"subclasses": bad} for bad in (-1, 1.5)),
        *({"beta": bad} for bad in (0.0, -1.0, float("inf"), float("nan"))),
        {"temperature": 0.0},
        {"null_space": "odd"},
        {"without_weights": "odd"},
        {"rotation": "odd"},
        {"scale": "odd"},
    ],
    "dkd": [
        *({name: -1.0} for name in ("alpha", "beta")),
        {"temperature": 0.0},
        {"warmup": 1.5},
    ],
    "dist": [*({name: -1.0} for name in ("beta", "gamma")), {"temperature": 0.0}],
    "rkd": [
        {"distance_weight": -1.0},
        {"angle_weight": float("nan")},
        *({"angle_rows": bad} for bad in (2, 64.0)),
    ],
    "embedding": [{"weight": 0.0}],
    "fitnet": [{"weight": 0.0}, {"leads": 1.0}],
    "vid": [{"weight": 0.0}, {"start": 0.0}],
    "crd": [
        {"weight": 0.0},
        *({name: bad} for name in ("negatives", "projected") for bad in (0, 1.5)),
        {"negatives_from": "mood"},
        {"positive": "mood"},
        {"temperature": 0.0},
        {"momentum": 1.0},
    ],
    **{
        name: [{"subclasses": -1}, {"temperature": 0.0}]
        for name in ("kmeans_split", "random_split", "subclass")
    },
    **{
        name: [{"subclasses": -1}, {"temperature": 0.0}, {"beta": 0.0}]
        for name in ("pca_split", "random_projections")
    },
    "agglomerative_split": [{"subclasses": -1}, {"temperature": -1.0}, {"max_rows": 0}],
    "subclass_teacher": [{"subclasses": -1}, {"temperature": 0.0}, {"weight": -1.0}],
    "slam": [{"target": "mild"}, {"eps": 0.0}, {"eps": 1.0}],
}


class TestObjectives(ObjectiveSuite):
    @pytest.fixture(autouse=True, params=NAMES)
    def subject(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param
        if self.name == "subclass":
            self.teacher_subclasses = self.make().width(self.classes) // self.classes

    def make(self) -> Objective:
        return objective_class(self.name)()

    def test_it_is_registered_under_its_own_name(self) -> None:
        assert objective_class(self.name).name == self.name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bad_settings_are_refused(name: str) -> None:
    for settings in BAD_SETTINGS[name]:
        (setting,) = settings
        with pytest.raises(ConfigError, match=setting):
            objective_class(name)(**settings)
