"""What the pages name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
PATH = re.compile(r"`((?:services|protos|gateway-envoy|development|tests|benchmarks)/[^`{}…*]*)`")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_a_page_names_exists(page: str) -> None:
    named = PATH.findall((ROOT / page).read_text())

    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_between_pages_leads_somewhere(page: str) -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / page).read_text())

    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_the_readme_names_only_commands_that_make_knows() -> None:
    commands = set(re.findall(r"\bmake ([a-z-]+)\b", (ROOT / "README.md").read_text())) - {"and"}

    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert commands <= known
