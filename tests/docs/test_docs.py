"""What the pages say can be found: modules, cards, files, commands, messages."""

import importlib
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from limbeck.cli import build_app
from limbeck.distill.config import DistillConfig
from limbeck.distill.run_file import load_config
from limbeck.objectives import OBJECTIVES
from tests.docs.pages import PAGES, ROOT, blocks, limbeck_lines, name_of, prose
from tests.docs.write_cli_page import PAGE, page

INDEX = ROOT / "docs/methods/index.md"
FORBIDDEN = re.compile(
    r"issue tracker|\bsessions?\b|\bhelper\b|/work\b|/tmp\b|/root\b|/home/|\.\./shared",
    re.IGNORECASE,
)
WHAT_A_RUN_NEEDS = ["--budget", "9", "--data.labelled", "rows.csv", "--teacher.kind", "fit"]
FAMILIES = {
    "weighted": "weighted",
    **dict.fromkeys(("lelp", "pca_split", "random_projections", "kmeans_split"), "lelp"),
    **dict.fromkeys(("agglomerative_split", "random_split"), "lelp"),
    **dict.fromkeys(("subclass_teacher", "subclass"), "lelp"),
    "slam": "slam",
    "soft_kd": "kd",
    "hard_kd": "kd",
    "labels": "kd",
    **dict.fromkeys(("taylor", "ups", "fidelity", "alpha_weighted"), "robust"),
    **dict.fromkeys(("dkd", "dist", "rkd", "embedding", "fitnet", "vid", "crd"), "comparators"),
}
"""Card of each registered objective: one card may tell of a family."""

each_page = pytest.mark.parametrize("path", PAGES, ids=name_of)


def test_the_page_of_commands_is_what_help_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.docs.write_cli_page"


@each_page
def test_links_point_at_files_and_headings_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{name_of(path)} links to {target}"
        assert not anchor or anchor in anchors(there), f"{name_of(path)} links to {target}"


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"[\s]+", "-", heading) for heading in plain}


@each_page
def test_a_page_speaks_to_its_reader_alone(path: Path) -> None:
    found = FORBIDDEN.search(path.read_text(encoding="utf-8"))
    assert not found, f"{name_of(path)} says {found[0]!r}"


@each_page
def test_commands_on_a_page_are_understood(path: Path) -> None:
    known = {f"--{name}" for name in settings(DistillConfig)}
    for words in limbeck_lines(path):
        command, _, unused, _ = build_app().parse_known_args(words)
        extra = [word.partition("=")[0] for word in unused if word.startswith("--")]
        allowed = known if getattr(command, "takes_settings", False) else set()
        assert set(extra) <= allowed, f"{name_of(path)}: limbeck {' '.join(words)}"


def settings(kind: type, prefix: str = "") -> set[str]:
    """Dotted names of all settings of a dataclass."""
    hints = get_type_hints(kind)
    names: set[str] = set()
    for field in fields(kind):
        inner = hints[field.name]
        nested = is_dataclass(inner) and isinstance(inner, type)
        names |= settings(inner, f"{prefix}{field.name}.") if nested else {prefix + field.name}
    return names


@each_page
def test_run_files_on_a_page_are_accepted(path: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(path, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(block.text)
        # A block without a budget is a part of a run file: the rest comes from options.
        rest = [] if "budget =" in block.text else WHAT_A_RUN_NEEDS
        assert load_config(file, rest).budget > 0, block.where


def rows() -> list[list[str]]:
    lines = [line for line in INDEX.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1].strip("`"))
def test_a_row_of_the_index_leads_to_module_card_and_benchmark(row: list[str]) -> None:
    _, module, card, benchmark = row
    assert importlib.import_module(module.strip("`")).__doc__
    link = re.search(r"\]\((.+)\)", card)
    assert link, card
    assert (INDEX.parent / link[1]).is_file(), card
    assert (ROOT / benchmark.strip("`")).is_file(), benchmark


def test_every_registered_objective_has_a_card() -> None:
    assert set(OBJECTIVES) <= set(FAMILIES), "a new objective needs a card, and a line above"
    for card in FAMILIES.values():
        assert (INDEX.parent / f"{card}.md").is_file(), card


def test_every_card_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\((\w+\.md)\)", INDEX.read_text()))
    assert linked == {card.name for card in INDEX.parent.glob("*.md")} - {"index.md"}


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    docs = ROOT / "docs"
    assert listed == {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}


def test_messages_that_the_guide_explains_are_in_the_code() -> None:
    guide = (ROOT / "docs/guides/distill.md").read_text()
    table = guide.split("| message says | what to do |")[1]
    sources = "".join(p.read_text() for p in (ROOT / "src/limbeck").rglob("*.py"))
    joined = re.sub(r'"\n\s*f?"', "", sources)  # strings that go on in the next line
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) > 5
    assert [said for said in messages if said not in joined] == []


def test_the_guide_to_ones_own_loop_shows_the_examples_as_they_are() -> None:
    shown = [block.text for block in blocks(ROOT / "docs/guides/own_loop.md", "python")]
    files = ("own_loop.py", "hf_trainer.py", "_toy.py")
    assert shown == [(ROOT / "examples" / name).read_text(encoding="utf-8") for name in files]
