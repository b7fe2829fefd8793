"""Tables: their expansion to runs, the runs' command lines and folders, and `--only`."""

import re

import pytest

from experiments.runner.grid import expand
from experiments.runner.jobs import make_job
from experiments.runner.only import parse_only
from experiments.runner.table_file import change, load_table
from newrelax.errors import UserError
from tests.experiments.runner.sweep import make_table


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("digits", 6 * 3 + 3),
        ("relaxations", 28 * 3 + 3 * 3),
        ("table1", 1),
        ("table2", 4 * 6 + 6 + 6),
        ("table3", 40),
        ("table4", 7 * 6 * 4),
        ("schemes", 3 * 7 * 5),
        ("smoothing", 3 * (2 * (1 + 3 * 3) + 4)),
    ],
    ids=lambda value: str(value),
)
def test_builtin_tables_expand(name, runs):
    expanded = expand(load_table(name))
    assert len(expanded) == runs
    assert len({run.id for run in expanded}) == runs


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


def test_only_takes_spellings_with_parameters():
    table = load_table("schemes")
    only = parse_only("loss=STAPS:split=1,lambda=0.4,steps=3|MTL:alpha=0.5,steps=3,method=IBP,seed=0", table)
    runs = expand(table, only=only)
    assert [run.options["loss"] for run in runs] == ["MTL:alpha=0.5,steps=3", "STAPS:split=1,lambda=0.4,steps=3"]


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


@pytest.mark.parametrize(
    ("section", "words"),
    [
        pytest.param({}, ["--ladder", "IBP,CROWN-IBP-R,CROWN,alpha-CROWN,exact", "--timeout", "20"], id="defaults"),
        pytest.param(
            {"ladder": "CROWN,exact", "timeout": 2.5, "limit": 100},
            ["--ladder", "CROWN,exact", "--timeout", "2.5", "--limit", "100"],
            id="own",
        ),
    ],
)
def test_trained_networks_are_decided_by_the_table_s_ladder(section, words, tmp_path):
    run = expand(make_table(decide=section))[0]
    job = make_job(run, tmp_path, data_dir=tmp_path / "data", device="cpu")
    assert job.decide[1:] == (
        *("-m", "plugin.evaluate", "--run", str(tmp_path / "sweep" / run.id), "--complete", *words),
        *("--data-dir", str(tmp_path / "data"), "--device", "cpu"),
    )


def test_networks_that_are_only_analysed_are_not_decided():
    network = {"method": "natural", "dataset": "digits"}
    runs = expand(make_table(decide={}, analyze={"methods": ["IBP"], "network": network}))
    assert [run.decision is None for run in runs] == [bool(run.analyze) for run in runs]
    assert {bool(run.analyze) for run in runs} == {True, False}


def test_relaxations_are_measured_on_several_networks(tmp_path):
    first = {"methods": ["IBP", "CROWN"], "network": {"method": "natural", "dataset": "digits"}}
    second = {"network": {"method": "PGD"}, "protocol": {"budget": 300, "single-weights": 2, "eps-step": 0.005}}
    runs = [run for run in expand(make_table(analyze=[first, second])) if run.analyze]
    assert [run.id for run in runs[:2]] == ["digits-natural-network-seed3", "PGD-network-seed3"]
    assert {run.analyze for run in runs} == {("IBP", "CROWN")}
    commands = [make_job(run, tmp_path).analyze for run in runs[:2]]
    assert commands[0][-4:] == ("--methods", "IBP,CROWN", "--seed", "3")
    assert commands[1][-8:] == ("--seed", "3", "--budget", "300", "--single-weights", "2", "--eps-step", "0.005")
    assert "protocol" not in runs[0].settings()
    assert runs[1].settings()["protocol"] == {"budget": 300, "single-weights": 2, "eps-step": 0.005}


def test_one_analysis_is_what_it_was():
    """A finished run of a table goes on being one: its folder and its settings stay."""
    (run,) = expand(load_table("table1"))
    assert run.id == "mnist-CONV-natural-network-seed0"
    assert set(run.settings()) == {"table", "cell", "seed", "options", "scale", "limit_train", "analyze"}


def test_deciding_changes_no_run():
    assert [run.settings() for run in expand(make_table(decide={}))] == [run.settings() for run in expand(make_table())]


def test_equal_settings_mean_an_equal_run():
    first, second = expand(make_table()), expand(make_table())
    assert [run.settings() for run in first] == [run.settings() for run in second]
    assert expand(make_table(), scale=0.5)[0].settings() != first[0].settings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"scale": 0.0}, "scale: expected a number in (0, 1]", id="no scale"),
        pytest.param({"scale": 1.5}, "scale: expected a number in (0, 1]", id="large scale"),
        pytest.param({"seeds": 0}, "seeds: expected at least 1", id="no seeds"),
        pytest.param({"limit_train": 0}, "limit-train: expected at least 1", id="no images"),
    ],
)
def test_expand_refuses(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        expand(make_table(), **options)
