"""The import rules of ARCHITECTURE.md, held by reading the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for top in ("services", "development") for path in (ROOT / top).rglob("*.py") if "gen" not in path.parts
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; name the module in full"
            names.update({node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names})
    return names


def is_within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def rules_of_the_architecture_page() -> dict[str, tuple[str, ...]]:
    """The table under "Import rules": each module, and what it may not import."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    section = page.partition("## Import rules")[2].partition("\n## ")[0]
    rules: dict[str, tuple[str, ...]] = {}
    for left, right in re.findall(r"^\| (.*`) \| (.*) \|$", section, re.MULTILINE):
        forbidden = tuple(re.findall(r"`([^`]+)`", right))
        for spelled in re.findall(r"`([^`]+)`", left):
            prefix, _, rest = spelled.partition("{")
            suffixes = rest.rstrip("}").split(",") if rest else [""]
            for suffix in suffixes:
                rules[prefix + suffix] = forbidden
    return rules


RULES = rules_of_the_architecture_page()


def test_the_architecture_page_lists_the_rules() -> None:
    assert len(RULES) >= 10


@pytest.mark.parametrize("module", RULES)
def test_a_module_that_has_a_rule_exists(module: str) -> None:
    assert any(is_within(module_name(path), module) for path in SOURCES)


@pytest.mark.parametrize("module", RULES)
def test_a_module_imports_nothing_that_its_rule_forbids(module: str) -> None:
    breaches = [
        f"{module_name(path)} imports {name}"
        for path in SOURCES
        if is_within(module_name(path), module)
        for name in imported_by(path)
        if any(is_within(name, forbidden) for forbidden in RULES[module])
    ]

    assert breaches == []


def test_only_generated_code_lives_in_the_generated_folder() -> None:
    strays = [path for path in (ROOT / "services/gen").rglob("*.py") if "_pb2" not in path.name]

    assert strays == []
