"""The whole way: logs, preparation, search, training of the best settings, report, bundle, endpoint, one ranking.

Every step that is finished already is skipped, so a killed run goes on where it was. Without `tune.space` and
`tune.structure` there is no search. Everything that was started is stopped at the end.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

from jobs import screen
from pipelines.experiment import Experiment
from pipelines.serve.deploy import beside, deploy
from pipelines.serve.example import as_table, example_request
from pipelines.steps import (
    bundle_of,
    evaluate_step,
    on_ray,
    prepare_step,
    prepared_of,
    register_step,
    search_step,
    store_of,
    train_step,
    with_best,
)


def main(argv: Sequence[str] | None = None) -> None:
    experiment = screen.experiment_of(screen.parser(__doc__).parse_args(argv))
    started = time.monotonic()
    with on_ray(experiment):
        _title("1/5 Prepare")
        prepare_step(experiment)
        trained = None
        if experiment.tune.space or experiment.tune.structure:
            _title("2/5 Search")
            found = search_step(experiment)
            experiment = with_best(experiment, found)
            trained = found.bundle_path
        _title("3/5 Train")
        if trained is not None and experiment.train.workers == 0:
            print("The search trained its winner to the end with these settings; its bundle is taken.")
        else:
            trained = train_step(experiment).bundle_path
        bundle = register_step(experiment, trained)
        _title("4/5 Report")
        report = evaluate_step(experiment, [bundle_of(experiment)])
        _title("5/5 Serve")
        _rank_once(experiment)
    print(f"\nDone in {time.monotonic() - started:.0f} s.")
    print(f"Bundle: {bundle}")
    print(f"Report: {report}")


def _rank_once(experiment: Experiment) -> None:
    """Under a name of its own, so that an endpoint that runs is not touched."""
    request = example_request(prepared_of(experiment))
    config = beside(replace(experiment.serve, replicas=1))
    served = deploy(bundle_of(experiment).path, store_of(experiment), config)
    try:
        with served.client() as client:
            answer = client.post("/rank", json=request).raise_for_status()
    finally:
        served.end()
    print(f"POST {served.url}/rank for user {request['user_id']}, {len(request['candidates'])} rooms; the best {request['k']}:")
    print(as_table(answer.json()))
    print(f"answered by {answer.json()['model']} in {answer.json()['timing']['total_ms']:.1f} ms")


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    screen.run(main)
