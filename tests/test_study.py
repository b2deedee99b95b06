"""Studies: budgets, failures, processes that die, several at once, and storages."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from wsgiref.util import setup_testing_defaults

import pytest

from unlearnbench.bench import METHODS, InputError, StoreError
from unlearnbench.bench.objectives import Point
from unlearnbench.bench.search_space import SearchSpace
from unlearnbench.bench.study import TuningStudy
from unlearnbench.bench.tuning_settings import TuneSettings

from .mlflow_server import MariaDb, Postgres, why_no_mariadb, why_no_postgres

SPACE = SearchSpace(METHODS.get("finetune"))


def settings(**changes):
    return TuneSettings(**{"trials": 5, "sampler": "random"} | changes)


@contextmanager
def opened(folder, *, name="one", key="k", storage=None, **changes):
    study = TuningStudy(name, key, {"of": "test"}, settings(**changes), SPACE, storage, folder)
    with closing(study):
        yield study


def work(study, count=None):
    """Run trials with made-up values; their parameters in order."""
    done = []
    while count is None or len(done) < count:
        trial = study.ask()
        if trial is None:
            break
        method = SPACE.suggest(trial)
        study.tell(
            trial, Point(trial.number, 0.5, method.lr, float(method.epochs)), {"a": 1.0}, 2.0
        )
        done.append(trial.params)
    return done


def test_the_first_trial_has_the_defaults_and_the_budget_is_kept(tmp_path):
    with opened(tmp_path) as study:
        drawn = work(study)
        assert len(drawn) == len(study.counted()) == 5
        assert drawn[0] == SPACE.defaults()
        assert [p.forget for p in study.points()] == [params["lr"] for params in drawn]
        assert study.study.user_attrs["of"] == "test"
        assert study.study.metric_names == ["retain", "forget", "seconds"]


def test_the_same_seed_draws_the_same_trials_and_another_seed_others(tmp_path):
    found = []
    for place, seed in enumerate((0, 0, 1)):
        with opened(tmp_path / str(place), seed=seed, sampler="tpe", trials=12) as study:
            found.append(work(study))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_failed_trials_count_and_say_why(tmp_path):
    with opened(tmp_path) as study:
        study.fail(study.ask(), "it would not", 1.0)
        assert len(work(study)) == 4
        first = study.counted()[0]
        assert first.state.name == "FAIL"
        assert first.user_attrs["reason"] == "it would not"
        assert [p.number for p in study.points()] == [1, 2, 3, 4]


def test_a_study_goes_on_where_it_stopped_and_can_be_given_more(tmp_path):
    with opened(tmp_path) as study:
        first = work(study, 3)
    with opened(tmp_path) as study:
        second = work(study)
        assert len(second) == 2
        assert not any(params in first for params in second)
    with opened(tmp_path, trials=8) as study:
        assert len(work(study)) == 3
        assert len(study.points()) == 8
    with opened(tmp_path, trials=3) as study:  # or less: what others may not have does not count
        assert not work(study)
        assert [p.number for p in study.points()] == [0, 1, 2]


def test_what_is_handed_back_is_retried_with_the_same_values(tmp_path):
    with opened(tmp_path) as study:
        work(study, 2)
        trial = study.ask()
        SPACE.suggest(trial)
        study.give_up()
    with opened(tmp_path) as study:
        again = work(study)
        assert again[0] == trial.params
        assert len(again) == 3
        assert len(study.counted()) == 5
        states = [t.state.name for t in study.study.trials]
        assert states.count("FAIL") == 1  # the one that was handed back


DYING = """
import sys, time
from pathlib import Path
from unlearnbench.bench import METHODS
from unlearnbench.bench.search_space import SearchSpace
from unlearnbench.bench.study import TuningStudy
from unlearnbench.bench.tuning_settings import TuneSettings

space = SearchSpace(METHODS.get("finetune"))
settings = TuneSettings(trials=5, sampler="random")
study = TuningStudy("one", "k", {}, settings, space, None, Path(sys.argv[1]))
for _ in range(2):
    space.suggest(study.ask())
print("ready", flush=True)
time.sleep(100)
"""


def test_trials_of_a_process_that_was_killed_are_retried_at_once(tmp_path):
    code = [sys.executable, "-c", DYING, str(tmp_path)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with opened(tmp_path) as study:
            assert study.others_run()  # it lives
            process.kill()
            process.wait()
            assert not study.others_run()
            lost = [t.params for t in study.study.trials if "stale" in t.user_attrs]
            again = work(study)
            assert len(lost) == 2
            assert again[:2] == lost
            assert len(study.counted()) == 5
            assert len(study.points()) == 5


def test_a_trial_elsewhere_is_given_up_when_it_shows_no_life(tmp_path, monkeypatch):
    storage = tmp_path / "shared.log"
    with opened(tmp_path / "here", storage=str(storage)) as study:
        SPACE.suggest(study.ask())
        trial = next(iter(study._running.values()))
        with opened(tmp_path / "elsewhere", storage=str(storage)) as other:
            assert other.others_run()
            monkeypatch.setattr("unlearnbench.bench.study.DEAD_S", -1.0)
            assert not other.others_run()
            assert len(work(other)) == 5
        # it lived after all: what it tells comes too late, and harms nothing
        study.tell(trial, Point(trial.number, 1.0, 1.0, 1.0), {}, 1.0)
        study.fail(trial, "too late")
        assert len(study.counted()) == 5


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_processes_side_by_side_draw_different_trials(tmp_path, sampler):
    storage = str(tmp_path / "shared.log")
    with (
        opened(tmp_path / "a", storage=storage, trials=12, sampler=sampler) as one,
        opened(tmp_path / "b", storage=storage, trials=12, sampler=sampler) as two,
    ):
        drawn = []
        while len(drawn) < 12:
            drawn += [tuple(p.items()) for study in (one, two) for p in work(study, 1)]
        assert len(set(drawn)) == 12


def test_a_trial_whose_process_dies_every_time_is_given_up(tmp_path):
    for _ in range(3):
        with opened(tmp_path, trials=1) as study:
            SPACE.suggest(study.ask())
            study.give_up()
    with opened(tmp_path, trials=1) as study:
        assert study.ask() is None
        (trial,) = study.counted()
        assert trial.user_attrs["reason"] == "its process died, 3 times"


def test_a_study_of_somebody_else_is_refused_and_left_as_it_is(tmp_path):
    import optuna

    address = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.create_study(storage=address, study_name="one", direction="maximize")
    with pytest.raises(InputError, match="is of other data"), opened(tmp_path, storage=address):
        pass
    assert not optuna.load_study(storage=address, study_name="one").trials


def test_a_storage_that_fails_later_is_named_in_one_sentence(tmp_path, monkeypatch):
    with opened(tmp_path) as study:
        work(study, 1)

        def fail(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(study._storage._backend, "append_logs", fail)
        with pytest.raises(StoreError, match=r"No space left on device.*same command continues"):
            study.ask()
        monkeypatch.undo()


def test_two_at_one_moment_do_not_overdraw_the_budget(tmp_path, monkeypatch):
    storage = tmp_path / "shared.log"
    with (
        opened(tmp_path / "a", storage=str(storage), trials=1) as one,
        opened(tmp_path / "b", storage=str(storage), trials=1) as two,
    ):
        monkeypatch.setattr(one, "taken", lambda: 0)  # as if neither saw the other
        monkeypatch.setattr(two, "taken", lambda: 0)
        first, second = one.ask(), two.ask()
        assert first is not None
        assert second is None
        assert len(one.counted()) == 1


def test_another_study_of_the_same_name_is_refused(tmp_path):
    with opened(tmp_path) as study:
        work(study, 1)
    with (
        pytest.raises(InputError, match=r"study `one` in .* is of other data"),
        opened(tmp_path, key="other"),
    ):
        pass
    with opened(tmp_path) as study:  # and is as it was
        assert len(study.points()) == 1


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "gp", "random"])
@pytest.mark.parametrize("objectives", [("retain", "forget", "seconds"), ("balance",)])
def test_every_sampler_works_with_one_objective_and_with_several(tmp_path, sampler, objectives):
    with opened(tmp_path, sampler=sampler, objectives=objectives, trials=12) as study:
        assert len(work(study)) == 12


def test_a_database_holds_a_study_too(tmp_path):
    address = f"sqlite:///{tmp_path / 'studies.db'}"
    with opened(tmp_path / "a", storage=address) as study:
        work(study, 2)
    with opened(tmp_path / "b", storage=address) as study:
        assert study.address == address
        assert len(work(study)) == 3


@pytest.mark.slow
def test_a_proxy_serves_a_study_to_processes_that_share_no_folder(tmp_path):
    pytest.importorskip("grpc")
    address, process = _serve(tmp_path)
    try:
        with (
            opened(tmp_path / "a", storage=address) as one,
            opened(tmp_path / "b", storage=address) as two,
        ):
            work(one, 2)
            assert len(work(two)) == 3
            assert len(one.points()) == 5
    finally:
        process.kill()
        process.wait()


def _serve(folder):
    import socket

    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = [sys.executable, "-c", PROXY, str(folder / "behind.log"), str(port)]
    process = subprocess.Popen(code)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"grpc://127.0.0.1:{port}", process
        time.sleep(0.1)
    raise AssertionError("the proxy did not come up")


PROXY = """
import sys, warnings
from optuna.storages import JournalStorage, run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend

warnings.simplefilter("ignore")
storage = JournalStorage(JournalFileBackend(sys.argv[1]))
run_grpc_proxy_server(storage, host="127.0.0.1", port=int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("studies.txt", "`studies.txt` is no storage of studies"),
        ("/no/such/folder/a.log", "cannot be opened (No such file or directory)"),
        ("sqlite:////no/such/folder/a.db", "unable to open database file"),
        ("postgresql://me:secret@127.0.0.1:1/x", "`postgresql://***@127.0.0.1:1/x` cannot be"),
        ("bogus://somewhere", "`bogus://somewhere` cannot be opened"),
        ("grpc://127.0.0.1:1", "`grpc://127.0.0.1:1` cannot be reached"),
        ("grpc://127.0.0.1", "is no address of a proxy"),
    ],
)
def test_a_storage_that_cannot_be_had_is_named_in_one_sentence(tmp_path, address, sentence):
    with pytest.raises(InputError) as caught, opened(tmp_path, storage=address):
        pass
    text = str(caught.value)
    assert sentence in text
    assert "secret" not in text
    assert len(text.splitlines()) == 1
    assert "write a file `NAME.log`" in text


def test_a_file_that_is_no_journal_is_named(tmp_path):
    (tmp_path / "other.log").write_text("hello\n")
    with (
        pytest.raises(InputError, match="is no journal of Optuna's"),
        opened(tmp_path, storage=str(tmp_path / "other.log")),
    ):
        pass


def test_optunas_dashboard_opens_a_study(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    with opened(tmp_path) as study:
        work(study)
        app = dashboard.wsgi(study.study._storage)
        found = {}
        for path in ("/api/studies", "/api/studies/0"):
            request = {"PATH_INFO": path, "HTTP_HOST": "localhost"}
            setup_testing_defaults(request)
            body = b"".join(app(request, lambda status, *_: found.update(status=status)))
            assert found["status"] == "200 OK"
            found[path] = json.loads(body)
    (summary,) = found["/api/studies"]["study_summaries"]
    assert summary["study_name"] == "one"
    assert len(found["/api/studies/0"]["trials"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "why_not"), [(Postgres, why_no_postgres), (MariaDb, why_no_mariadb)]
)
def test_processes_share_a_study_in_a_database(tmp_path, database, why_not):
    if reason := why_not():
        pytest.skip(reason)
    server = database()
    try:
        server.start()
        with (
            opened(tmp_path / "a", storage=server.uri) as one,
            opened(tmp_path / "b", storage=server.uri) as two,
        ):
            drawn = [*work(one, 2), *work(two)]
            assert len(drawn) == 5
            assert len({tuple(params.items()) for params in drawn}) == 5
            assert [p.number for p in one.points()] == [0, 1, 2, 3, 4]
            server.stop()
            with pytest.raises(StoreError, match=r"fails .* the same command continues"):
                one.ask()
    finally:
        server.remove()
