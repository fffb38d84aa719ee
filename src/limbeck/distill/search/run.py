"""The search of a run: trials until there are enough, then the student that was found.

The study in the run folder is all that has to survive. The same call goes on with it, and gives
what a call that was never stopped gives.
"""

import json
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import EncodedRows
from limbeck.distill.folder import Event, RunFolder
from limbeck.distill.processes import alone_in
from limbeck.distill.search.one_shot import SharedTrainer, make_trainer, to_check
from limbeck.distill.search.problem import SearchProblem, search_problem
from limbeck.distill.search.trials import SearchRows, TrialResult, TrialTrainer
from limbeck.errors import ConfigError, LimbeckError
from limbeck.report.search import SearchView
from limbeck.search import Architecture
from limbeck.storage import write_json, write_text
from limbeck.students import Student

if TYPE_CHECKING:
    from accelerate import Accelerator

    from limbeck.distill.search.study import Asked, SearchStudy
    from limbeck.distill.search.team import Alone, Team

SEARCH = "search"
CHOSEN = "chosen.json"


def check_search(config: DistillConfig, student: Student, folder: RunFolder) -> SearchProblem:
    """Refuse a search that cannot be made before anything is spent.

    Raises:
        ConfigError: as `search_problem`, or the storage cannot be used.
        MissingExtraError: Optuna, or the Ray that is asked for, is not installed.
    """
    from limbeck.distill.search.storage import check_storage

    if config.engine == "ray":
        from limbeck.engines.cluster import require_ray

        require_ray()
    if config.search.one_shot and student.encoder.kind != "image_cnn":
        raise ConfigError(
            f"search.one_shot knows the student image_cnn, and this run has "
            f"{student.encoder.kind}; leave it out, so that every trial is trained."
        )
    check_storage(config, folder)
    return search_problem(config, student)


def find_student(
    config: DistillConfig,
    rows: SearchRows,
    folder: RunFolder,
    name: str,
    accelerator: "Accelerator",
) -> tuple[EncodedRows, SearchView]:
    """Search, and settle on what was found: from now on the run trains this student.

    Args:
        config: The run's settings.
        rows: What trials learn from.
        folder: Of the run.
        name: Of the run, and so of its study.
        accelerator: Where it computes.

    Returns:
        The student that was found, freshly initialised, with rows as it reads them; and the search.

    Raises:
        ConfigError: more trials are wanted than when the run settled.
        LimbeckError: no trial within the limit has a reward.
    """
    problem = search_problem(config, rows.encoded.student)
    path = folder.search / CHOSEN
    settled = json.loads(path.read_text()) if path.exists() else None
    if settled is None:
        view = search(config, problem, rows, folder, name, accelerator)
        write_json(path, {"options": _answer(view), "trials": config.search.trials})
        settled = json.loads(path.read_text())
    elif config.search.trials > settled["trials"]:
        raise ConfigError(
            f"search.trials={config.search.trials}: this run has settled on the best of "
            f"{settled['trials']} trials and trains it; choose another folder with --out for more."
        )
    view = SearchView.from_dict(json.loads((folder.root / "search.json").read_text()))
    trainer = TrialTrainer(config, problem, rows, folder, accelerator)
    return trainer.rows_of(tuple(settled["options"])), view


def search(
    config: DistillConfig,
    problem: SearchProblem,
    rows: SearchRows,
    folder: RunFolder,
    name: str,
    accelerator: "Accelerator",
) -> SearchView:
    """Train trials until there are enough of them; write `search.json` and `search.html`.

    Raises:
        LimbeckError: no trial within the limit has a reward, or a worker has died.
    """
    from limbeck.distill.search.study import SearchStudy
    from limbeck.distill.search.view import make_view

    quiet = RunFolder(config.out, writes=False)
    trainer = make_trainer(config, problem, rows, quiet, accelerator)
    with alone_in(folder.search):
        shape = f"{trainer.materials(problem.base).settings}.{trainer.steps}"
        study = SearchStudy(config, problem, folder, name, shape)
        teller = _Teller(config, problem, study, folder)
        _train_base(study, trainer, folder)
        if study.unfinished():
            with closing(_team(config, trainer, rows, folder, name)) as team:
                _work(study, team, trainer, teller)
        if isinstance(trainer, SharedTrainer):
            _check_ranks(config, study, trainer, folder)
        view = make_view(config, problem, study, trainer.steps)
        _write(view, folder)
    _answer(view)
    return view


def _train_base(study: "SearchStudy", trainer: TrialTrainer, folder: RunFolder) -> None:
    """Train the student that the search begins with, so that there is something to compare with."""
    if study.base is not None:
        return
    folder.log("search", "search: training the student of student.settings for comparison")
    result = trainer.evaluate("search.base", study.problem.base, lambda reward, evaluation: False)
    study.keep_base(result)
    trainer.forget("search.base")


def _check_ranks(
    config: DistillConfig, study: "SearchStudy", trainer: SharedTrainer, folder: RunFolder
) -> None:
    """Train some of the students on their own, to say how true ranks by shared weights are."""
    alone = trainer.alone()
    chosen = to_check(study.rows(), config.search.check)
    for done, trial in enumerate(chosen):
        if str(trial.number) not in study.checked:
            name = f"search.check-{trial.number}"
            result = alone.evaluate(name, trial.options, lambda reward, evaluation: False)
            study.keep_check(trial.number, result)
            alone.forget(name)
        folder.tell(Event("check", "training on their own", done + 1, len(chosen)))


def _work(
    study: "SearchStudy", team: "Team | Alone", trainer: TrialTrainer, teller: "_Teller"
) -> None:
    """Keep the team busy until the study has nothing more to ask."""
    pending: dict[Future[TrialResult], Asked] = {}
    while True:
        while len(pending) < team.size and (asked := study.ask()) is not None:
            known = study.known(asked.architecture)
            if known is None:
                pending[team.submit(asked)] = asked
            else:
                study.tell(asked, known)
        if not pending:
            return
        for done in wait(pending, return_when=FIRST_COMPLETED).done:
            asked = pending.pop(done)
            try:
                result = done.result()
            except ConfigError as error:  # this architecture has diverged
                study.fail(asked, str(error))
            else:
                study.tell(asked, result)
            trainer.forget(asked.name)
            teller.tell(asked)


def _team(
    config: DistillConfig, trainer: TrialTrainer, rows: SearchRows, folder: RunFolder, name: str
) -> "Team | Alone":
    from limbeck.distill.search import team, worker

    shared = worker.share(config, name, rows)
    count = config.search.workers
    if config.engine == "ray":
        return team.actors(shared, count)
    if count == 1:
        return team.Alone(worker.Here(trainer, config, folder, name))
    return team.processes(shared, count, max(1, torch.get_num_threads() // count))


def _answer(view: SearchView) -> Architecture:
    if view.answer is None:
        failed = sum(one.failed for one in view.trials)
        raise LimbeckError(
            f"the search has tried {len(view.trials)} students, {failed} of which failed, and none "
            f"within the limit has a reward; look at search.html in the run folder, widen the "
            f"limit, or lower train.learning_rate."
        )
    return view.answer.options


def _write(view: SearchView, folder: RunFolder) -> None:
    from limbeck.report.search_page import render_search

    write_text(folder.root / "search.html", render_search(view))
    write_json(folder.root / "search.json", view.to_dict())


class _Teller:
    """Says how far the search is, and what is better than all before."""

    def __init__(
        self, config: DistillConfig, problem: SearchProblem, study: "SearchStudy", folder: RunFolder
    ) -> None:
        self._config, self._problem, self._study = config, problem, study
        self._folder = folder
        self._best = -1

    def tell(self, asked: "Asked") -> None:
        """Speak of a trial that has ended."""
        from limbeck.distill.search.ranking import best_of

        rows, total = self._study.rows(), self._config.search.trials
        best = best_of(rows)
        ended = sum(one.reward is not None or one.stopped or one.failed for one in rows)
        detail = {} if best is None or best.reward is None else {"best": best.reward}
        self._folder.tell(Event("search", "searching", ended, total, detail))
        if best is not None and best.reward is not None and best.number != self._best:
            self._best = best.number
            self._folder.log(
                "search",
                f"search: trial {best.number} is the best of {ended} of {total} so far: "
                f"{self._config.search.reward} {best.reward:.4g} at {best.cost:,.6g} "
                f"{self._problem.unit}",
                reward=best.reward,
                cost=best.cost,
            )
