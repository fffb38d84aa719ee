"""Code on the pages runs, in order, in a folder where the README's commands have run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from limbeck.distill.fit import is_trained
from limbeck.distill.folder import RunFolder
from limbeck.distill.plan import make_plan
from limbeck.distill.run import load_teacher, stage
from limbeck.distill.run_file import load_config
from tests.docs.conftest import environment
from tests.docs.pages import PAGES, ROOT, Block, blocks, name_of

pytestmark = pytest.mark.slow
GUIDE = ROOT / "docs/guides/distill.md"
with_code = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", with_code, ids=name_of)
def test_python_on_a_page_runs(page: Path, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, workshop, monkeypatch)


def run_page(page: Path, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(workshop)
    monkeypatch.syspath_prepend(ROOT / "examples")  # where `_toy` lies
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        if block.file:
            (workshop / block.file).write_text(block.text)
        exec(compile(block.text, block.where, "exec"), namespace)


@pytest.mark.parametrize("block", blocks(GUIDE, "toml"), ids=lambda block: block.file)
def test_a_run_file_of_the_guide_can_be_planned_and_its_teacher_answers(
    block: Block, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The guide's Python blocks write what some of its run files name. Another process may have run
    # them, in a workshop of its own.
    if not (workshop / "pipeline.skops").exists():
        run_page(GUIDE, workshop, monkeypatch)
    file = workshop / block.file
    file.write_text(block.text)
    config = load_config(file, ["--out", str(workshop / "plans" / block.file)])
    plan = make_plan(config)
    assert plan.pool > 0
    folder = RunFolder(config.out)
    if config.teacher.kind == "fit" and not is_trained(config, folder):
        return  # it would have to be trained first
    splits = stage(config, folder)
    teacher = load_teacher(config, splits, folder)
    rows = splits.pool.take(np.arange(5))
    answers, readable = teacher.parse(teacher.ask(splits.pool.content_ids[:5], rows))
    assert readable.all()
    assert answers.probs.shape == (5, 2)


def test_the_example_beside_a_student_runs_as_the_guide_says(workshop: Path) -> None:
    lines = [line for block in blocks(GUIDE, "console") for line in block.text.splitlines()]
    (line,) = [line for line in lines if "example.py" in line]
    command = line.removeprefix("$ ").replace("python ", f"{sys.executable} ", 1)
    done = subprocess.run(
        command,
        shell=True,
        cwd=workshop,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert '"class"' in done.stdout, done.stderr


def test_the_run_folder_holds_what_the_readme_lists(workshop: Path) -> None:
    run = workshop / "runs/reviews"
    for name in ("report.html", "student", "metrics.json", "run.toml", "student/example.py"):
        assert (run / name).exists(), name
    assert len((workshop / "predictions.csv").read_text().splitlines()) == 21
