"""CSV, Parquet, LaTeX and JSON beside the page: structure, escaping, types, and what is unknown."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest

from unlearnbench.bench.attack_rows import plain_rows
from unlearnbench.bench.bold import Score, best_rows
from unlearnbench.bench.exports import csv_text, parquet_bytes
from unlearnbench.bench.latex import HEADER, escape, latex
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.leaderboard_json import (
    LeaderboardFile,
    leaderboard_json,
    leaderboard_schema,
)
from unlearnbench.bench.record import Record
from unlearnbench.bench.render import write_leaderboard

from .made_records import made_records

NASTY = r"""a_b&c%d$e#f{g}h~i^j<k>l\m"n"""


@pytest.fixture(scope="module")
def found():
    return made_records(methods=4, seeds=3, tasks=2, recipes=("plain", "orthogonal"))


@pytest.fixture(scope="module")
def board(found):
    return build(*found)


def changed(record, **changes):
    return Record.model_validate(record.model_dump(by_alias=True) | changes)


def failed(record):
    return changed(record, status="failed", reason="not <finite> & 5 % off", metrics={}, times={})


# --- Parquet and CSV ---------------------------------------------------------------------------


def test_parquet_holds_the_columns_and_types_of_the_table(board):
    read = pd.read_parquet(io.BytesIO(parquet_bytes(board)))
    pd.testing.assert_frame_equal(read, board.frame())
    assert read["n_ok"].dtype == "int64"
    assert read["peak_memory_bytes"].dtype == "Int64"
    assert read["forget_acc_mean"].dtype == "float64"


def test_parquet_and_csv_say_the_same(board):
    parquet = pd.read_parquet(io.BytesIO(parquet_bytes(board)))
    csv = pd.read_csv(io.StringIO(csv_text(board)))
    assert list(csv) == list(parquet)
    for name in csv:
        unknown = parquet[name].isna() | (parquet[name].astype("string") == "")
        assert list(csv[name].isna()) == list(unknown), name
        if pd.api.types.is_numeric_dtype(parquet[name]):
            left, right = csv[name].astype(float), parquet[name].astype("Float64").astype(float)
            pd.testing.assert_series_equal(left, right, rtol=0, atol=0, check_names=False)


def test_a_table_without_an_attack_beside_one_with_it_has_nulls(found):
    plain = made_records(methods=1, tasks=1, attacked=False).records
    plain = [changed(record, dataset="other") for record in plain]
    frame = pd.read_parquet(
        io.BytesIO(parquet_bytes(build([*found.records, *plain], found.banks, found.attacks)))
    )
    other = frame[frame["dataset"] == "other"]
    assert other["ulira.privacy/acc"].isna().all()
    assert other["attack_shadows"].isna().all()
    assert frame["attack_shadows"].dtype == "Int64"


# --- LaTeX -------------------------------------------------------------------------------------


def check_latex(text):
    """Braces and environments balance, and all rows of a tabular have as many cells."""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}&%$#_]", lambda m: "\n" if m[0] == "\\\\" else "", body)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not set(re.sub(r"\$[^$]*\$", "", bare)) & set('#_~^%<>|"')
    open_environments = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z]+\*?)\}", body):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert open_environments == []
    tables = []
    tabular = r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}(.*?)\\end\{tabular\}"
    for columns, inside in re.findall(tabular, body, flags=re.DOTALL):
        lines = [line.strip() for line in inside.strip().splitlines()]
        rules = r"\\(toprule|midrule|bottomrule|cmidrule)"
        rows = [line for line in lines if not re.match(rules, line)]
        for row in rows:
            assert row.endswith(r"\\")
            cells = re.split(r"(?<!\\)&", row.removesuffix(r"\\"))
            spans = [re.match(r"\s*\\multicolumn\{(\d+)\}", cell) for cell in cells]
            assert sum(int(span[1]) if span else 1 for span in spans) == len(columns), row
        assert [lines[0], lines[-1]] == [r"\toprule", r"\bottomrule"]
        tables.append((lines, rows))
    return tables


def test_each_task_is_a_table_whose_references_are_set_apart(board):
    text = latex(board, ["one", "two"])
    assert text.startswith(HEADER)
    assert r"\usepackage{booktabs}" in HEADER
    tables = check_latex(text)
    assert len(tables) == len(board.tables) == 2
    labels = re.findall(r"\\label\{(.+?)\}", text)
    assert labels == ["tab:unlearning-one", "tab:unlearning-two"]
    for lines, rows in tables:
        assert len(rows) == 2 + len(board.tables[0].rows)
        parts = "\n".join(lines).split(r"\midrule")
        assert "original (identity)" in parts[1]
        assert "method-00" not in parts[1]
        assert "method-00" in parts[2]
        assert "original" not in parts[2]


def test_heads_carry_units_and_accuracies_their_spread(board):
    text = latex(board, ["one", "two"])
    heads = next(line for line in text.splitlines() if "gap, pp" in line)
    assert heads.count(r"\%") == 4  # U-LIRA and its band, forget, test
    assert heads.strip().endswith(r"s & $\times$ \\")
    row = next(line for line in text.splitlines() if "method-00" in line)
    table = board.tables[0].rows
    of_method = table[table["name"] == "method-00"].iloc[0]
    mean, std = 100 * of_method["forget_acc_mean"], 100 * of_method["forget_acc_std"]
    assert rf"{mean:.1f} {{\scriptsize $\pm$ {std:.1f}}}" in row.replace(r"\textbf", "").replace(
        f"{{{mean:.1f}}}", f"{mean:.1f}"
    )


def test_one_recipe_has_no_column_of_recipes():
    board = build(*made_records(methods=2))
    assert "Recipe" not in latex(board, ["x"])
    check_latex(latex(board, ["x"]))


def test_specials_of_latex_are_escaped(found):
    records = [
        changed(record, method=NASTY if record.method == "method-00" else record.method)
        for record in made_records(methods=2, attacked=False).records
    ]
    text = latex(build(records), ["x"])
    check_latex(text)
    assert escape(NASTY) in text
    assert NASTY not in text


def test_every_special_character_stands_for_itself():
    for character in "&%$#_{}":
        assert escape(character) == "\\" + character
    for character in "\\~^<>|`":
        assert re.fullmatch(r"\\text[a-z]+\{\}", escape(character))
    assert escape("\\\\[2pt]") == r"\textbackslash{}\textbackslash{}{[}2pt{]}"
    assert escape("a\nb\x00c") == "a b c"
    assert escape("ß µ") == "ß µ"


def test_figures_that_do_not_count_are_marked_and_explained():
    found = made_records(methods=2)
    records = [
        changed(r, attack=r.attack | {"suspicion": "looked at the controls"})
        if r.method == "method-01"
        else r
        for r in found.records
    ]
    text = latex(build(records, found.banks, found.attacks), ["x"])
    check_latex(text)
    row = next(line for line in text.splitlines() if line.strip().startswith("method-01"))
    assert re.search(r"\(\d.*\)\$\^\{\\times\}\$", row)
    assert r"$^{\times}$: the figure does not count" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_it_compiles(found, tmp_path):
    write_leaderboard(found.records, tmp_path, found.banks, found.attacks, figures="none")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n"
        "\\begin{document}\n\\input{leaderboard.tex}\n\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


# --- bold --------------------------------------------------------------------------------------


def lines(*pairs, **more):
    """Rows with a gap and its spread over four seeds, so that the error is half of the spread."""
    return [
        {"kind": "method", "gate": "pass", "n_ok": 4, "gap": gap, "gap_std": spread} | more
        for gap, spread in pairs
    ]


GAP = Score("gap", "gap_std")


@pytest.mark.parametrize(
    ("pairs", "best"),
    [
        ([(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)], {0}),
        ([(2.0, 0.1), (1.0, 0.1), (1.05, 0.1)], {1, 2}),
        # the second is tied with the first and with the third, which is not tied with the first
        ([(1.0, 1.0), (2.0, 1.0), (3.0, 1.0)], {0}),
        ([(1.0, 1.0), (1.1, 1.0)], set()),  # all are tied
        ([(1.0, 0.1)], set()),  # nobody to be better than
        ([(1.0, 0.1), (2.0, math.nan)], set()),  # one seed: the error is not known
        ([(0.0, 0.0), (0.0, 0.0), (0.5, 0.0)], {0, 1}),
    ],
)
def test_bold_are_the_best_that_are_not_tied_with_worse_ones(pairs, best):
    assert best_rows(lines(*pairs), GAP) == best


def test_rows_that_fail_the_gate_and_references_are_never_the_best():
    rows = lines((1.0, 0.1), (2.0, 0.1), (3.0, 0.1))
    rows[0]["gate"] = "fail"
    assert best_rows(rows, GAP) == {1}
    rows[1]["kind"] = "reference"
    assert best_rows(rows, GAP) == set()


def test_methods_inside_the_null_band_are_tied():
    def attacked(acc, **more):
        figures = {"acc": acc, "se": 0.001, "null_hi": 0.54}
        row = {f"ulira.privacy/{key}": value for key, value in figures.items()}
        return {"kind": "method", "n_ok": 2, "attack_validity": "ok"} | row | more

    score = Score.of_attack()
    assert best_rows([attacked(0.48), attacked(0.53), attacked(0.70)], score) == {0, 1}
    assert best_rows([attacked(0.48), attacked(0.53)], score) == set()
    void = [attacked(0.48, attack_validity="suspected"), attacked(0.6), attacked(0.7)]
    assert best_rows(void, score) == {1}


# --- JSON --------------------------------------------------------------------------------------


def test_the_json_fits_its_own_schema(board):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(leaderboard_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    content = json.loads(leaderboard_json(board))
    assert list(validator.iter_errors(content)) == []
    for spoiled in (
        content | {"schema": "unlearnbench.leaderboard/2"},
        content | {"more": 1},
        {key: value for key, value in content.items() if key != "tasks"},
        content | {"tasks": [{**content["tasks"][0], "seeds": ["0"]}]},
    ):
        assert list(validator.iter_errors(spoiled))


def test_every_column_of_the_csv_is_in_the_json_as_a_number_or_a_text(board):
    content = LeaderboardFile.model_validate_json(leaderboard_json(board))
    assert content.schema_ == "unlearnbench.leaderboard/1"
    assert [task.scenario for task in content.tasks] == [t.scenario for t in board.tables]
    for task, table in zip(content.tasks, board.tables, strict=True):
        for row, said in zip(plain_rows(table.rows), task.rows, strict=True):
            fields = said.model_dump()
            for name, value in row.items():
                if name in said.figures:
                    told = said.figures[name]
                    assert told is None if pd.isna(value) else told == value
                elif name in said.texts:
                    assert said.texts[name] == value
                else:
                    assert name in fields
            assert json.dumps(said.hyperparameters, sort_keys=True) == (
                row["hyperparameters"] or "{}"
            )
            assert " ".join(map(str, said.seeds)) == row["seeds"]


def test_what_is_not_known_is_null_and_whole_numbers_stay_whole(board):
    (text,) = {leaderboard_json(board), leaderboard_json(board)}
    assert "NaN" not in text
    assert "Infinity" not in text
    rows = json.loads(text)["tasks"][0]["rows"]
    floor = next(row for row in rows if row["kind"] == "noise floor")
    assert floor["figures"]["forget_acc_mean"] is None
    first = next(row for row in rows if row["kind"] == "method")
    assert isinstance(first["figures"]["n_ok"], int)
    assert isinstance(first["figures"]["forget_acc_mean"], float)


def test_reasons_costs_environment_and_sweeps_are_told():
    found = made_records(methods=2, recipes=("plain", "orthogonal"), attacked=False)
    records = [failed(r) if r.method == "method-01" else r for r in found.records]
    content = json.loads(leaderboard_json(build(records)))
    (task,) = content["tasks"]
    assert [cost["recipe"] for cost in task["costs"]] == ["plain", "orthogonal"]
    assert task["costs"][0]["figures"]["n"] == 2
    (reason,) = task["reasons"]
    assert reason["text"] == "not <finite> & 5 % off"
    assert reason["cells"][0] == {"method": "method-01", "recipe": "plain", "seeds": [0, 1]}
    assert content["environment"]["torch"] == ["2.15"]
    assert content["sweeps"] == ["made"]
    assert content["standings"] is None
    assert task["published"] == []


def test_published_figures_stand_with_their_task():
    records = [
        changed(r, dataset="cifar10") for r in made_records(methods=1, attacked=False).records
    ]
    (task,) = json.loads(leaderboard_json(build(records)))["tasks"]
    assert {"salun", "svd", "retrain"} <= {figure["method"] for figure in task["published"]}
    assert all("published" not in name for row in task["rows"] for name in row["figures"])


# --- all together ------------------------------------------------------------------------------


@pytest.mark.parametrize("figures", ["none", "auto"])
def test_the_same_records_give_the_same_bytes_in_every_file(found, tmp_path, figures):
    few = found._replace(records=found.records[:24])
    for name in ("one", "two"):
        written = write_leaderboard(
            few.records, tmp_path / name, few.banks, few.attacks, figures=figures
        )
    assert any("figures" in path.parts for path in written) == (figures == "auto")
    for path in written:
        other = tmp_path / "one" / path.relative_to(tmp_path / "two")
        assert path.read_bytes() == other.read_bytes(), path.name


def without_retrained(records):
    return [record for record in records if record.method != "retrain"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda records: [],
        lambda records: [failed(record) for record in records],
        lambda records: [r if r.method == "retrain" else failed(r) for r in records],
        without_retrained,
        lambda records: [record for record in records if record.seed == 0],
        lambda records: [changed(r, method=f"<b>{NASTY}</b>") for r in records],
        lambda records: [changed(r, environment={}) for r in records],
    ],
    ids=["empty", "all failed", "methods failed", "no retrained", "one seed", "specials", "bare"],
)
@pytest.mark.parametrize("attacked", [False, True], ids=["plain", "attacked"])
def test_poor_records_still_give_every_file(tmp_path, spoil, attacked):
    found = made_records(methods=2, attacked=attacked)
    write_leaderboard(spoil(found.records), tmp_path, found.banks, found.attacks, figures="none")
    check_latex((tmp_path / "leaderboard.tex").read_text())
    LeaderboardFile.model_validate_json((tmp_path / "leaderboard.json").read_text())
    rows = len(pd.read_parquet(tmp_path / "leaderboard.parquet"))
    text = (tmp_path / "leaderboard.csv").read_text()
    assert rows == (len(pd.read_csv(io.StringIO(text))) if rows else 0)


def test_standings_are_told_where_there_are_any(board):
    place = {"method": "scrub", "recipe": "plain", "place": 1, "tied": False, "borda": 3.5,
             "tasks": 2, "missing": 0, "failed": 1, "mean_rank": 1.5, "rank_lo": 1.0,
             "rank_hi": math.nan, "win_rate": 0.75}  # fmt: skip
    pair = {"task": "t", "method": "scrub", "other": "svd", "difference": -0.1, "se": 0.02,
            "p": 0.01, "p_holm": math.nan, "paired": True}  # fmt: skip
    found = SimpleNamespace(
        rows=(SimpleNamespace(**place),), tasks=("t", "u"), left_out=(("v", "no attack"),),
        wins=pd.DataFrame(), differences=pd.DataFrame([pair]), friedman=4.0, friedman_p=0.1,
        critical_difference=math.nan, compared=("scrub",),
    )  # fmt: skip
    ranked = SimpleNamespace(
        tables=board.tables, environment={}, sweeps=("made",), banks={}, standings=found
    )
    told = json.loads(leaderboard_json(ranked))["standings"]
    assert told["rows"] == [place | {"rank_hi": None}]
    assert told["left_out"] == [{"task": "v", "reason": "no attack"}]
    assert told["differences"] == [pair | {"p_holm": None}]
    assert (told["friedman"], told["critical_difference"]) == (4.0, None)
