"""Where LELP may gain: trials of steps, answers and width of the student, with the seed of tuning.

    PYTHONPATH=src:. python -m benchmarks.objectives.few_search --minutes 30

One seed each, so no claim: what looks promising here is a candidate for a comparison with seeds of
its own. The set-up is that of `few_images`.
"""

from dataclasses import replace

import torch
from benchmarks._common import RESULTS, Clock, Results, arguments, results
from benchmarks.objectives._few_methods import TITLES, Settings
from benchmarks.objectives._few_runs import TUNING
from benchmarks.objectives.few_images import SOURCES, ImageTask

from limbeck.storage import write_text

PLACES = [
    ("mnist by parity", 1_200, 1_000, 8),
    ("mnist by parity", 600, 200, 8),
    ("mnist by parity", 600, 200, 16),
]
"""Data set, steps, answers bought, width of the student."""
METHODS: list[tuple[str, Settings]] = [
    ("soft_kd", {"temperature": 4.0}),
    ("lelp", {"temperature": 4.0, "beta": 3.0}),
    ("lelp", {"temperature": 4.0, "beta": 1.0}),
    ("random_projections", {"temperature": 4.0, "beta": 3.0}),
    ("oracle_split", {"temperature": 1.0}),
]


def main() -> None:
    """Run what is missing, then write."""
    options = arguments(__doc__, minutes=30).parse_args()
    clock, kept = Clock(options.minutes), results("few_search", fresh=options.fresh)
    torch.set_num_threads(1)
    for name, steps, pool, width in PLACES:
        missing = [one for one in METHODS if not kept.done([name, steps, pool, width, *one])]
        if not missing or clock.spent:
            continue
        student = {**SOURCES[name].student, "width": width}
        source = replace(SOURCES[name], steps=steps, pool=pool, student=student)
        task = ImageTask(name, TUNING, False, source=source)
        for method, settings in missing:
            (found,) = task.play([task.arm(method, settings)], pool="pool")
            row = {"set": name, "steps": steps, "answers": pool, "width": width, "method": method}
            row |= {"settings": settings, "validation": found.validation, "test": found.test}
            kept.add([name, steps, pool, width, method, settings], row)
    print(write(kept))


def write(kept: Results) -> str:
    """Write the result file and the table."""
    rows = list(kept.rows())
    kept.write(
        claim="trials: where LELP may gain over soft KD",
        config={"places": PLACES, "methods": METHODS},
        seeds=[TUNING],
        numbers=rows,
    )
    lines = ["| set | steps | answers | width | method | validation, % | test, % |"]
    lines.append("|---|--:|--:|--:|---|--:|--:|")
    for row in rows:
        method = f"{TITLES[row['method']]}, " + ", ".join(
            f"{k} {v}" for k, v in row["settings"].items()
        )
        lines.append(
            f"| {row['set']} | {row['steps']:,} | {row['answers']:,} | {row['width']} | {method} | "
            f"{100 * row['validation']:.1f} | {100 * row['test']:.1f} |"
        )
    text = "\n".join(lines) + "\n"
    write_text(RESULTS / "few_search.md", text)
    return text


if __name__ == "__main__":
    main()
