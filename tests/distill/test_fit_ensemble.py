"""The teacher `fit` with several members: layout, resumption, plan, and the way into the ledger."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from limbeck import storage
from limbeck.distill import plan as plans
from limbeck.distill.acquire import Acquisition, acquire
from limbeck.distill.fit import _job, fit_teacher, is_trained, teacher_plan
from limbeck.distill.folder import RunFolder
from limbeck.distill.plan import make_plan
from limbeck.distill.questions import questions
from limbeck.distill.run import load_teacher, stage
from limbeck.distill.run_file import load_config
from limbeck.errors import DataError
from limbeck.ledger import SqliteLedger
from limbeck.teachers import StudentTeacher

from .material import make

MEMBERS = 3


def configured(folder: Path, members: int = MEMBERS):
    options = ["--teacher.kind", "fit", "--teacher.function", "", "--teacher.members", str(members)]
    return load_config(make(folder).run_file, options)


def trained(config, root: Path) -> RunFolder:
    folder = RunFolder(root)
    splits = stage(replace(config, out=root), folder)
    fit_teacher(config, splits, folder, Accelerator())
    return folder


def files(folder: RunFolder) -> dict[str, bytes]:
    found = (path for path in folder.teacher.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.teacher)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A finished ensemble of three."""
    path = tmp_path_factory.mktemp("ensemble")
    config = configured(path)
    return config, trained(config, path / "reference")


def test_each_member_has_weights_of_its_own_and_the_first_is_the_single_teacher(
    reference, tmp_path
):
    _, folder = reference
    weights = {folder.teacher / f"member{i}" / "model.safetensors" for i in range(MEMBERS)}
    assert len({path.read_bytes() for path in weights}) == MEMBERS
    single = trained(configured(tmp_path, 1), tmp_path / "single")
    member = {
        name.removeprefix("member0/"): content
        for name, content in files(folder).items()
        if name.startswith("member0/")
    }
    assert files(single) == member


def held_out_rows(job) -> set[bytes]:
    taken = job.held_out.rows.take(np.arange(len(job.held_out)))
    return {row.tobytes() for row in np.split(taken.values, np.cumsum(taken.lengths)[:-1])}


def test_each_member_holds_out_another_tenth(reference):
    config, folder = reference
    plan = teacher_plan(config, stage(replace(config, out=folder.root), folder), folder)
    jobs = [_job(config, plan, folder, i) for i in range(MEMBERS)]
    for job in jobs:
        assert len(job.labelled) + len(job.held_out) == len(plan.rows)
        assert 1 <= len(job.held_out) <= len(plan.rows) / 10 + 1
    assert len(set.union(*map(held_out_rows, jobs))) == sum(len(job.held_out) for job in jobs)


class Killed(BaseException):
    """What ends an attempt."""


@pytest.mark.slow
def test_killed_before_every_write_it_makes_the_same_members(reference, tmp_path, monkeypatch):
    config, folder = reference
    seen: set[tuple[str, int]] = set()
    rename = os.replace

    def replace_once(source, target):
        label = (str(Path(target).relative_to(tmp_path)), len(Path(source).read_bytes()))
        count = sum(1 for one in calls if one == label)
        calls.append(label)
        if (label, count) not in seen:
            seen.add((label, count))
            raise Killed
        rename(source, target)

    monkeypatch.setattr(storage.os, "replace", replace_once)
    for _ in range(300):
        calls: list[tuple[str, int]] = []
        try:
            resumed = trained(config, tmp_path / "run")
            break
        except Killed:
            assert not is_trained(config, RunFolder(tmp_path / "run"))
    assert len(seen) > 20
    assert files(resumed) == files(folder)


def test_the_plan_counts_the_time_of_all_members(reference, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "timed_steps", lambda splits, student, size: np.ones(6))
    seconds = [make_plan(configured(tmp_path / str(n), n)).seconds for n in (1, MEMBERS)]
    config, folder = reference
    steps = teacher_plan(config, stage(replace(config, out=folder.root), folder), folder).steps
    assert seconds[1] - seconds[0] == (MEMBERS - 1) * steps


def test_the_answers_in_the_ledger_have_the_members_spread(reference):
    config, folder = reference
    splits = stage(replace(config, out=folder.root), folder)
    teacher = load_teacher(config, splits, folder)
    rows = splits.validation.take(np.arange(10))
    each = torch.stack(
        [
            torch.as_tensor(StudentTeacher(folder.teacher / f"member{i}").say(rows).probs)
            for i in range(MEMBERS)
        ]
    )
    with SqliteLedger(config.ledger) as ledger:
        book = acquire(Acquisition(config, splits, teacher, ledger, folder, "run")).book
        got = book.read(questions(splits, teacher).validation[:10])
    assert torch.allclose(got.probs, each.mean(dim=0), atol=1e-6)
    assert torch.allclose(got.spread, each.std(dim=0, correction=0), atol=1e-6)


def test_more_members_than_rows_are_refused_before_anything_is_trained(tmp_path):
    config = configured(tmp_path, 9)
    file = tmp_path / "few.csv"
    lines = (tmp_path / "labelled.csv").read_text().splitlines()
    file.write_text("\n".join(lines[:9]) + "\n")
    config = replace(config, teacher=replace(config.teacher, path=file))
    with pytest.raises(DataError, match=r"8 labelled rows but teacher\.members=9"):
        make_plan(config)
