"""Fixtures of the page's tests: Debian's Chromium, driven by Playwright, and a page that is signed in."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, ViewportSize, expect, sync_playwright

from tests.e2e.node_packages import installed, unavailable
from tests.processes import PATIENCE, Parley

__all__ = ["installed"]
# Without a sandbox, because CI runs as root.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
WIDE: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
expect.set_options(timeout=PATIENCE * 1000)


class Visitor:
    """A page in a browser context of its own, and what went wrong in it.

    `fails` is set by tests of failures: the browser's console then reports the status of the failed request.
    `may_call` has the origins of issuers, `origin` is that of the page.
    """

    def __init__(self, page: Page, parley: Parley) -> None:
        self.page, self.parley = page, parley
        self.fails = False
        self.may_call: tuple[str, ...] = ()
        self.origin = parley.http
        self.problems: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._check)

    def sign_in(self) -> None:
        """Opens the page and signs in with a key, which the browser keeps."""
        self.page.goto(self.parley.http)
        self.page.get_by_label("API key").fill(self.parley.key)
        self.page.get_by_label("Keep it in this browser").check()
        self.page.get_by_role("button", name="Use this key").click()
        self.choose("scripted")

    def restart(self) -> None:
        """Loads the page anew, without the setup of an earlier test, and signed in."""
        self.fails = False
        self.page.evaluate("sessionStorage.clear()")
        self.page.goto(self.parley.http)
        self.choose("scripted")

    def choose(self, model: str, label: str = "Model") -> None:
        """Chooses a model."""
        self.page.get_by_role("combobox", name=label, exact=True).select_option(model)

    def ask(self, question: str) -> None:
        """Sends a question."""
        self.page.get_by_label("Message", exact=True).fill(question)
        self.page.get_by_role("button", name="Send", exact=True).click()

    def finished(self) -> None:
        """Waits until the answer has ended."""
        expect(self.page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)

    def _note(self, message: ConsoleMessage) -> None:
        is_status = message.text.startswith("Failed to load resource")
        if not self.page.url.startswith(self.origin):
            return
        if message.type in {"error", "warning"} and not (self.fails and is_status):
            self.problems.append(message.text)

    def _check(self, request: Request) -> None:
        is_own = request.url.startswith((self.origin, "data:", *self.may_call))
        if request.frame.url.startswith(self.origin) and not is_own and not request.is_navigation_request():
            self.problems.append(f"a request to {request.url}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the tests of a file.

    Playwright's event loop runs as long as the browser: asynchronous tests of other files cannot run then.
    """
    command = shutil.which("chromium")
    if command is None:
        unavailable("chromium is not installed; the page is tested in it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visitor(chromium: Browser, stack: Parley) -> Iterator[Visitor]:
    """A page that is not signed in. At its end, no error was logged and no other server was called."""
    with opened(chromium, stack) as found:
        yield found
        assert [] == found.problems


@pytest.fixture(scope="module")
def signed_in(chromium: Browser, stack: Parley) -> Iterator[Visitor]:
    """One page that is signed in, for all tests that load it anew: a new browser context takes a second of a core."""
    with opened(chromium, stack) as found:
        found.sign_in()
        yield found


@pytest.fixture
def reader(signed_in: Visitor) -> Iterator[Visitor]:
    """A signed-in page with the model `scripted`. At its end, it logged no error and called no other server."""
    signed_in.restart()
    signed_in.problems.clear()
    yield signed_in
    signed_in.page.set_viewport_size(WIDE)
    signed_in.page.emulate_media(color_scheme="light")
    assert [] == signed_in.problems


@contextmanager
def opened(chromium: Browser, parley: Parley) -> Iterator[Visitor]:
    """Opens a page in a browser context of its own."""
    context = chromium.new_context(viewport=WIDE, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=parley.http)
    try:
        yield Visitor(context.new_page(), parley)
    finally:
        context.close()
