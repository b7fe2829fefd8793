"""Tables, runs made by hand, and reports of them."""

import json

from experiments.report import main
from experiments.runner.grid import expand
from experiments.runner.store import METRICS, RESULT, Place
from experiments.runner.table_file import load_table
from plugin.process.files import write_json
from tests.support.calls import invoke

TABLE = """
title = "A small table"
seeds = 2
[options]
dataset = "mnist"
[grid]
model = ["CONV"]
method = ["IBP", "CROWN", "DeepZ-Cauchy:k=50"]
[report]
group = ["model"]
baseline = "IBP"
"""
HEATMAP = """
[options]
dataset = "digits"
method = "IBP-Round:omega={omega},F={F}"
[grid]
omega = [0.5, 2]
F = [1, 10]
[report]
heatmap = ["omega", "F"]
"""


class Desk:
    """Table files, runs made by hand, and reports of them."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "runs"

    def table(self, text=TABLE, name="small"):
        path = self.folder / f"{name}.toml"
        path.write_text(text)
        return str(path)

    def finish(self, path, certified, **options):
        """Give every run that `certified` (method -> fractions by seed) names a result; `options` go to `expand`."""
        table = load_table(path)
        for run in expand(table, **options):
            values = certified.get(run.options["method"], ())
            if run.seed < len(values):
                finish(Place(self.out / table.name, run.id), run, values[run.seed])

    def report(self, path, *options):
        result = invoke(main, [path, "--out", str(self.out), "--to", str(self.folder / "report"), *options])
        assert result.exit_code == 0, result.output
        return {file.name: file.read_text() for file in (self.folder / "report").iterdir()}


def begin(place, run):
    """The run's folder with the runner's note of its settings."""
    for folder in (place.folder, place.note("json").parent):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(place.note("json"), run.settings())


def finish(place, run, certified):
    sound = "Cauchy" not in run.options["method"]
    begin(place, run)
    write_json(
        place.folder / RESULT,
        {
            "method": run.options["method"],
            "dataset": run.options["dataset"],
            "model": run.options.get("model", "FC"),
            "seed": run.seed,
            "eps": 0.3,
            "epochs": 10,
            "natural_accuracy": 0.9,
            "pgd_accuracy": 0.8,
            "certified_accuracy": certified if sound else None,
            "estimated_accuracy": None if sound else certified,
            "certify_method": run.options["method"],
            "sound": sound,
            "seconds": 12.0,
            "test_images": 100,
        },
    )
    lines = [{"epoch": epoch, "certified_accuracy": certified * epoch / 4} for epoch in range(1, 5)]
    (place.folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def line_of(markdown, start):
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {start} |")]
    return [field.strip() for field in line.strip("|").split("|")]
