"""`unlearnbench sync` and `leaderboard --from-mlflow`, over databases on disk.

What they do with a real server is in `test_tracking_server.py`.
"""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unlearnbench.bench import load_model, read_records
from unlearnbench.bench.errors import DataError, InputError
from unlearnbench.bench.keys import digest_file
from unlearnbench.bench.model_card import model_card
from unlearnbench.bench.record import write_records
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.store import Store
from unlearnbench.bench.sweep_files import read_description
from unlearnbench.bench.tracking import Tracker
from unlearnbench.bench.tracking_layout import ChildRun

from .commands import TOY, call
from .toys import same_tensors, toy_options, toy_spec

DEAD = "http://127.0.0.1:9"  # the discard port: nothing listens
ALLOWED = "`sqlite:///folder/mlflow.db`, the `http://` or `https://` address"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two tables and an attack, run to its end in a folder."""
    folder = tmp_path_factory.mktemp("swept")
    spec = toy_spec(
        scenarios=["class[classes=[0]]", "random[fraction=0.2]"],
        methods=["finetune", "head-mask"],
        seeds=2,
        ulira={"shadows": 6, "redraws": 20},
    )
    out = folder / "results" / "toy"
    run_sweep(spec, toy_options(folder, out=out, store=folder / ".unlearnbench"))
    return folder


@pytest.fixture
def here(swept, tmp_path, monkeypatch):
    """A copy of the swept folder to spoil, which is the current one."""
    folder = tmp_path / "copy"
    shutil.copytree(swept, folder)
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "UNLEARNBENCH_STORE"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    # MLflow knows its files by absolute paths: those of the copy's runs are the first folder's
    artifacts = Path(".unlearnbench", "mlartifacts", "toy")
    shutil.rmtree(swept / artifacts)
    shutil.copytree(folder / artifacts, swept / artifacts)


def test_a_sweep_leaves_spec_plan_and_environment(swept):
    out = swept / "results" / "toy"
    described = read_description(out)
    assert list(described) == ["spec", "plan", "environment"]
    assert described["spec"]["methods"] == ["finetune", "head-mask"]
    assert described["spec"]["validation_fraction"] == 0.1  # defaults are in it
    records = read_records(out)
    assert [cell["key"] for cell in described["plan"]["cells"]] == [r.key for r in records]
    assert [cell["seed"] for cell in described["plan"]["cells"]] == [r.seed for r in records]
    skipped = [cell["skip"] for cell in described["plan"]["cells"] if "skip" in cell]
    assert ["; ".join(s) for s in skipped] == [r.reason for r in records if r.status == "skipped"]
    assert described["environment"]["hardware"] == records[0].environment["hardware"]


def test_the_same_tables_come_from_mlflow_as_from_the_records(here):
    plain = call("leaderboard", "results/toy")
    fetched = call("leaderboard", "--from-mlflow", "sqlite:///.unlearnbench/mlflow.db",
                   "--experiment", "toy")  # fmt: skip
    assert fetched.exit_code == 0, fetched.stderr
    there = here / "results" / "from-mlflow" / "toy"
    assert fetched.stdout.replace(str(there.relative_to(here)), "results/toy") == plain.stdout
    for path in (here / "results" / "toy").rglob("*"):
        if path.suffix in (".jsonl", ".md", ".csv", ".html", ".svg"):
            copy = there / path.relative_to(here / "results" / "toy")
            assert copy.read_bytes() == path.read_bytes(), path.name


def test_cells_that_left_the_sweep_are_not_in_its_tables(here):
    out = here / "results" / "toy"
    spec = toy_spec(methods=["finetune"], seeds=1)
    run_sweep(spec, toy_options(here, out=out, store=here / ".unlearnbench"))
    fetched = call("leaderboard", "there", "--from-mlflow", "sqlite:///.unlearnbench/mlflow.db",
                   "--experiment", "toy")  # fmt: skip
    assert fetched.exit_code == 0, fetched.stderr
    assert read_records(here / "there") == read_records(out)


def test_sync_into_an_empty_database_writes_every_run_and_then_none(here):
    first = call("sync", "toy", "--tracking-uri", "sqlite:///other.db")
    assert first.exit_code == 0, first.stderr
    assert "toy: MLflow holds 16 cells and 1 shadow banks; 17 runs written." in first.stdout
    again = call("sync", "results/toy", "--tracking-uri", "sqlite:///other.db")
    assert "nothing to do" in again.stdout
    (here / ".unlearnbench" / "tracking").rename(here / "forgotten")
    assert "nothing to do" in call("sync", "toy", "--tracking-uri", "sqlite:///other.db").stdout
    fetched = call("leaderboard", "there", "--from-mlflow", "sqlite:///other.db",
                   "--experiment", "toy")  # fmt: skip
    assert fetched.exit_code == 0
    assert read_records(here / "there") == read_records(here / "results" / "toy")
    path = next((here / "mlartifacts").rglob("record.json"))
    path.write_text(path.read_text().replace('"status": ', '"state": '))
    line = refusal(*FROM, "sqlite:///other.db")
    assert "`record.json` of the run `" in line
    assert "is not valid: status: Field required" in line


def test_models_are_logged_on_request_and_what_is_missing_is_said(here, caplog):
    records = [r for r in read_records(here / "results" / "toy") if r.status == "ok"]
    Store(here / ".unlearnbench").drop("cell", records[0].key)
    options = ["--log-models", "--tracking-uri", "sqlite:///other.db"]
    assert call("sync", "toy", *options).exit_code == 1
    assert "lacks 1 of the runs, score files or models" in caplog.text
    assert "is not in the store, run the sweep again with `--log-models`" in caplog.text
    logged = list((here / "mlartifacts").rglob("model/model.safetensors"))
    assert len(logged) == len(records) - 1


def test_run_keeps_and_logs_the_models_when_asked(here):
    (here / "toy.toml").write_text("save_models = false\n" + TOY)
    done = call("run", "toy.toml", "--name", "asked", "--workers", 0, "--log-models")
    assert done.exit_code == 0, done.stderr
    asked = here / ".unlearnbench" / "mlartifacts" / "asked"
    assert len(list(asked.rglob("model/model.json"))) == 2  # of `identity` and `retrain`
    assert not list((here / ".unlearnbench" / "mlartifacts" / "toy").rglob("model/*"))


def test_a_card_and_its_weights_are_the_unlearned_model(here, tmp_path):
    record = next(r for r in read_records(here / "results" / "toy") if r.method == "finetune")
    store = Store(here / ".unlearnbench")
    cell, images = store.get("cell", record.key), store.get("data", record.data_digest)
    weights = cell.file("tensors.safetensors")
    card = model_card(record, images.meta, cell.files[weights.name])
    shutil.copy(weights, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(card))
    model = load_model(tmp_path)
    assert not model.training
    assert all(torch.equal(model.state_dict()[name], t) for name, t in cell.tensors().items())
    assert same_tensors(load_model(str(tmp_path)), model)
    assert model(torch.zeros(2, *card["input"]["size"])).shape == (2, len(card["classes"]))
    assert card["unlearned"]["hyperparameters"] == record.hyperparameters
    (tmp_path / "model.safetensors").write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="is damaged"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(InputError, match="does not describe an unlearned model"):
        load_model(tmp_path)
    with pytest.raises(DataError, match=r"`model.json` is missing"):
        load_model(tmp_path / "nowhere")


def test_a_card_of_a_model_that_started_from_weights_says_which_stem_they_decided(here):
    record = next(r for r in read_records(here / "results" / "toy") if r.status == "ok")
    changed = record.model_copy(update={"model": "resnet18[weights=mine.safetensors]"})
    images = {"class_names": ["a"], "mean": [0.5], "std": [0.5]}
    about = model_card(changed, images, "")["architecture"]
    assert about == {"name": "resnet18", "kwargs": {}, "stem": record.model_info["stem"]}


def test_a_trial_is_a_child_of_the_sweep(here):
    from mlflow import MlflowClient

    uri = "sqlite:///.unlearnbench/mlflow.db"

    def log():
        tracker = Tracker(uri, here / ".unlearnbench", "toy")
        tracker.start({})
        tracker.log_child(
            ChildRun(
                kind="trial", key="7", digest="d1", name="trial 7", status="FINISHED", seconds=2.0,
                params={"lr": "0.1"}, metrics={"objective": 0.5}, tags={"method": "scrub"},
                file="trial.json", text="{}", curves={"objective": [0.25, 0.5]},
            )
        )  # fmt: skip
        assert tracker.finish([], {})
        return tracker.made

    assert [log(), log()] == [1, 0]
    client = MlflowClient(uri)
    found = client.search_runs(
        [client.get_experiment_by_name("toy").experiment_id], "tags.`unlearnbench.kind` = 'trial'"
    )
    (trial,) = found
    assert trial.data.params == {"lr": "0.1"}
    assert trial.info.end_time - trial.info.start_time == 2000
    history = client.get_metric_history(trial.info.run_id, "objective")
    assert sorted((m.step, m.value) for m in history) == [(0, 0.5), (1, 0.25), (2, 0.5)]


# --- bad input ---------------------------------------------------------------------------------


def refusal(*args):
    """The one sentence with which a command refuses."""
    done = call(*args)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


FROM = ("leaderboard", "--experiment", "toy", "--from-mlflow")


@pytest.mark.parametrize("command", [FROM, ("sync", "toy", "--tracking-uri")], ids=["from", "sync"])
def test_a_server_that_is_down_is_named_with_what_is_allowed(here, command):
    line = refusal(*command, DEAD.replace("://", "://ann:s3cr3t@"))
    assert "`http://***@127.0.0.1:9`" in line
    assert "refused" in line
    assert ALLOWED in line
    assert "s3cr3t" not in line


@pytest.mark.parametrize("command", [FROM, ("sync", "toy", "--tracking-uri")], ids=["from", "sync"])
def test_a_server_that_never_answers_is_given_up(here, command, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = refusal(*command, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "timed out" in line.lower() or "timeout" in line.lower()


@pytest.mark.parametrize("command", [FROM, ("sync", "toy", "--tracking-uri")], ids=["from", "sync"])
@pytest.mark.parametrize("uri", ["mlruns", "http://", "sqlite:///:memory:"])
def test_a_uri_that_is_not_allowed_is_refused(here, command, uri):
    assert f"tracking URI `{uri}`" in refusal(*command, uri)


def test_a_file_that_is_no_database_is_refused(here):
    (here / "notes.txt").write_text("not a database at all" * 99)
    for command in (FROM, ("sync", "toy", "--tracking-uri")):
        assert "notes.txt" in refusal(*command, "sqlite:///notes.txt")


def test_a_database_that_is_not_there_is_not_made_by_reading(here):
    line = refusal(*FROM, "sqlite:///nowhere.db")
    assert "there is no database" in line
    assert ALLOWED in line
    assert not (here / "nowhere.db").exists()


def test_an_unknown_experiment_is_named_with_those_that_there_are(here):
    line = refusal("leaderboard", "--from-mlflow", "sqlite:///.unlearnbench/mlflow.db",
                   "--experiment", "toi")  # fmt: skip
    assert "no experiment `toi`" in line
    assert "did you mean `toy`?" in line
    assert "Default, toy" in line


@pytest.mark.parametrize("given", [["--experiment", "toy"], ["--from-mlflow", DEAD]])
def test_the_two_options_belong_together(here, given):
    assert "belong together" in refusal("leaderboard", *given)


def test_records_that_are_not_there_are_named_with_those_that_are(here):
    line = refusal("sync", "nope")
    assert "no records in `nope`" in line
    assert line.endswith("toy.")
    shutil.rmtree(here / "results")
    assert "run one first" in refusal("sync")


def test_records_of_two_sweeps_are_no_experiment(here):
    out = here / "results" / "toy"
    first, *others = read_records(out)
    write_records(out / "records.jsonl", [first.model_copy(update={"sweep": "mine"}), *others])
    assert "2 sweeps (mine, toy)" in refusal("sync", "toy")


def test_damaged_files_beside_the_records_are_named(here):
    (here / "results" / "toy" / "plan.json").write_text("[")
    assert "plan.json` is not a JSON object" in refusal("sync", "toy")


def test_run_mends_damaged_files_beside_the_records(here):
    for name in ("plan", "spec", "environment"):
        (here / "results" / "toy" / f"{name}.json").write_text("[")
    (here / "toy.toml").write_text(TOY)
    done = call("run", "toy.toml", "--workers", 0, "--name", "mended", "--out", "results/toy")
    assert done.exit_code == 0, done.stderr
    assert read_description(here / "results" / "toy")["environment"]["hardware"]


def test_models_that_were_not_kept_are_made_again_when_they_are_to_be_logged(here, caplog):
    (here / "toy.toml").write_text(
        "save_models = false\n" + TOY.replace("epochs = 2", "epochs = 1")
    )
    assert call("run", "toy.toml", "--name", "bare", "--workers", 0).exit_code == 0
    done = call("run", "toy.toml", "--name", "bare", "--workers", 0, "--log-models")
    assert done.exit_code == 0, done.stderr
    assert " 2 jobs in " in done.stdout
    assert "not complete" not in done.stderr + caplog.text
    folder = here / ".unlearnbench" / "mlartifacts" / "bare"
    assert len(list(folder.rglob("model/model.json"))) == 2


def test_records_that_mlflow_lacks_are_not_overwritten(here):
    folder = here / "results" / "toy"
    records = read_records(folder)
    stranger = records[0].model_copy(update={"key": "f" * 32})
    write_records(folder / "records.jsonl", [*records, stranger])
    before = (folder / "records.jsonl").read_bytes()
    line = refusal("leaderboard", "results/toy", "--from-mlflow",
                   "sqlite:///.unlearnbench/mlflow.db", "--experiment", "toy")  # fmt: skip
    assert "holds records of 1 cells that are not at" in line
    assert (folder / "records.jsonl").read_bytes() == before


def test_cells_that_mlflow_lacks_are_told(here, caplog):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{here}/.unlearnbench/mlflow.db")
    experiment = client.get_experiment_by_name("toy").experiment_id
    runs = client.search_runs([experiment], "tags.`unlearnbench.kind` = 'cell'")
    client.delete_run(runs[0].info.run_id)
    done = call("leaderboard", "--from-mlflow", "sqlite:///.unlearnbench/mlflow.db",
                "--experiment", "toy")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert f"MLflow holds {len(runs) - 1} of the {len(runs)} cells" in caplog.text


def test_reading_makes_no_tables_in_a_database_of_something_else(here):
    with sqlite3.connect(here / "study.db") as database:
        database.execute("CREATE TABLE studies (id INTEGER)")
    for command in (FROM, ("sync", "toy", "--tracking-uri")):
        assert "is not one of MLflow's" in refusal(*command, "sqlite:///study.db")
    with sqlite3.connect(here / "study.db") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("studies",)]


def test_weights_of_another_network_are_refused_with_a_sentence(here, tmp_path):
    record = next(r for r in read_records(here / "results" / "toy") if r.method == "finetune")
    store = Store(here / ".unlearnbench", create=False)
    images = store.get("data", record.data_digest)
    save_file({"inner.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    card = model_card(record, images.meta, digest_file(tmp_path / "model.safetensors"))
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="the method has changed the network itself"):
        load_model(tmp_path)


@pytest.mark.parametrize("uri", ["sqlite:///m.db?timeout=20", "http://ann:numpy@127.0.0.1:9"])
def test_secrets_are_taken_from_texts_and_from_nothing_else(here, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "1")
    (here / "toy.toml").write_text(TOY)
    done = call("run", "toy.toml", "--name", "hidden", "--workers", 0, "--tracking-uri", uri)
    assert done.exit_code == 0, done.stderr
    described = read_description(here / "results" / "hidden")
    records = read_records(here / "results" / "hidden")
    assert [cell["key"] for cell in described["plan"]["cells"]] == [r.key for r in records]
    assert {"numpy", "torch", "device"} <= described["environment"].keys()
    assert described["spec"]["training"]["epochs"] == 2
