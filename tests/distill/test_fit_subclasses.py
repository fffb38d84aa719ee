"""The teacher `fit` with subclasses of its own, and the arm that fits them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from limbeck.distill.fit import fit_teacher
from limbeck.distill.folder import RunFolder
from limbeck.distill.plan import make_plan
from limbeck.distill.run import distill, load_teacher, stage
from limbeck.distill.run_file import load_config
from limbeck.distill.subclass_teacher import map_temperature
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.numerics.classmap import ClassMap
from limbeck.students import load
from limbeck.teachers import StudentTeacher, TeacherConfig
from limbeck.trust.temperature import Temperature

from .material import Material, make


def task(folder: Path, *arms: str, teacher: str = 'kind = "fit"\nsubclasses = 3') -> Material:
    made = make(folder)
    text = made.run_file.read_text()
    listed = ", ".join(f'"{arm}"' for arm in ("labels", *arms))
    text = text.replace('"labels", "slam"', listed)
    old = text[text.index("[teacher]") : text.index("[student.settings]")]
    made.run_file.write_text(text.replace(old, f"[teacher]\n{teacher}\n\n"))
    return made


def trained(config, root: Path) -> RunFolder:
    folder = RunFolder(root)
    fit_teacher(config, stage(replace(config, out=root), folder), folder, Accelerator(cpu=True))
    return folder


@pytest.mark.slow
def test_its_layer_gives_its_answers_as_sums_over_a_class_with_calibration(tmp_path):
    made = task(tmp_path, "soft_kd")
    folder = trained(load_config(made.run_file), tmp_path / "own")
    teacher, predictor = StudentTeacher(folder.teacher), load(folder.teacher)
    assert predictor.temperature != 1.0
    assert predictor.student.class_map == ClassMap((0, 0, 0, 1, 1, 1), predictor.temperature)
    splits = stage(replace(load_config(made.run_file), out=folder.root), folder)
    rows = splits.pool.take(np.arange(40))
    weight, bias = teacher.head(rows)
    said = teacher.say(rows)
    each = torch.softmax(said.embeddings @ weight.T + bias, dim=1)
    made_up = each.view(40, 2, 3).sum(dim=2)
    torch.testing.assert_close(made_up, torch.as_tensor(said.probs), atol=1e-5, rtol=0)
    np.testing.assert_allclose(predictor.predict_proba(rows), said.probs, atol=1e-6)
    # The layer is asked for through the run's own teacher as well.
    config = replace(load_config(made.run_file), out=folder.root)
    assert torch.equal(load_teacher(config, splits, folder).head(rows)[0], weight)


@pytest.mark.slow
def test_the_fingerprint_changes_with_the_number_of_subclasses(tmp_path):
    prints = set()
    for count in (1, 2, 3):
        made = task(tmp_path / str(count), "soft_kd", teacher=f'kind = "fit"\nsubclasses = {count}')
        folder = trained(load_config(made.run_file), tmp_path / f"own{count}")
        prints.add(StudentTeacher(folder.teacher).fingerprint)
    assert len(prints) == 3


@pytest.mark.slow
def test_the_arm_fits_what_its_teacher_has_invented(tmp_path):
    made = task(tmp_path, "soft_kd", "subclass")
    outcome = distill(load_config(made.run_file))
    held = outcome.record.embeddings
    assert [one.title for one in held.splits] == ["Subclass distillation"]
    assert held.splits[0].outputs == 6
    # A student folder made of such a teacher teaches the same.
    again = task(
        tmp_path / "again", "subclass", teacher=f'kind = "student"\npath = "{tmp_path}/run/teacher"'
    )
    text = again.run_file.read_text() + "\n[objective.settings.subclass]\nsubclasses = 3\n"
    again.run_file.write_text(text)
    assert make_plan(load_config(again.run_file)).pool


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ('kind = "fit"', r"teacher fit has 1; set teacher.kind = 'fit' with teacher.subclasses"),
        ('kind = "callable"\nfunction = "MODULE:ask"', "teacher callable has 1"),
    ],
)
def test_other_teachers_are_refused_before_anything_is_asked(tmp_path, teacher, words):
    made = task(tmp_path, "subclass", teacher=teacher)
    (module,) = tmp_path.glob("teacher_*.py")
    made.run_file.write_text(made.run_file.read_text().replace("MODULE", module.stem))
    for job in (make_plan, distill):
        with pytest.raises(ConfigError, match=words):
            job(load_config(made.run_file))
    assert made.questions() == []


def test_another_number_than_the_teacher_s_is_refused(tmp_path):
    made = task(tmp_path, "subclass")
    made.run_file.write_text(
        made.run_file.read_text() + "\n[objective.settings.subclass]\nsubclasses = 4\n"
    )
    with pytest.raises(ConfigError, match=r"fits 4 subclasses .* the teacher fit has 3"):
        make_plan(load_config(made.run_file))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"teacher\.subclasses=0"):
        TeacherConfig(kind="fit", subclasses=0)
    with pytest.raises(ConfigError, match=r"members=2 and teacher\.subclasses=2"):
        TeacherConfig(kind="fit", members=2, subclasses=2)
    with pytest.warns(LimbeckWarning, match=r"teacher\.subclasses means nothing"):
        TeacherConfig(kind="student", subclasses=2)


def test_one_output_a_class_has_the_temperature_of_ordinary_calibration():
    g = torch.Generator().manual_seed(0)
    logits, labels = 4 * torch.randn(300, 3, generator=g), torch.randint(3, (300,), generator=g)
    labels = torch.where(torch.rand(300, generator=g) < 0.6, logits.argmax(dim=1), labels)
    plain = map_temperature(logits, ClassMap.plain(3), labels)
    # A plain map does not divide, so its own temperature is taken up by one that is not plain.
    turned = map_temperature(logits.flip(1), ClassMap((2, 1, 0)), labels)
    assert turned == pytest.approx(Temperature.fit(logits, labels).value, rel=1e-6)
    assert plain > 0


def test_the_temperature_of_a_wide_head_is_the_best_of_a_fine_grid():
    g = torch.Generator().manual_seed(1)
    outputs, labels = 5 * torch.randn(200, 6, generator=g), torch.randint(2, (200,), generator=g)
    class_map = ClassMap((0, 0, 0, 1, 1, 1))
    grid = np.geomspace(0.05, 20, 4001)

    def loss(temperature):
        each = (
            torch.softmax(outputs.double() / float(temperature), dim=1).view(200, 2, 3).sum(dim=2)
        )
        return float(-each.gather(1, labels[:, None]).log().mean())

    best = float(grid[int(np.argmin([loss(one) for one in grid]))])
    assert map_temperature(outputs, class_map, labels) == pytest.approx(best, rel=3e-3)


def test_the_plan_shows_what_a_wider_head_takes(tmp_path):
    made = task(tmp_path, "soft_kd", "lelp", "subclass")
    plan = make_plan(load_config(made.run_file))
    # A student of 8 hidden numbers: 8 subclasses of two classes by rule, 3 as the teacher has them.
    assert plan.heads == {"lelp": (16, 14 * 8), "subclass": (6, 4 * 8)}
    assert "LELP: a head of 16 outputs, 112 weights more" in plan.text()
    assert json.loads(json.dumps(plan.to_dict()))["heads"]["subclass"] == [6, 32]
    plain = make_plan(load_config(task(tmp_path / "plain", "soft_kd").run_file))
    assert plain.heads == {}
    assert "weights more" not in plain.text()
