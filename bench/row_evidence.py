"""What a row of the leaderboard rests on: its seeds, curves, settings, machine and sweep file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .attack_rows import ACC, plain_rows
from .cell_frame import cell_frame, labels_of
from .class_breakdown import class_breakdowns
from .errors import InputError
from .leaderboard import Leaderboard, Table
from .record import Record, latest_by_key
from .reproduce import command, reproduce
from .shared_values import SharedValues, rounded
from .table_rows import shown_name

SHORT_KEY = 12
CURVE_POINTS = 60
SEED_NUMBERS = (
    "forget_acc",
    "gap_forget_acc",
    "retain_acc",
    "test_acc",
    "gap_test_acc",
    "unlearn_s",
    "speedup",
)
VOID = {
    "suspected": "It does not count: the method may have seen what it must not see.",
    "biased": "It does not count: the retrained model lies far outside its null band.",
}
CLASS_NUMBERS = ("forget_acc", "gap_forget_acc", "test_acc", "gap_test_acc", ACC)


class Evidence:
    """Makes the evidence of rows, and keeps what many rows name.

    Args:
        board: The tables.
        records: What they were made from; without them rows have only their attack.
        shared: Where values are put that many rows name.
        spec: The sweep as it was asked for, `spec.json` beside the records, where it is known.

    Attributes:
        attacks: Of each attack that a row names: `fpr` (a shared list) and `tpr` of its ROC, and
            the ids of the most exposed examples with how often the attack is right on them.
        classes: For each dataset and model with several single-class tasks, `rows`: for `recipe`
            and `method`, a tab between, lines of a class and its `CLASS_NUMBERS`, then their mean,
            and of each the worst with its class.
    """

    def __init__(
        self,
        board: Leaderboard,
        records: Sequence[Record],
        shared: SharedValues,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        self._board, self._shared, self._spec = board, shared, spec
        self._by_task: dict[tuple[str, str, str], list[Record]] = {}
        records = latest_by_key(records)
        self._labels = labels_of(records)
        for record in records:
            task = (record.dataset, record.model, record.scenario)
            self._by_task.setdefault(task, []).append(record)
        self._attack_places: dict[str, int] = {}
        self.attacks: list[dict[str, Any]] = []
        self.classes = class_tables(board)

    def of_table(self, table: Table) -> list[dict[str, Any] | None]:
        """The evidence of every row of a table, in order; None where there is none."""
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        if of_task := self._by_task.get((table.dataset, table.model, table.scenario)):
            for cell in plain_rows(cell_frame(of_task, self._labels)):
                shown = shown_name(cell["name"], cell["label"])
                groups.setdefault((cell["recipe"], shown), []).append(cell)
        return [
            self._of_row(row, groups.get((row["recipe"], row["method"]), []))
            for row in plain_rows(table.rows)
        ]

    def _of_row(
        self, row: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any] | None:
        if row["kind"] == "noise floor" or not cells:
            return None
        cells = sorted(cells, key=lambda cell: cell["seed"])
        records: list[Record] = [cell["record"] for cell in cells]
        place = self._shared.place
        found: dict[str, Any] = {
            "seeds": [self._seed(cell) for cell in cells],
            "facts": [place(about) for about in dict.fromkeys(_facts(r) for r in records)],
        }
        found |= {"settings": place(_settings(max(records, key=_told)))}
        machines = dict.fromkeys(place(record.environment) for record in records)
        found["machines"] = list(machines)
        if tuning := next((record.tuning for record in records if record.tuning), None):
            found["tuning"] = place(tuning)
        curves = [[r.seed, *_curve(r.course)] for r in records if r.course.get("loss")]
        if curves:
            found["curves"] = curves
        if (attack := self._attack(row, records)) is not None:
            found["attack"] = attack
            if void := VOID.get(str(row.get("attack_validity"))):
                found["void"] = void
        try:
            found["sweep"] = place(reproduce(records, self._spec))
            found["command"] = place(command(records[0]))
        except InputError as error:
            found["no_sweep"] = place(str(error))
        return found

    def _seed(self, cell: Mapping[str, Any]) -> list[Any]:
        record: Record = cell["record"]
        values = record.metrics | record.times
        if record.method == "identity":  # it did no work
            values.pop("speedup", None)
        numbers = [rounded(values.get(name), 4) for name in SEED_NUMBERS]
        reason = self._shared.place(cell["reason"]) if cell["reason"] else None
        return [record.seed, record.status, record.key[:SHORT_KEY], reason, *numbers]

    def _attack(self, row: Mapping[str, Any], records: Sequence[Record]) -> int | None:
        """The place of the attack of a row, which is taken up on first use."""
        key = row.get("attack_scores")
        attack = self._board.attacks.get(str(key)) if key else None
        if attack is None:
            return None
        if attack.key not in self._attack_places:
            self._attack_places[attack.key] = len(self.attacks)
            fpr, tpr = ([rounded(rate, 4) for rate in attack.roc[n]] for n in ("fpr", "tpr"))
            exposed = [[example, rounded(share, 3)] for example, share in attack.most_exposed]
            self.attacks.append({"fpr": self._shared.place(fpr), "tpr": tpr, "exposed": exposed})
        return self._attack_places[attack.key]


def class_tables(board: Leaderboard) -> list[dict[str, Any]]:
    """Numbers by class, where several tasks forget one class each of one dataset and model."""
    found = []
    for breakdown in class_breakdowns(board):
        rows: dict[str, list[list[Any]]] = {}
        for row in plain_rows(breakdown.rows):
            line = [row["class"], *(rounded(row[name], 4) for name in CLASS_NUMBERS)]
            rows.setdefault(_row_name(row), []).append(line)
        for row in plain_rows(breakdown.summary):
            mean = [rounded(row[f"{name}_mean"], 4) for name in CLASS_NUMBERS]
            worst = [
                [rounded(row[f"{name}_worst"], 4), row[f"{name}_worst_class"]]
                for name in CLASS_NUMBERS
            ]
            rows[_row_name(row)] += [["mean", *mean], ["worst", *worst]]
        found.append({"dataset": breakdown.dataset, "model": breakdown.model, "rows": rows})
    return found


def _row_name(row: Mapping[str, Any]) -> str:
    return f"{row['recipe']}\t{row['method']}"


def _facts(record: Record) -> str:
    """The forget request of a record in words."""
    return (
        f"Forget request {record.forget_request[:SHORT_KEY]}: {record.forget_size:,} examples to "
        f"forget, {record.retain_size:,} to keep"
    )


def _settings(record: Record) -> dict[str, Any]:
    """Settings of a record that its seeds share; empty ones are left out."""
    found = {
        "hyper-parameters": record.hyperparameters,
        "training of the original": record.training,
        "model": record.model_info,
        "examples served": record.samples,
        "reported by the method": record.method_info,
        "attack": {k: v for k, v in record.attack.items() if k not in ("bank", "scores")},
        "probes": record.probe,
    }
    return {name: values for name, values in found.items() if values}


def _told(record: Record) -> int:
    """How much a record tells; one that failed early tells less."""
    return sum(map(len, _settings(record).values()))


def _curve(course: Mapping[str, Sequence[float]]) -> tuple[list[Any], list[Any], list[Any]]:
    """Epochs, loss and forget accuracy, evenly thinned where there are many epochs."""
    epochs = len(course["loss"])
    step = -(-epochs // CURVE_POINTS)
    kept = [i for i in range(epochs) if (epochs - 1 - i) % step == 0]
    forget = course.get("forget_acc", [])
    return (
        [i + 1 for i in kept],
        [rounded(course["loss"][i], 4) for i in kept],
        [rounded(forget[i], 4) for i in kept] if forget else [],
    )
