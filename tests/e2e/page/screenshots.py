"""Takes pictures of every view of the page: `python -m tests.e2e.page.screenshots FOLDER`.

Each is taken in light and dark, 390 and 1440 pixels wide.
"""

import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.conftest import write_config
from tests.e2e.page.conftest import OPTIONS
from tests.e2e.page.test_playground import RICH
from tests.processes import Parley, started
from tests.upstream import Cut, Delay, Events, ScriptedUpstream, chunk, chunks, ending, stream

WIDTHS = {390: 844, 1440: 900}


def pictures(browser: Browser, parley: Parley, upstream: ScriptedUpstream, folder: Path) -> None:
    """Takes the pictures of all views in each theme and width."""
    for theme, (width, height) in product(("light", "dark"), WIDTHS.items()):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        _tour(page, parley, upstream, folder, f"{theme}-{width}")
        page.close()


def _tour(page: Page, parley: Parley, upstream: ScriptedUpstream, folder: Path, kind: str) -> None:
    def shoot(name: str) -> None:
        page.screenshot(path=folder / f"{name}-{kind}.png")

    upstream.answer(
        Events([chunk({"role": "assistant", "reasoning_content": "Hm."}), *chunks(RICH), *ending()]),
        Events([*chunks("Half of an answer"), Delay(0.3), Cut(reset=True)]),
        stream("One of two answers"),
        stream("The other answer"),
    )
    page.goto(parley.http)
    page.get_by_label("API key").wait_for()
    shoot("sign-in")
    page.get_by_label("API key").fill(parley.key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_label("Message", exact=True).wait_for()
    shoot("empty")
    _ask(page, "Show everything")
    page.get_by_role("button", name="Receipt").click()
    shoot("answer")
    page.get_by_role("button", name="Code", exact=True).click()
    shoot("code")
    page.keyboard.press("Escape")
    _ask(page, "Break off")
    shoot("broken")
    page.get_by_role("button", name="Setup").click()
    shoot("setup")
    page.get_by_role("button", name="Setup").click()
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("button", name="Compare two models").click()
    _ask(page, "Compare")
    shoot("compare")
    page.get_by_role("button", name="Compare two models").click()
    page.get_by_role("link", name="Sessions").click()
    page.get_by_role("button", name="Delete").first.wait_for()
    shoot("sessions")


def _ask(page: Page, question: str) -> None:
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_role("button", name="Send", exact=True).wait_for()
    page.get_by_role("button", name="Retry").last.wait_for()


def main() -> None:
    """Writes the pictures into the folder of the first argument."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made, ScriptedUpstream() as upstream, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        with started("--config", str(write_config(Path(made), upstream))) as parley:
            pictures(browser, parley, upstream, folder)
        browser.close()


if __name__ == "__main__":
    main()
