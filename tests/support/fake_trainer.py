"""A stand-in for `plugin.train` that ends in milliseconds: same options, same run folder, told when to fail.

With `--complete` it stands in for `plugin.evaluate --complete` of such a run; it misbehaves as method "decide METHOD".

Its result is a function of its settings alone.  The journal, a file beside the table's folder, gets a line for each
start and each end, so that tests can count.  Misbehaviour is read from `misbehave.json` beside the journal:
method -> list of what to do at its first, second … start.
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

EPOCHS = 4


def decide() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--complete", action="store_true")
    for name in ("ladder", "data-dir", "device"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--timeout", type=float)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    run, home = arguments.run, arguments.run.parent.parent
    with (home / "journal.txt").open("a") as journal:
        print("decide", run.name, os.getpid(), file=journal)
    result = json.loads((run / "result.json").read_text())
    plan = json.loads((home / "misbehave.json").read_text()) if (home / "misbehave.json").exists() else {}
    starts = sum(line.split()[:2] == ["decide", run.name] for line in (home / "journal.txt").read_text().splitlines())
    todo = plan.get(f"decide {result['method']}", [])
    misbehave(todo[starts - 1] if starts <= len(todo) else "")
    folder = run / f"complete-eps{result['eps']:g}"
    folder.mkdir(exist_ok=True)
    verdicts = {
        "ladder": f"attack:steps=40,restarts=3,{arguments.ladder}",
        "timeout": arguments.timeout,
        "count": arguments.limit or 100,
        "verified": result["certified_accuracy"] + 0.05,
        "undecided": 0.0,
    }
    if (folder / "complete.json").exists():
        held = json.loads((folder / "complete.json").read_text())
        if any(held[name] != verdicts[name] for name in ("ladder", "timeout")):
            sys.exit(f"error: {folder} holds verdicts of another question")
    replace(folder / "complete.json", verdicts)
    with (home / "journal.txt").open("a") as journal:
        print("decided", run.name, os.getpid(), file=journal)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("method", "dataset", "model", "data-dir", "device"):
        parser.add_argument(f"--{name}", default=name)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--limit-train", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    out, home = arguments.out, arguments.out.parent.parent
    journal = (home / "journal.txt").open("a")

    if (out / "config.json").exists() and not arguments.resume:
        sys.exit(f"error: {out} holds another run")
    out.mkdir(parents=True, exist_ok=True)
    alone = (out / "alone").open("w")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("overlap", out.name, os.getpid(), file=journal, flush=True)
    print("start", out.name, os.getpid(), file=journal, flush=True)
    replace(out / "config.json", {"method": arguments.method})

    metrics = out / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    plan = json.loads((home / "misbehave.json").read_text()) if (home / "misbehave.json").exists() else {}
    starts = sum(line.split()[:2] == ["start", out.name] for line in (home / "journal.txt").read_text().splitlines())
    todo = plan.get(arguments.method, [])
    misbehave(todo[starts - 1] if starts <= len(todo) else "")

    def save_and_leave(number: int, _frame: object) -> None:
        print("saved", out.name, number, file=journal, flush=True)
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, save_and_leave)
    base = sum(map(ord, arguments.method + arguments.dataset + arguments.model)) % 50 / 100 + arguments.seed / 100
    for epoch in range(done, arguments.epochs):
        time.sleep(arguments.pause)
        line = {"epoch": epoch + 1, "certified_accuracy": base * (epoch + 1) / arguments.epochs}
        lines = [*metrics.read_text().splitlines(), json.dumps(line)] if metrics.exists() else [json.dumps(line)]
        replace(metrics, lines)
    result = {
        "method": arguments.method,
        "dataset": arguments.dataset,
        "model": arguments.model,
        "eps": 0.3,
        "test_images": 100,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "natural_accuracy": base + 0.3,
        "pgd_accuracy": base + 0.1,
        "certified_accuracy": base,
        "certify_method": arguments.method,
        "sound": "Cauchy" not in arguments.method,
        "seconds": time.time(),
    }
    replace(out / "result.json", result)
    print("end", out.name, os.getpid(), file=journal, flush=True)


def replace(path: Path, data: object) -> None:
    partial = path.with_name(f".{path.name}")
    partial.write_text("".join(f"{line}\n" for line in data) if isinstance(data, list) else json.dumps(data))
    os.replace(partial, path)


def misbehave(what: str) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "hang":
        time.sleep(600)
    elif what == "silent":
        sys.exit(0)
    elif what:
        print("epoch 1 of 4\rsome noise", flush=True)
        sys.exit(f"error: {what}")


if __name__ == "__main__":
    decide() if "--complete" in sys.argv else main()
