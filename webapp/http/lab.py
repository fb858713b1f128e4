"""Break it: runs an experiment, names it on the tape, and answers its card."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flask import current_app, request
from redis.exceptions import RedisError

from webapp.connection import budget, recorder
from webapp.connection.roles import Clients
from webapp.experiments import Bench, Experiment, Outcome
from webapp.http import delivery
from webapp.http.errors import Problem
from webapp.keys import Family
from webapp.shop.seed import FEATURED_IDS

_RUN_DEADLINE_S = 10.0  # for hundreds of commands, on a machine that may be busy


@dataclass(frozen=True)
class Ran:
    experiment: Experiment
    controls: Mapping[str, int]
    outcome: Outcome

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """As a page takes them: by the names of the experiments."""
        return {self.experiment.name: self.outcome}

    def card(self) -> str:
        """The card with its result, and the receipts of the run."""
        return delivery.fragment(
            "_xp.html",
            recordings=self.outcome.recordings,
            experiment=self.experiment,
            controls=self.controls,
            outcome=self.outcome,
        )


def run(experiments: Sequence[Experiment], name: str, family: Family) -> Ran:
    """Run one by its name, with the controls of the form.

    Its scratch keys are of that family, and on the server where the family belongs.
    Raises Problem for a name that is none, and BadControl.
    """
    experiment = next((e for e in experiments if e.name == name), None)
    if experiment is None:
        raise Problem(404, "No such experiment", "There is no such Break it card.")
    controls = experiment.parse(request.form)
    with bench_for(family, experiment.title) as bench:
        outcome = experiment.run(bench, **controls)
    delivery.verdict(outcome.tone, outcome.verdict)
    name_on_the_tape(experiment.title, replayed=bool(outcome.recordings))
    return Ran(experiment, controls, outcome)


@contextmanager
def bench_for(family: Family, title: str) -> Iterator[Bench]:
    """What a run may use, on the server of that family, and how long it may take.

    What a run has said until Redis failed it is on the tape, too.
    """
    bench = _bench(family)
    try:
        with budget.limited_to(_RUN_DEADLINE_S):
            yield bench
    except RedisError:
        delivery.verdict("no", "failed")
        name_on_the_tape(title, replayed=False)
        delivery.deliver(bench.recordings)
        raise


def _bench(family: Family) -> Bench:
    extensions = current_app.extensions
    clients: Clients = extensions["clients"]
    client = clients.cache if family.role == "cache" else clients.durable
    engine, settings = extensions["catalog"].engine, extensions["settings"]
    url = settings.redis_urls[family.role]
    first = FEATURED_IDS.start
    return Bench(client, engine, settings.namespace, first, family, url)


def name_on_the_tape(title: str, *, replayed: bool) -> None:
    """A run is named by its title; what a replay leaves to the request is tidying."""
    if (own := recorder.current()) is not None:
        own.cause = f"Tidy up: {title}" if replayed else f"Run: {title}"
        own.housekeeping = replayed
