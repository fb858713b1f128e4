"""Break it: runs an experiment, names it on the tape, and answers its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask import request

from webapp.connection import budget, recorder
from webapp.experiments import Bench, Experiment, Outcome
from webapp.http import delivery
from webapp.http.errors import Problem

_RUN_DEADLINE_S = 10.0  # for hundreds of commands, on a machine that may be busy


@dataclass(frozen=True)
class Ran:
    experiment: Experiment
    controls: Mapping[str, int]
    outcome: Outcome

    def card(self) -> str:
        """The card with its result, and the receipts of the run."""
        return delivery.fragment(
            "_xp.html",
            recordings=self.outcome.recordings,
            experiment=self.experiment,
            controls=self.controls,
            outcome=self.outcome,
        )


def run(experiments: Sequence[Experiment], name: str, bench: Bench) -> Ran:
    """Run one by its name, with the controls of the form. 404 and 400 as Problem."""
    experiment = next((e for e in experiments if e.name == name), None)
    if experiment is None:
        raise Problem(404, "No such experiment", "There is no such Break it card.")
    try:
        controls = experiment.parse(request.form)
    except ValueError as error:
        raise Problem(400, "Out of bounds", str(error)) from error
    with budget.limited_to(_RUN_DEADLINE_S):
        outcome = experiment.run(bench, **controls)
    delivery.verdict(outcome.tone, outcome.verdict)
    _name_on_the_tape(experiment.title, replayed=bool(outcome.recordings))
    return Ran(experiment, controls, outcome)


def _name_on_the_tape(title: str, *, replayed: bool) -> None:
    """A run is named by its title; what a replay leaves to the request is tidying."""
    if (own := recorder.current()) is not None:
        own.cause = f"Tidy up: {title}" if replayed else f"Run: {title}"
        own.housekeeping = replayed
