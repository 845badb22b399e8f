"""The documentation at `/docs/` in a browser."""

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.page.conftest import PHONE, Visitor
from tests.e2e.page.test_accessibility import check

LIST = "/v1/models"


def open_operation(page: Page, path: str) -> None:
    """Opens an operation of the reference of REST."""
    page.locator(".opblock", has=page.locator(f'[data-path="{path}"]')).locator(".opblock-summary-control").click()


def test_the_documentation_can_be_searched(visitor: Visitor, installed: Path) -> None:
    """The search finds a page by words in it, and opens it; no view has a violation."""
    page = visitor.page
    page.goto(f"{visitor.parley.http}/docs/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Parley")
    check(page, installed, "start")
    page.keyboard.press("Control+k")
    page.keyboard.type("idempotent retries")
    result = page.get_by_role("option").filter(has_text="Idempotent retries").first
    expect(result).to_be_visible()
    result.click()
    expect(page.get_by_role("heading", name="Idempotent retries")).to_be_visible()
    assert "/docs/sessions/" in page.url
    check(page, installed, "sessions")


def test_the_documentation_is_read_on_a_phone(visitor: Visitor) -> None:
    """On a phone the navigation is behind a button, and nothing is wider than the screen."""
    page = visitor.page
    page.set_viewport_size(PHONE)
    for path in ("", "configuration/", "api/", "protos/"):
        page.goto(f"{visitor.parley.http}/docs/{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.locator(".md-header label[for=__drawer]").click()
    expect(page.get_by_role("link", name="Sessions", exact=True)).to_be_visible()


def test_an_operation_can_be_tried(visitor: Visitor, installed: Path) -> None:
    """With a key, an operation of the reference calls this server and shows its answer."""
    page = visitor.page
    page.goto(f"{visitor.parley.http}/docs/api/")
    expect(page.locator(f'[data-path="{LIST}"]')).to_be_visible()
    check(page, installed, "reference")
    page.get_by_role("button", name="Authorize").click()
    entry = page.locator(".auth-container").filter(has_text="API key")
    entry.get_by_label("Value").fill(visitor.parley.key)
    entry.get_by_role("button", name="Authorize").click()
    page.get_by_role("button", name="Close", exact=True).last.click()
    open_operation(page, LIST)
    page.get_by_role("button", name="Execute").click()
    shown = page.locator(".live-responses-table .response")
    expect(shown).to_contain_text("200")
    expect(shown).to_contain_text('"scripted"')
    check(page, installed, "operation")
