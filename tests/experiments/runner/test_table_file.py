"""Table files: what is read, and the errors of a file that says something else than it means."""

import re

import pytest

from experiments.runner.grid import expand
from experiments.runner.options import options
from experiments.runner.table_file import change, load_table, table_names
from newrelax.errors import UserError
from plugin import train
from tests.experiments.runner.sweep import make_table


def test_builtin_tables_are_listed():
    assert table_names() == [
        *("digits", "relaxations", "schemes", "smoothing", "table1", "table2", "table3", "table4"),
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param("lr", "--set: expected name=value, got 'lr'", id="no value"),
        pytest.param("rate=1", "--set: unknown trainer option 'rate'", id="unknown"),
        pytest.param("epoch=1", "--set: unknown trainer option 'epoch'; did you mean epochs", id="nearly known"),
        pytest.param("lr=fast", "--set: lr: expected a number, got 'fast'", id="text as a number"),
        pytest.param("epochs=1.5", "--set: epochs: expected a whole number, got 1.5", id="part of an epoch"),
        pytest.param("augment=1", "--set: augment: expected true or false, got 1", id="number as a boolean"),
        pytest.param(
            "model=FC", "--set: sweep runs over the values of model; choose among them with --only model=…", id="axis"
        ),
    ],
)
def test_wrong_changes_say_what_is_known(setting, message):
    table = make_table(grid={"model": ["FC", "CONV"]}, options={}, override=[])
    with pytest.raises(UserError, match=re.escape(message)):
        change(table, [setting])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"gird": {}}, "unknown key 'gird'; did you mean grid?", id="key"),
        pytest.param({"options": {"epoch": 1}}, "[options]: unknown trainer option 'epoch'; did you mean epochs", id="option"),
        pytest.param({"options": {"epochs": "many"}}, "[options]: epochs: expected a whole number, got 'many'", id="text"),
        pytest.param({"options": {"epochs": "60"}}, "[options]: epochs: expected a whole number, got '60'", id="digits"),
        pytest.param({"options": {"epochs": True}}, "[options]: epochs: expected a whole number, got True", id="boolean"),
        pytest.param({"options": 1}, "options: expected", id="no section"),
        pytest.param({"grid": {"model": []}}, "[grid]: model: expected different values", id="no values"),
        pytest.param({"grid": {"model": ["FC", "FC"]}}, "[grid]: model: expected different values", id="value twice"),
        pytest.param({"grid": {"model": [1]}}, "[grid]: model: expected text, got 1", id="number as a name"),
        pytest.param({"grid": {"omega": [[1]]}}, "grid: expected texts, numbers or booleans, got [1]", id="list in a list"),
        pytest.param({"grid": {"omega": [1], "F": [1], "width": [1]}}, "axis 'width' changes nothing", id="idle axis"),
        pytest.param({"override": [{"where": {"G": 1}}]}, "[[override]]: unknown axis 'G' (known: F, omega)", id="where"),
        pytest.param({"override": [{"when": {"F": 1}}]}, "[[override]]: unknown key 'when'", id="override"),
        pytest.param({"options": {"method": "{omega}{F}{gamma}"}}, "names no axis: 'gamma'", id="template"),
        pytest.param({"seeds": 0}, "seeds: expected a number of seeds", id="no seeds"),
        pytest.param({"seeds": [1, 1]}, "seeds: expected a number of seeds", id="seed twice"),
        pytest.param({"seeds": True}, "seeds: expected a number of seeds", id="seeds yes"),
        pytest.param({"analyze": {"methods": []}}, "[analyze]: methods: expected", id="nothing to analyse"),
        pytest.param({"analyze": {"network": {}}}, "[analyze]: methods: expected relaxations to measure, got none", id="none"),
        pytest.param(
            {"analyze": {"methods": ["IBP"], "protocol": {"budgets": 300}}},
            "[analyze]: protocol: unknown key 'budgets'; did you mean budget",
            id="protocol",
        ),
        pytest.param(
            {"analyze": {"methods": ["IBP"], "protocol": {"budget": 3}}},
            "[analyze]: protocol: budget: expected at least 240, got 3",
            id="small budget",
        ),
        pytest.param(
            {"analyze": [{"methods": ["IBP"], "network": {"method": "PGD"}}] * 2},
            "two runs would share the folder 'PGD-network-seed3'",
            id="same network",
        ),
        pytest.param({"decide": {"ladders": "IBP"}}, "[decide]: unknown key 'ladders'; did you mean ladder", id="decide"),
        pytest.param({"decide": {"timeout": 0}}, "[decide]: timeout: expected", id="no time"),
        pytest.param({"decide": {"timeout": "20"}}, "[decide]: timeout: expected a number, got '20'", id="time as a text"),
        pytest.param(
            {"decide": {"ladder": "IPB,exact"}}, "[decide]: unknown certifier 'IPB'; did you mean IBP", id="unknown certifier"
        ),
        pytest.param({"decide": {"ladder": "IBP:steps"}}, "[decide]: expected NAME:key=value", id="no spelling"),
        pytest.param({"decide": {"ladder": ""}}, "[decide]: --ladder: expected certifiers", id="no certifier"),
        pytest.param({"decide": {"limit": 0}}, "[decide]: limit: expected", id="no examples"),
        pytest.param(
            {"decide": {}, "grid": [], "override": [], "analyze": {"methods": ["IBP"]}},
            "[decide]: nothing to decide",
            id="no runs",
        ),
        pytest.param({"report": {"heatmap": ["omega"]}}, "[report]: heatmap: expected two axes", id="one axis"),
        pytest.param({"report": {"group": ["depth"]}}, "[report]: unknown axis 'depth' (known: F, omega)", id="group"),
        pytest.param(
            {"grid": [{"method": ["IBP"]}, {"method": ["IBP"]}], "override": []}, "share the folder 'IBP-seed3'", id="same run"
        ),
        pytest.param({"grid": [], "override": []}, "nothing to run", id="empty"),
    ],
)
def test_a_table_refuses_in_one_line_that_names_the_file(changes, message):
    with pytest.raises(UserError, match="^sweep.toml: .*" + re.escape(message)) as refusal:
        make_table(**changes)
    assert "\n" not in str(refusal.value)


def test_a_certifier_may_come_from_a_plugin():
    table = make_table(decide={"ladder": "Mine,exact"}, options={"plugin": "mine.py", "method": "{omega}{F}"})
    assert table.decision.ladder == "Mine,exact"


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
    with pytest.raises(UserError, match="no table 'table9': known are digits, relaxations, schemes, smoothing, table1, "):
        load_table("table9")


def test_every_option_is_one_of_the_trainer_s():
    known = {option.opts[0].removeprefix("--") for option in train.command.params}
    runners = {"seed", "scale", "limit-train", "out", "resume", "device", "data-dir", "debug"}
    assert set(options()) == known - runners
