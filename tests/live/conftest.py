"""Fixtures of the live tests: the real engine, a real Docker daemon, real requests."""

import shutil
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest

from tests.live.figures import Figures, Record
from tests.live.stack import Stack


@runtime_checkable
class Reporter(Protocol):
    """What a test ran on, and can say what to look at when it fails."""

    def report(self) -> Iterable[tuple[str, str]]: ...


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for one module's tests, which build on each other's state; gone afterwards whatever happens."""
    fresh = Stack(tmp_path_factory.mktemp("stack"))
    try:
        yield fresh
    finally:
        fresh.remove()
        left = fresh.leftovers()
        assert not left, f"left behind: {left}"


@pytest.fixture(scope="module")
def running(stack: Stack) -> Stack:
    """The stack, up with two replicas of the app of the fault tests."""
    shutil.rmtree(stack.folder / "app")
    shutil.copytree(Path(__file__).parent / "app", stack.folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    stack.configure(healthTimeout="15")
    stack.up()
    return stack


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    """All figures of this run; they are written where docs/reliability.md is made from."""
    all_of_them = Figures()
    yield all_of_them
    all_of_them.write()


@pytest.fixture
def record(figures: Figures, request: pytest.FixtureRequest) -> Record:
    """Keeps and prints a fault's figures: `record(fault, load, note)`."""
    return partial(figures.add, request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for fixture in getattr(item, "funcargs", {}).values():
            if isinstance(fixture, Reporter):
                report.sections.extend(fixture.report())
    return report
