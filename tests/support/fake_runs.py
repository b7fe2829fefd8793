"""Tables whose runs are the fake trainer's, and runners of them as processes that can be killed."""

import json
import multiprocessing
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from experiments.run import run_table
from experiments.runner.jobs import Commands

TRAINER = Path(__file__).with_name("fake_trainer.py")
TABLE = """
seeds = 2
[options]
dataset = "digits"
[grid]
model = ["FC"]
method = ["IBP", "CROWN", "hBox"]
"""


class Bench:
    """A table, an output folder and the fake trainer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = folder / "small.toml"
        self.out = folder / "runs"
        self.out.mkdir()
        self.table.write_text(TABLE)

    def commands(self, pause: float = 0.0) -> Commands:
        # -I and -S: nothing but the standard library is needed, and each start counts.
        program = (sys.executable, "-I", "-S", str(TRAINER))
        return Commands(train=(*program, "--pause", str(pause)), decide=program)

    def run(self, **options) -> int:
        options = {"jobs": 2, "pause": 0.01, "commands": self.commands(), "out": self.out, **options}
        return run_table(str(self.table), **options)

    def start(self, pause: float, jobs: int = 2) -> "Runner":
        """The runner as a process of its own."""
        options = {"jobs": jobs, "pause": 0.01, "retries": 20, "commands": self.commands(pause), "out": self.out}
        return Runner(str(self.table), options)

    def verdicts(self) -> dict[str, dict]:
        """What was written of each run's decided examples."""
        return {path.parent.parent.name: json.loads(path.read_text()) for path in self.out.glob("small/*/*/complete.json")}

    def misbehave(self, **plan: list[str]) -> None:
        (self.out / "misbehave.json").write_text(json.dumps(plan))

    def journal(self) -> list[list[str]]:
        path = self.out / "journal.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def count(self, word: str) -> Counter:
        return Counter(entry[1] for entry in self.journal() if entry[0] == word)

    def live_trainers(self) -> list[int]:
        """Processes of fake trainers that have started and not ended."""
        ended = {entry[2] for entry in self.journal() if entry[0] == "end"}
        pids = {entry[2] for entry in self.journal() if entry[0] == "start"} - ended
        return sorted(int(pid) for pid in pids if is_trainer(pid))

    def results(self) -> dict[str, dict]:
        """Each run's result without its timing."""
        found = {path.parent.name: json.loads(path.read_text()) for path in self.out.glob("small/*/result.json")}
        return {name: {key: result[key] for key in result if key != "seconds"} for name, result in found.items()}


def is_trainer(pid: str) -> bool:
    """True when the process lives and is a fake trainer (a number may come again)."""
    try:
        return TRAINER.name in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


class Runner:
    """`run_table` in a process that starts at once (forked from one that has imported it), and its output."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.run"])

    def __init__(self, table: str, options: dict) -> None:
        with tempfile.NamedTemporaryFile(delete=False, dir=options["out"]) as file:
            self.log = Path(file.name)
        self.process = self.context.Process(target=run_logged, args=(table, options, self.log))
        self.process.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def wait(self, seconds: float = 40.0) -> int | None:
        self.process.join(seconds)
        return self.process.exitcode

    @property
    def output(self) -> str:
        return self.log.read_text()


def run_logged(table: str, options: dict, log: Path) -> None:
    """The body of a `Runner`."""
    with log.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        sys.exit(run_table(table, **options))


IDS = {f"FC-{method}-seed{seed}" for method in ("IBP", "CROWN", "hBox") for seed in (0, 1)}
