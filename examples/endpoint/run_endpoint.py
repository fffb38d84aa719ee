"""The main job with a model API as the teacher: made-up reviews, a small server, a real budget.

    python examples/endpoint/run_endpoint.py          # writes into runs/example_endpoint

The same as `limbeck distill run.toml` with the settings of `run.toml`; here a script, because the
server has to be there first. Run it again: nothing is asked, nothing is paid for twice.
"""

import csv
import os
import random
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

from model_server import BAD, GOOD, KEY, serve

import limbeck
from limbeck.distill.folder import Event
from limbeck.distill.plan import make_plan
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config

THINGS = ("plot", "cast", "music", "script", "ending", "camera", "hero", "pace", "jokes")
UNKNOWN = {"pos": ("joyful", "honest", "thrilling"), "neg": ("awful", "grating", "stupid")}
"""Words of praise and of blame that the model does not know."""


def review(rng: random.Random) -> tuple[str, str]:
    """A review and its label: two opinions that agree with it, and one that may not."""
    label = rng.choice(["neg", "pos"])
    good, bad = [*sorted(GOOD), *UNKNOWN["pos"]], [*sorted(BAD), *UNKNOWN["neg"]]
    own, other = (good, bad) if label == "pos" else (bad, good)
    opinions = [rng.choice(own), rng.choice(own), rng.choice(rng.choice([own, other]))]
    parts = [f"{opinion} {rng.choice(THINGS)}" for opinion in opinions]
    rng.shuffle(parts)
    return f"{', '.join(parts)} (seat {rng.randrange(10**6)})", label


def write_files(folder: Path) -> None:
    """Write labelled, validation and test rows, and a pool."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"labelled": 100, "validation": 150, "test": 400, "pool": 1500}
    for name, count in sizes.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = [review(rng) for _ in range(count)]
            writer = csv.writer(file)
            writer.writerow(["text"] if name == "pool" else ["text", "label"])
            writer.writerows([row[:1] for row in rows] if name == "pool" else rows)
    shutil.copy(Path(__file__).with_name("run.toml"), folder)


def show(event: Event) -> None:
    """Print what a run says of itself, without the progress of its parts."""
    if not event.total:
        print(event.message)


def main(folder: Path) -> None:
    """Make the files, start the server, show the plan, distil, use the student."""
    if not (folder / "pool.csv").exists():
        write_files(folder)
    os.environ["EXAMPLE_API_KEY"] = KEY
    server = serve()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = load_config(folder / "run.toml")
    # The address may change from one time to the next: it does not shape the answers.
    url = f"http://127.0.0.1:{server.server_port}/v1"
    endpoint = replace(config.teacher.endpoint, base_url=url)
    config = replace(config, teacher=replace(config.teacher, endpoint=endpoint), onnx=False)
    print(make_plan(config).text())
    outcome = distill(config, show)
    server.shutdown()
    server.server_close()
    print(f"\n{outcome.text()}\n")
    student = limbeck.load(outcome.student)
    for text in ("A moving script, a vivid hero.", "Lazy jokes and a hollow ending."):
        print(f"{student.predict([text])[0]}  {text}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example_endpoint"))
