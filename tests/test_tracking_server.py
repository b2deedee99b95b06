"""A sweep with parallel workers, logged to a real server that goes down in the middle."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from unlearnbench.bench import load_model, read_records
from unlearnbench.bench.bank_record import read_banks
from unlearnbench.bench.record import Record
from unlearnbench.bench.store import Store
from unlearnbench.bench.sweep_files import LEADERBOARD_FILES

from .commands import NARROW as MODEL
from .commands import TINY, call, shell, start
from .mlflow_server import Postgres, Server, locked_door, why_no_postgres

pytestmark = pytest.mark.slow

# the first of `gated` waits for the file `go`, so that some cells are logged after the server went
# down; those of `osp`, which declines, are logged before, and others may be
GATED = '''
import time
from pathlib import Path
from unlearnbench.bench import Unlearner

class Gated(Unlearner):
    """Change nothing; the first call waits for a file."""
    name = "gated"
    reference = "test"

    def unlearn(self, model, task):
        try:
            Path("first").touch(exist_ok=False)
        except FileExistsError:
            return model
        for _ in range(3000):
            if Path("go").exists():
                break
            time.sleep(0.1)
        return model
'''
SWEEP = f"""
name = "toy"
datasets = ["{TINY}"]
models = ["{MODEL}"]
scenarios = ["random[fraction=0.2]"]
methods = ["osp", "gated"]
seeds = 2
plugins = ["gated.py"]

[training]
epochs = 2
batch_size = 32
lr = 0.05
"""
ATTACK = """
[ulira]
shadows = 6
"""


def sweep_that_loses_its_server(folder, server, stop, *, attacked):
    """Run a sweep and stop what it logs to once some of its cells, but not all, are there."""
    (folder / "gated.py").write_text(GATED)
    (folder / "toy.toml").write_text(SWEEP + (ATTACK if attacked else ""))
    arguments = ["run", "toy.toml", "--workers", 2, "--tracking-uri", server.uri]
    process = start(*arguments, cwd=folder)
    try:
        deadline = time.monotonic() + 240
        while len(runs_of(server.uri)) < 2 and process.poll() is None:
            if time.monotonic() > deadline:
                pytest.fail("no cell is in MLflow yet")
            time.sleep(0.3)
        assert process.poll() is None, process.communicate()
        stop()
        (folder / "go").touch()
        out, err = process.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    return SimpleNamespace(
        folder=folder,
        server=server,
        code=process.returncode,
        out=out,
        err=err,
        results=folder / "results" / "toy",
        store=folder / ".unlearnbench",
        records=read_records(folder / "results" / "toy"),
        synced=None,
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep whose server was killed and is up again."""
    folder = tmp_path_factory.mktemp("swept")
    server = Server(folder, f"sqlite:///{folder}/server.db")
    server.start()
    try:
        done = sweep_that_loses_its_server(folder, server, server.stop, attacked=True)
        server.start()
        done.before = runs_of(server.uri)
        done.synced = shell("sync", "toy", "--tracking-uri", server.uri, cwd=folder)
        yield done
    finally:
        server.stop()


def sync(done, *options):
    return call_in(done.folder, "sync", "toy", "--tracking-uri", done.server.uri, *options)


def call_in(folder, *args, **variables):
    """Run `unlearnbench ARGS` in a folder, in this process, where MLflow is imported already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        return call(*args)


def runs_of(uri, kind="cell"):
    """Runs of a kind that have ended."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("toy")
    if experiment is None:
        return []
    wanted = f"tags.`unlearnbench.kind` = '{kind}'"
    runs = client.search_runs([experiment.experiment_id], wanted)
    return [run for run in runs if run.info.status in ("FINISHED", "FAILED")]


def text_of(uri, run, path):
    from mlflow.artifacts import download_artifacts

    local = download_artifacts(run_id=run.info.run_id, artifact_path=path, tracking_uri=uri)
    return Path(local).read_text(encoding="utf-8")


def files_of(uri, run, folder=None):
    from mlflow import MlflowClient

    return {info.path for info in MlflowClient(uri).list_artifacts(run.info.run_id, folder)}


def check_that_mlflow_is_what_the_records_are(done):
    """Every record has exactly one run, with its figures and curves; nothing else is there."""
    from mlflow import MlflowClient

    uri = done.server.uri
    runs = {run.data.tags["unlearnbench.key"]: run for run in runs_of(uri)}
    assert len(runs) == len(runs_of(uri)) == len(done.records)
    (parent,) = runs_of(uri, "sweep")
    client = MlflowClient(uri)
    everything = client.search_runs([parent.info.experiment_id])
    assert {run.info.status for run in everything} == {"FINISHED"}
    for record in done.records:
        run = runs[record.key]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["status"] == record.status
        assert run.data.params["method"] == record.method
        assert Record.model_validate_json(text_of(uri, run, "record.json")) == record
        if record.status != "ok":
            assert run.data.tags["reason"] == record.reason
            continue
        assert run.data.tags["hardware"] == record.environment["hardware"]
        assert run.data.tags.get("git_commit") == record.environment["git_commit"]
        assert run.data.metrics["acc/retain"] == record.metrics["retain_acc"]
        assert run.data.metrics["acc/forget"] == record.metrics["forget_acc"]
        assert run.data.metrics["acc/test"] == record.metrics["test_acc"]
        assert run.data.metrics["time/unlearn_s"] == record.times["unlearn_s"]
        assert run.data.metrics["time/retrain_s"] == record.times["retrain_s"]
        assert run.data.metrics["tow/tow"] == record.metrics["tow"]
        for name, curve in record.course.items():
            history = client.get_metric_history(run.info.run_id, f"course/{name}")
            points = [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)]
            assert points == list(enumerate(curve, start=1))
    return parent, runs


def test_the_sweep_goes_on_without_its_server_and_says_so_once(swept):
    assert swept.code == 0, swept.err
    assert swept.err.count(f"MLflow at `{swept.server.uri}` is not complete (") == 1
    assert "nothing is lost" in swept.err
    assert "Traceback" not in swept.err
    told = re.search(r"`unlearnbench (sync .*?)` completes it", swept.err)[1]
    assert told == f"sync results/toy --tracking-uri {swept.server.uri}"
    statuses = [record.status for record in swept.records]
    assert (statuses.count("ok"), statuses.count("skipped"), len(statuses)) == (6, 2, 8)
    assert 2 <= len(swept.before) < 8


def test_sync_completes_mlflow_with_what_the_records_say(swept):
    assert swept.synced.returncode == 0, swept.synced.stderr
    assert "MLflow holds 8 cells and 1 shadow banks" in swept.synced.stdout
    parent, runs = check_that_mlflow_is_what_the_records_are(swept)
    (bank,) = read_banks(swept.results)
    (bank_run,) = runs_of(swept.server.uri, "bank")
    assert bank_run.data.metrics == bank.metrics
    kept = {run.info.run_id for run in swept.before} & {run.info.run_id for run in runs.values()}
    assert len(kept) == len(swept.before)  # what was complete was not logged again
    uri = swept.server.uri
    attacked = next(r for r in swept.records if r.method == "gated")
    scores = f"ulira/{attacked.attack['scores']}.safetensors"
    assert scores in files_of(uri, parent, "ulira")
    figures = {name: v for name, v in attacked.metrics.items() if name.startswith("ulira.p")}
    assert figures
    assert figures.items() <= runs[attacked.key].data.metrics.items()


def test_the_parent_run_holds_spec_plan_environment_and_leaderboard(swept):
    uri = swept.server.uri
    (parent,) = runs_of(uri, "sweep")
    for name in ("spec", "plan", "environment"):
        text = text_of(uri, parent, f"{name}.json")
        assert text == (swept.results / f"{name}.json").read_text()
    assert json.loads(text_of(uri, parent, "spec.json"))["methods"] == ["osp", "gated"]
    plan = json.loads(text_of(uri, parent, "plan.json"))
    assert [cell["key"] for cell in plan["cells"]] == [record.key for record in swept.records]
    environment = json.loads(text_of(uri, parent, "environment.json"))
    assert environment["hardware"] == swept.records[0].environment["hardware"]
    names = {*LEADERBOARD_FILES, "records.jsonl", "banks.jsonl", "attacks.jsonl"}
    assert files_of(uri, parent, "leaderboard") == {f"leaderboard/{name}" for name in names}
    assert parent.data.metrics["cells_ok"] == 6


def test_the_examples_of_a_cell_are_dataset_inputs(swept):
    from mlflow import MlflowClient

    run = runs_of(swept.server.uri)[0]
    record = next(r for r in swept.records if r.key == run.data.tags["unlearnbench.key"])
    inputs = MlflowClient(swept.server.uri).get_run(run.info.run_id).inputs.dataset_inputs
    found = {i.tags[0].value: i.dataset for i in inputs}
    assert found.keys() == {"train", "forget", "retain"}
    assert found["train"].name == record.dataset
    assert found["train"].digest == record.data_digest[:36]
    assert found["forget"].digest == record.forget_request
    assert json.loads(found["forget"].source)["scenario"] == record.scenario
    sizes = {role: json.loads(dataset.profile)["num_rows"] for role, dataset in found.items()}
    assert sizes["forget"] == record.forget_size
    assert sizes["train"] == record.forget_size + record.retain_size


def test_sync_again_doubles_nothing(swept):
    kinds = ("sweep", "cell", "bank")
    before = [{run.info.run_id for run in runs_of(swept.server.uri, kind)} for kind in kinds]
    again = sync(swept)
    assert again.exit_code == 0, again.stderr
    assert "nothing to do" in again.stdout
    after = [{run.info.run_id for run in runs_of(swept.server.uri, kind)} for kind in kinds]
    assert after == before


def test_sync_from_a_copy_of_the_results_completes_the_same_runs(swept, tmp_path, caplog):
    """On another machine, say, which can reach the server, and which has no store."""
    before = {run.info.run_id for run in runs_of(swept.server.uri)}
    options = ["--tracking-uri", swept.server.uri, "--store", "here"]
    done = call_in(tmp_path, "sync", swept.results, *options)
    assert done.exit_code == 1  # the score arrays are not here
    assert "are not in the store" in caplog.text
    assert {run.info.run_id for run in runs_of(swept.server.uri)} == before
    assert len(runs_of(swept.server.uri, "sweep")) == 1


def test_the_leaderboard_from_the_server_is_that_from_the_records(swept):
    tables = call_in(swept.folder, "leaderboard", "results/toy")
    fetched = call_in(swept.folder, "leaderboard", "fetched", "--from-mlflow", swept.server.uri,
                    "--experiment", "toy")  # fmt: skip
    assert fetched.exit_code == 0, fetched.stderr
    assert (
        fetched.stdout.replace("Leaderboard: fetched", "Leaderboard: results/toy") == tables.stdout
    )
    for name in ("records.jsonl", "banks.jsonl", "attacks.jsonl", *LEADERBOARD_FILES):
        there = (swept.folder / "fetched" / name).read_bytes()
        assert there == (swept.results / name).read_bytes(), name


def test_unlearned_models_are_logged_on_request_and_load(swept, tmp_path):
    from mlflow.artifacts import download_artifacts
    from mlflow.models import ModelSignature

    run = next(r for r in runs_of(swept.server.uri) if r.data.tags["method"] == "retrain")
    assert files_of(swept.server.uri, run) == {"record.json"}
    done = sync(swept, "--log-models")
    assert done.exit_code == 0, done.stderr
    folder = download_artifacts(
        run_id=run.info.run_id, artifact_path="model", tracking_uri=swept.server.uri,
        dst_path=str(tmp_path),
    )  # fmt: skip
    model = load_model(folder)
    stored = Store(swept.store).get("cell", run.data.tags["unlearnbench.key"]).tensors()
    assert all(torch.equal(stored[name], t) for name, t in model.state_dict().items())
    assert load_file(Path(folder, "model.safetensors")).keys() == stored.keys()
    card = json.loads(Path(folder, "model.json").read_text())
    assert model(torch.zeros(2, *card["input"]["size"])).shape == (2, len(card["classes"]))
    signature = ModelSignature.from_dict(card["signature"])
    assert signature.inputs.inputs[0].shape == (-1, *card["input"]["size"])
    assert signature.outputs.inputs[0].shape == (-1, len(card["classes"]))
    names = {path.suffix for path in Path(folder).iterdir()}
    assert names == {".safetensors", ".json"}
    before = {r.info.run_id for r in runs_of(swept.server.uri)}
    assert "nothing to do" in sync(swept, "--log-models").stdout
    assert {r.info.run_id for r in runs_of(swept.server.uri)} == before


BASIC = "Basic " + base64.b64encode(b"ann:s3cr3t").decode()


@pytest.mark.parametrize(
    ("credentials", "variables"),
    [
        (BASIC, {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "s3cr3t"}),
        ("Bearer t0k3n", {"MLFLOW_TRACKING_TOKEN": "t0k3n"}),
        (BASIC, {}),
    ],
    ids=["password", "token", "in the address"],
)
def test_credentials_of_mlflow_work_and_show_nowhere(swept, tmp_path, credentials, variables):
    with locked_door(swept.server.uri, credentials) as (door, shown):
        address = door if variables else door.replace("://", "://ann:s3cr3t@")
        options = ["--tracking-uri", address, "--store", swept.store]
        refused = call_in(tmp_path, "sync", swept.results, "--tracking-uri", door)
        assert refused.exit_code == 2
        assert "refuses the credentials" in refused.stderr
        assert "MLFLOW_TRACKING_TOKEN" in refused.stderr
        let_in = call_in(tmp_path, "sync", swept.results, *options, **variables)
        assert let_in.exit_code == 0, let_in.stderr
        assert credentials in shown
        fetched = call_in(tmp_path, "leaderboard", "there", "--from-mlflow", address,
                        "--experiment", "toy", **variables)  # fmt: skip
        assert fetched.exit_code == 0, fetched.stderr
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    written += b"".join(
        path.read_bytes()
        for place in (swept.results, swept.store / "tracking", swept.folder / "artifacts")
        for path in place.rglob("*")
        if path.is_file()
    )
    said = (refused.stdout + refused.stderr + let_in.stdout + let_in.stderr
            + fetched.stdout + fetched.stderr)  # fmt: skip
    for secret in ("s3cr3t", "t0k3n", BASIC.partition(" ")[2]):
        assert secret not in said
        assert secret.encode() not in written


def test_a_wrong_experiment_is_named_with_those_that_there_are(swept, tmp_path):
    ask = ["leaderboard", "--from-mlflow", swept.server.uri, "--experiment"]
    done = call_in(tmp_path, *ask, "toi")
    assert done.exit_code == 2
    assert "there is no experiment `toi`" in done.stderr
    assert "did you mean `toy`?" in done.stderr
    empty = call_in(tmp_path, *ask, "Default")
    assert empty.exit_code == 2
    assert "holds no cells of a sweep" in empty.stderr


@pytest.mark.skipif(why_no_postgres() is not None, reason=str(why_no_postgres()))
def test_the_same_over_postgres_whose_database_goes_down_in_the_middle(tmp_path):
    postgres = Postgres()
    server = Server(tmp_path, postgres.uri)
    try:
        postgres.start()
        server.start()
        done = sweep_that_loses_its_server(tmp_path, server, postgres.stop, attacked=False)
        assert done.code == 0, done.err
        assert done.err.count("is not complete (") == 1
        postgres.start()
        synced = sync(done)
        assert synced.exit_code == 0, synced.stderr
        check_that_mlflow_is_what_the_records_are(done)
        again = sync(done)
        assert "nothing to do" in again.stdout
        check_that_mlflow_is_what_the_records_are(done)
    finally:
        server.stop()
        postgres.remove()
