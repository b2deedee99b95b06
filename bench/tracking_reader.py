"""Reads a sweep back from MLflow: the records that the leaderboard is built from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from .attack_record import AttackRecord, read_attacks
from .bank_record import BankRecord
from .errors import InputError
from .record import Record, latest_by_key
from .sweep_records import SweepRecords
from .tracking_client import client_defaults, connect, quiet_client, reason_of
from .tracking_layout import ENDED
from .tracking_uri import redact

_log = logging.getLogger(__name__)

LEADERBOARD = "leaderboard"
ATTACKS = f"{LEADERBOARD}/attacks.jsonl"
CONNECTIONS = 8  # a server takes some milliseconds for every record

Model = TypeVar("Model", bound=BaseModel)


class Fetched(NamedTuple):
    """What an experiment holds of its sweep.

    Attributes:
        found: The records.
        spec: The sweep as it was last asked for; None where it was logged by an older version.
    """

    found: SweepRecords
    spec: dict[str, Any] | None


def fetch_sweep(uri: str, experiment: str) -> Fetched:
    """Fetch the records of a sweep's cells, shadow banks and attacks, in the order of its tables.

    Cells that have left the sweep are left out. Where the runs of several stores are in one
    experiment, that of the latest sweep counts for a cell that they share.

    Args:
        uri: Tracking URI.
        experiment: Name of the experiment, which is that of the sweep.

    Raises:
        InputError: If nothing answers at the URI, there is no such experiment, or what it holds
            are no records.
    """
    with client_defaults(), quiet_client():
        client = connect(uri)
        try:
            return _fetch(client, _find(client, uri, experiment), uri, experiment)
        except InputError:
            raise
        except Exception as error:  # whatever MLflow or the network raise
            raise InputError(
                f"the experiment `{experiment}` could not be read from `{redact(uri)}` "
                f"({reason_of(error, uri)[:160].rstrip('. )(')})."
            ) from None


def _find(client: Any, uri: str, name: str) -> str:  # noqa: ANN401 - MLflow has no types
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "active":
        return str(found.experiment_id)
    known = [experiment.name for experiment in client.search_experiments(max_results=1000)]
    like = get_close_matches(name, known, n=1)
    hint = f"did you mean `{like[0]}`? " if like else ""
    raise InputError(
        f"there is no experiment `{name}` at `{redact(uri)}`; {hint}it has: "
        f"{', '.join(sorted(known)) or 'none'}."
    )


def _fetch(
    client: Any,  # noqa: ANN401
    experiment_id: str,
    uri: str,
    experiment: str,
) -> Fetched:
    parents = sorted(_search(client, experiment_id, "sweep"), key=lambda run: run.info.start_time)
    runs = {kind: _search(client, experiment_id, kind) for kind in ("cell", "bank")}
    records: list[Record] = []
    banks: dict[str, BankRecord] = {}
    attacks: dict[str, AttackRecord] = {}
    spec: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        files = _Files(client, Path(folder))
        for parent in parents:
            plan, spec = files.described(parent, "plan"), files.described(parent, "spec") or spec
            cells = files.read(_ordered(runs["cell"], parent, plan.get("cells")), Record)
            if (planned := len(plan.get("cells", []))) > len({cell.key for cell in cells}):
                _log.warning(
                    "MLflow holds %d of the %d cells of the sweep; `unlearnbench sync` adds those "
                    "that have ended.", len({cell.key for cell in cells}), planned,
                )  # fmt: skip
            records += cells
            found = files.read(_ordered(runs["bank"], parent, plan.get("banks")), BankRecord)
            banks |= {bank.bank: bank for bank in found}
            attacks |= {attack.key: attack for attack in files.attacks(parent)}
    if not records:
        raise InputError(
            f"the experiment `{experiment}` at `{redact(uri)}` holds no cells of a sweep; "
            "`unlearnbench run` or `unlearnbench sync` logs them."
        )
    records = latest_by_key(records)
    scored = dict.fromkeys(record.attack.get("scores") for record in records)
    paired = [attacks[key] for key in scored if key in attacks]
    return Fetched(SweepRecords(records, list(banks.values()), paired), spec or None)


def _ordered(runs: Iterable[Any], parent: Any, plan: list[Any] | None) -> list[Any]:  # noqa: ANN401
    """The runs of a sweep that are in its plan, in that order; all of them where it has none."""
    mine = [
        run
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        and run.info.status in ENDED
    ]
    if plan is None:
        return sorted(mine, key=lambda run: run.info.end_time)
    keys = [entry["key"] if isinstance(entry, dict) else entry for entry in plan]
    places = {key: place for place, key in enumerate(keys)}
    planned = [run for run in mine if run.data.tags.get("unlearnbench.key") in places]
    # of two runs of a cell, which a writer that was killed leaves, the later comes last and stays
    return sorted(
        planned, key=lambda run: (places[run.data.tags["unlearnbench.key"]], run.info.end_time)
    )


def _search(client: Any, experiment_id: str, kind: str) -> list[Any]:  # noqa: ANN401
    wanted = f"tags.`unlearnbench.kind` = '{kind}'"
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], wanted, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


class _Files:
    """JSON artifacts of runs, downloaded into a folder; nothing else is ever loaded."""

    def __init__(self, client: Any, folder: Path) -> None:  # noqa: ANN401
        self._client, self._folder = client, folder

    def described(self, parent: Any, name: str) -> dict[str, Any]:  # noqa: ANN401
        """What the sweep is, see `sweep_files`; empty where it was logged by an older version."""
        names = {info.path for info in self._client.list_artifacts(parent.info.run_id)}
        if f"{name}.json" not in names:
            return {}
        found = json.loads(self._download(parent.info.run_id, f"{name}.json"))
        return found if isinstance(found, dict) else {}

    def attacks(self, parent: Any) -> list[AttackRecord]:  # noqa: ANN401
        """What the attacks of a sweep found pair by pair; logged when it ended."""
        run_id = parent.info.run_id
        if ATTACKS not in {info.path for info in self._client.list_artifacts(run_id, LEADERBOARD)}:
            return []
        return read_attacks(self._file(run_id, ATTACKS))

    def read(self, runs: Iterable[Any], kind: type[Model]) -> list[Model]:
        """The records of some runs, in order."""
        name = "record.json" if kind is Record else "bank.json"

        def one(run: Any) -> Model:  # noqa: ANN401
            try:
                return kind.model_validate_json(self._download(run.info.run_id, name))
            except ValidationError as error:
                first = error.errors()[0]
                raise InputError(
                    f"`{name}` of the run `{run.info.run_id}` is not valid: "
                    f"{'.'.join(map(str, first['loc']))}: {first['msg'].rstrip('.')}."
                ) from None

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(one, runs))

    def _download(self, run_id: str, name: str) -> str:
        return self._file(run_id, name).read_text(encoding="utf-8")

    def _file(self, run_id: str, name: str) -> Path:
        folder = self._folder / run_id
        folder.mkdir(exist_ok=True)
        return Path(self._client.download_artifacts(run_id, name, str(folder)))
