"""Table files: expansion, filters, and the errors of a file that says something else than it means."""

import re

import pytest

from experiments.grid import OPTIONS, expand, parse_only
from experiments.table_file import change, load_table, parse_table, table_names
from newrelax.errors import UserError

SWEEP = {
    "title": "a sweep",
    "seeds": [3, 5],
    "options": {"dataset": "digits", "method": "IBP-Round:omega={omega},F={F}"},
    "grid": {"omega": [0.5, 1], "F": ["none", 10]},
    "override": [{"where": {"F": "none"}, "options": {"method": "IBP-Widen:omega={omega}", "lr": 1}}],
}


def make_table(**changes):
    return parse_table({**SWEEP, **changes}, "sweep", "sweep.toml")


@pytest.mark.parametrize(
    ("name", "runs"),
    [("table1", 1), ("table2", 4 * 6 + 6 + 6), ("table3", 40), ("table4", 7 * 6 * 4)],
    ids=lambda value: str(value),
)
def test_builtin_tables_expand(name, runs):
    expanded = expand(load_table(name))
    assert len(expanded) == runs
    assert len({run.id for run in expanded}) == runs


def test_builtin_tables_are_listed():
    assert table_names() == ["table1", "table2", "table3", "table4"]


def test_product_seeds_templates_and_overrides():
    runs = expand(make_table())
    assert [run.id for run in runs[:4]] == [
        "omega=0.5-F=none-seed3",
        "omega=0.5-F=10-seed3",
        "omega=1-F=none-seed3",
        "omega=1-F=10-seed3",
    ]
    assert {run.seed for run in runs[4:]} == {5}
    assert runs[0].arguments() == [
        "--dataset",
        "digits",
        "--method",
        "IBP-Widen:omega=0.5",
        "--lr",
        "1",
        "--seed",
        "3",
    ]
    assert runs[1].arguments() == ["--dataset", "digits", "--method", "IBP-Round:omega=0.5,F=10", "--seed", "3"]


def test_changes_hold_for_every_run_and_are_in_its_name():
    runs = expand(change(make_table(), ["lr=2e-3", "kappa=1,0", "augment=true"]), limit_train=100)
    assert runs[0].id == "omega=0.5-F=none-seed3-n100-lr=0.002-kappa=1_0-augment=True"
    assert runs[0].arguments()[4:9] == ["--lr", "0.002", "--kappa", "1,0", "--augment"]
    assert runs[1].options["method"] == "IBP-Round:omega=0.5,F=10"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr", "--set: expected name=value, got 'lr'"),
        ("rate=1", "--set: unknown key 'rate'; known: method, "),
        ("lr=fast", "--set lr: expected float, got str 'fast'"),
        ("epochs=1.5", "--set epochs: expected int, got float 1.5"),
        ("model=FC", "--set model: sweep runs over its values; choose among them with --only model=…"),
    ],
)
def test_wrong_changes_say_what_is_known(setting, message):
    table = make_table(grid={"model": ["FC", "CONV"]}, options={}, override=[])
    with pytest.raises(UserError, match=re.escape(message)):
        change(table, [setting])


def test_later_grids_follow_and_share_options():
    table = make_table(options={}, override=[], grid=[{"method": ["IBP"]}, {"method": ["CROWN"], "model": ["FC"]}])
    assert [run.id for run in expand(table, seeds=1)] == ["IBP-seed0", "FC-CROWN-seed0"]


def test_estimates_train_where_the_zonotope_does_not_fit():
    table = load_table("table2")
    runs = expand(table, only=parse_only("dataset=cifar10,method=DeepZ", table))
    assert [run.cell["method"] for run in runs] == ["DeepZ"]
    assert runs[0].options["method"] == "DeepZ-Cauchy:k=50"


@pytest.mark.parametrize(
    ("only", "ids"),
    [
        ("model=CONV,dataset=mnist,method=ibp", ["mnist-CONV-IBP-seed0"]),
        ("dataset=mnist,method=IBP|CROWN,model=FC", ["mnist-FC-IBP-seed0", "mnist-FC-CROWN-seed0"]),
        ("method=IBP,method=CROWN,dataset=svhn", ["svhn-CONV-IBP-seed0", "svhn-CONV-CROWN-seed0"]),
        ("dataset=svhn,seed=0,method=hBox", ["svhn-CONV-hBox-seed0"]),
    ],
)
def test_only(only, ids):
    table = load_table("table2")
    assert [run.id for run in expand(table, only=parse_only(only, table))] == ids


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("colour=red", "no axis 'colour'; known: dataset, method, model, seed"),
        ("model=RESNET", "no model 'resnet'; known: CONV, CONV+, FC"),
        ("CONV", "expected axis=value"),
    ],
)
def test_only_refuses_what_matches_nothing(only, message):
    table = load_table("table2")
    with pytest.raises(UserError, match=re.escape(message)):
        parse_only(only, table)


def test_scale_and_limit_are_in_the_folder_and_on_the_command_line():
    (run,) = expand(make_table(grid={"model": ["FC"]}, options={}, override=[]), scale=0.05, seeds=1, limit_train=500)
    assert run.id == "FC-seed0-scale0.05-n500"
    assert run.arguments() == ["--model", "FC", "--seed", "0", "--scale", "0.05", "--limit-train", "500"]


def test_scale_shortens_a_table_s_own_epochs():
    table = make_table(grid={"model": ["FC"]}, options={"epochs": 60}, override=[])
    (run,) = expand(table, scale=0.1, seeds=1)
    assert run.arguments() == ["--epochs", "6", "--model", "FC", "--seed", "0"]


def test_equal_settings_mean_an_equal_run():
    first, second = expand(make_table()), expand(make_table())
    assert [run.settings() for run in first] == [run.settings() for run in second]
    assert expand(make_table(), scale=0.5)[0].settings() != first[0].settings()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gird": {}}, "unknown key 'gird'; known: title, seeds"),
        ({"options": {"learning-rate": 1}}, "unknown key 'learning-rate'; known: method, dataset"),
        ({"options": {"epochs": "many"}}, "epochs: expected int, got str 'many'"),
        ({"options": {"epochs": True}}, "epochs: expected int, got bool True"),
        ({"grid": {"model": []}}, "model: expected different values"),
        ({"grid": {"model": ["FC", "FC"]}}, "model: expected different values"),
        ({"grid": {"model": [1]}}, "model: expected str, got int 1"),
        ({"grid": {"omega": [1], "F": [1], "width": [1]}}, "axis 'width' changes nothing"),
        ({"override": [{"where": {"G": 1}}]}, "unknown key 'G'; known: F, omega"),
        ({"override": [{"when": {"F": 1}}]}, "unknown key 'when'; known: where, options"),
        ({"options": {"method": "{omega}{F}{gamma}"}}, "names no axis: 'gamma'"),
        ({"seeds": 0}, "seeds: expected"),
        ({"seeds": [1, 1]}, "seeds: expected"),
        ({"report": {"heatmap": ["omega"]}}, "heatmap: expected two axes"),
        ({"report": {"group": ["depth"]}}, "unknown axis 'depth'; known: F, omega"),
        ({"grid": [{"method": ["IBP"]}, {"method": ["IBP"]}], "override": []}, "share the folder 'IBP-seed3'"),
        ({"grid": [], "override": []}, "nothing to run"),
    ],
)
def test_table_refuses(changes, message):
    with pytest.raises(UserError, match="sweep.toml.*" + re.escape(message)):
        make_table(**changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scale": 0.0}, "scale"), ({"scale": 1.5}, "scale"), ({"seeds": 0}, "seeds"), ({"limit_train": 0}, "limit-train")],
    ids=lambda value: str(value),
)
def test_expand_refuses(options, message):
    with pytest.raises(UserError, match=message):
        expand(make_table(), **options)


def test_a_user_s_own_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[options]\ndataset = "digits"\n[grid]\nlr = [1e-3, 1e-4]\n')
    assert [run.id for run in expand(load_table(path))] == ["lr=0.001-seed0", "lr=0.0001-seed0"]


@pytest.mark.parametrize("text", ["[grid", "\xff\xfe"], ids=["no toml", "no text"])
def test_a_damaged_file(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="not a TOML file"):
        load_table(path)


def test_an_unknown_table_names_the_known_ones():
    with pytest.raises(UserError, match="no table 'table9': known are table1, table2, table3, table4"):
        load_table("table9")


def test_every_option_is_one_of_the_trainer_s():
    train = pytest.importorskip("plugin.train")
    known = {option.opts[0].removeprefix("--") for option in train.command.params}
    runners = {"seed", "scale", "limit-train", "out", "resume", "device", "data-dir", "debug"}
    assert set(OPTIONS) == known - runners
