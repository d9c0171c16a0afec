"""A real browser: Debian's Chromium, without a window."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tooling import debian
from tooling.console import step

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
PACKAGES = ("chromium", "chromium-driver")


def find() -> tuple[str, str]:
    """Paths of a browser and its driver, installed first where this is a Debian and the user may do that."""
    found = _find()
    if found is None and (shutil.which("apt-get") is None or os.geteuid() != 0):
        pytest.skip(
            f"there is no Chromium with its driver on this machine; on Debian: apt-get install {' '.join(PACKAGES)}"
        )
    if found is None:
        with step("Chromium", "for the tests of the status page") as current:
            debian.install(PACKAGES, "Chromium is not installed", current)
        found = _find()
    assert found, f"{' and '.join(PACKAGES)} are installed, and there is no browser or no driver"
    return found


def _find() -> tuple[str, str] | None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which(DRIVER)
    return (browser, driver) if browser and driver else None


@contextmanager
def browser(width: int = 1200, height: int = 900, *, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser, which is closed afterwards."""
    path, driver = find()
    options = webdriver.ChromeOptions()
    options.binary_location = path
    for argument in ("--headless=new", f"--window-size={width},{height}", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--hide-scrollbars")
    if dark:
        options.add_argument("--force-dark-mode")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium has none for root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


def complaints(opened: webdriver.Chrome) -> list[dict[str, Any]]:
    """What its console says since it was last asked: errors of scripts, violations of the page's policy."""
    said: list[dict[str, Any]] = opened.get_log("browser")  # type: ignore[no-untyped-call]
    # Chromium drops its connections when the host gets another network, as every stack of another test is one.
    return [line for line in said if "ERR_NETWORK_CHANGED" not in line["message"]]
