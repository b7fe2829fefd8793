"""Properties of relaxations in reports: beside the paper's, and beside what the relaxations trained."""

import pytest

from experiments.runner.grid import expand
from experiments.runner.store import ANALYSIS, Place
from experiments.runner.table_file import load_table
from plugin.process.files import write_json
from tests.support.report_desk import TABLE, finish, line_of

PROPERTIES = """
[analyze]
methods = ["IBP", "hBox"]
network = { method = "natural", dataset = "mnist", model = "CONV" }
[report]
certified = "FILE"
"""


def analyse(desk, path, radius=0.75):
    """Give the table's first network, seed 0, a measurement of IBP; each network after it one of twice the radius."""
    runs = [run for run in expand(load_table(path)) if run.analyze and run.seed == 0]
    for number, run in enumerate(runs, 1):
        place = Place(desk.out / run.table, run.id)
        finish(place, run, 0.0)
        (place.folder / ANALYSIS).parent.mkdir()
        found = {
            "tightness": {"radius": number * radius},
            "continuity": {"continuous": True},
            "sensitivity": {"insensitive": False},
        }
        write_json(place.folder / ANALYSIS, {"methods": {"IBP": found}})


def test_properties_beside_the_paper_s(desk):
    table = desk.table()
    desk.finish(table, {"IBP": (0.80, 0.84)})
    path = desk.table(PROPERTIES.replace("FILE", table), "properties")
    analyse(desk, path)
    files = desk.report(path)
    assert line_of(files["report.md"], "IBP") == ["IBP", "0.75", "0.73", "✓", "✓", "✗", "✓", "82.00 ± 2.83", "86.8"]
    assert line_of(files["report.md"], "hBox") == ["hBox", "missing", "1.76", "missing", "✗", "missing", "✓", "missing", "83.7"]
    assert "Measured on a fixed network: natural, mnist, CONV." in files["report.md"]
    assert "continuous, sensitive (measured)" in files["tightness.svg"]


NETWORKS = """
[[analyze]]
methods = ["IBP"]
network = { method = "natural", dataset = "mnist", model = "CONV", epochs = 2 }
[[analyze]]
network = { method = "PGD", dataset = "mnist", model = "CONV" }
"""


@pytest.mark.parametrize("elsewhere", [False, True], ids=["its own", "another table's"])
def test_properties_stand_beside_trained_accuracies(desk, elsewhere):
    source = desk.table(NETWORKS, "properties")
    path = desk.table(f"{TABLE}properties = '{source}'" if elsewhere else TABLE + NETWORKS)
    desk.finish(path, {"IBP": (0.80, 0.84), "CROWN": (0.70, 0.70)})
    analyse(desk, source if elsewhere else path)
    files = desk.report(path)
    markdown = files["report.md"]
    assert (
        "continuity and sensitivity (✓: favourable) are measured on a fixed network: natural, mnist, CONV, epochs 2."
        in markdown
    )
    assert line_of(markdown, "run")[-3:] == ["tightness", "continuity", "sensitivity"]
    assert line_of(markdown, "IBP")[-3:] == ["0.75", "✓", "✗"], "of the first network, not of the second"
    assert line_of(markdown, "CROWN")[-3:] == ["—", "—", "—"]
    assert '<td class="bad">✗</td>' in files["report.html"]
    assert "tightness-CONV.svg" in files
    assert "## Properties" not in markdown
