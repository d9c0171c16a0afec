"""What the documents name is there: targets, settings, files, links, and what runs the blocks that say so."""

import inspect
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from infra.settings import Settings
from tests.tooling import documents
from tests.tooling.documents import PAGES, ROOT, Block
from tooling import cli, reference

BLOCKS = {page: documents.blocks(page) for page in PAGES}
RUN_ELSEWHERE = [block for blocks in BLOCKS.values() for block in blocks if block.run_by]
LANGUAGES = {"sh", "text", "yaml", "diff", "mermaid"}
FOLDERS = ("airgap", "app", "bench", "docs", "examples", "exporter", "infra", "nginx", "tests", "tooling", "uwsgi")
SOURCES = {".py", ".yaml", ".yml", ".j2", ".c", ".md", ""}
# In camelCase as settings are, and others' words.
NO_SETTINGS = re.compile(r"docker:\w+|(ca|cert|key)Material|hashCharacters|maintenance\.html")
KEYS = {key for key, _, _ in reference._rows(reference.fields(), "")}
MAPPINGS = {"environment", "basicAuth.users", "static", "headers", "balancing.weights"}
ORIGINAL = ("Dockerfile", "uwsgi.ini", "nginx.conf")
# What the bench has added to the original: a TLS listener, and a compiler where the image has none.
OF_THE_BENCH = ("ssl", "gcc", "ARG PYTHON_FULL_IMAGE")


def spans(page: str) -> list[str]:
    """What stands in backticks outside blocks."""
    prose = re.sub(r"^[> ]*```.*?^[> ]*```$", "", documents.text(page), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def commands(page: str) -> list[str]:
    """What a reader may type, a line each."""
    return spans(page) + [line for block in documents.commands(page) for line in block.text.splitlines()]


def targets(text: str) -> set[str]:
    return set(re.findall(r"\bmake (?:-s )?([a-z][a-z-]*)", text))


def keys(text: str) -> set[str]:
    """The settings in `pulumi config` commands."""
    found = set()
    for command in re.findall(r"pulumi config (?:set|rm|get) (.*)", text):
        words = shlex.split(command.partition(" | ")[0], comments=True)
        found |= set([word for word in words if not word.startswith("-") and word not in ("production", "KEY")][:1])
    return found


def is_setting(key: str) -> bool:
    """Also an item of one: `paths["/admin"].auth`, `tls.hosts[0]`, `environment.NAME`."""
    key = re.sub(r'^paths(\["[^"]*"\]|\.…)', "paths.PATH", key)
    key = re.sub(r"\[\d+\]$", "", key)
    whole, _, _ = key.replace("[", ".").rpartition(".")
    return key in KEYS or whole in MAPPINGS or bool(NO_SETTINGS.match(key))


def slug(heading: str) -> str:
    """The anchor that GitHub makes of it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_found_and_of_a_known_kind(page: str) -> None:
    fences = re.findall(r"^ *```", documents.text(page), re.MULTILINE)
    assert len(fences) == 2 * len(BLOCKS[page])
    assert {block.language for block in BLOCKS[page]} <= LANGUAGES
    markers = re.findall(r"<!-- run by", documents.text(page))
    assert len(markers) == len([block for block in BLOCKS[page] if block.run_by]), "a marker stands above no block"


@pytest.mark.parametrize("block", RUN_ELSEWHERE, ids=lambda block: block.where)
def test_a_block_that_is_run_elsewhere_is_run_there(block: Block) -> None:
    words = targets(block.text) | {re.split(r"\W", key)[0] for key in keys(block.text)}
    assert words, "this needs no marker, or a check of its own"
    if block.run_by == ".ci/run":
        assert "make test" in (ROOT / ".ci/run").read_text()
        assert words <= {"test", *re.findall(r"\w+", inspect.getsource(cli.test))}
        return
    file, _, test = block.run_by.partition("::")
    source = (ROOT / file).read_text()
    assert re.search(rf"^def {test}\(", source, re.MULTILINE), f"{file} has no {test}"
    for fixtures in ("conftest.py", "../live/stack.py"):
        source += (
            (ROOT / file).parent.joinpath(fixtures).read_text()
            if (ROOT / file).parent.joinpath(fixtures).exists()
            else ""
        )
    assert {word for word in words if not re.search(rf"\b{word}\b", source)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_targets_are_there(page: str) -> None:
    mentioned = {
        target for command in commands(page) if command.lstrip().startswith("make") for target in targets(command)
    }
    assert mentioned - {"help"} <= set(re.findall(r"^([a-z-]+): ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_target_is_in_a_document() -> None:
    mentioned = {target for page in PAGES for command in commands(page) for target in targets(command)}
    assert set(re.findall(r"^([a-z-]+): ## ", (ROOT / "Makefile").read_text(), re.MULTILINE)) - mentioned == set()


@pytest.mark.parametrize("page", PAGES)
def test_settings_are_there(page: str) -> None:
    named = {key for command in commands(page) for key in keys(command)}
    named |= {span.split(":")[0] for span in spans(page) if re.fullmatch(r"[a-z]+[A-Z][a-zA-Z]*(: .*)?", span)}
    first = {key.partition(".")[0] for key in KEYS}
    for span in spans(page):
        dotted = re.fullmatch(r"([a-z][a-zA-Z]*)[.[][^ ()/]*(: .*)?", span.partition(": ")[0])
        if dotted and dotted[1] in first:
            named.add(span.partition(": ")[0])
    # Below its parent a setting goes by its last name; and what the reference has in backticks may be a value.
    known = {key.rpartition(".")[2] for key in KEYS} | set(spans(reference.PAGE))
    assert {key for key in named if not is_setting(key)} - known == set()


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_a_configuration_are_accepted(page: str) -> None:
    for block in BLOCKS[page]:
        config = (
            yaml.safe_load(block.text).get("config", {}) if block.language == "yaml" and "config:" in block.text else {}
        )
        values = {key.removeprefix("uwsgi-nginx:"): value for key, value in config.items()}
        values.setdefault("basicAuth", {"users": {"eve": "set by a command"}})
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        Settings.parse(texts, {"basicAuth"})


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", documents.text(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_are_there(page: str) -> None:
    for span in spans(page):
        path = span.split("::")[0].rstrip("/")
        if re.fullmatch(rf"({'|'.join(FOLDERS)})(/[\w.-]+)+", path) and not path.startswith("airgap/python:"):
            assert (ROOT / path).exists() or not Path(path).suffix, f"{page} names {span}"


def test_documents_that_the_code_names_are_there() -> None:
    tracked = [
        file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.suffix in SOURCES and file.is_file()
    ]
    for file in [*tracked, ROOT / "__main__.py", ROOT / "Makefile", ROOT / "CHANGELOG.md"]:
        for name in re.findall(r"\b(?:docs|airgap)/[\w-]+\.md\b", file.read_text(encoding="utf-8", errors="replace")):
            assert (ROOT / name).exists(), f"{file} names {name}"


@pytest.mark.parametrize("name", ORIGINAL)
def test_each_line_of_the_original_has_its_place(name: str) -> None:
    lines = (ROOT / "bench/contenders/original" / name).read_text().splitlines()
    told = set(spans("docs/from-compose.md"))
    for line in (line.strip().removesuffix("{").removesuffix(";").strip() for line in lines):
        if line and not line.startswith(("#", "}")) and not any(mark in line for mark in OF_THE_BENCH):
            assert line in told
