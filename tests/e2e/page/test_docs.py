"""The documentation at `/docs/` in a browser."""

from contextlib import suppress
from pathlib import Path

from playwright.sync_api import Error, Locator, Page, expect

from tests.e2e.page.conftest import PHONE, Visitor
from tests.e2e.page.test_accessibility import check

LIST = "/v1/models"


def open_operation(page: Page, path: str) -> None:
    """Opens an operation of the reference of REST."""
    page.locator(".opblock", has=page.locator(f'[data-path="{path}"]')).locator(".opblock-summary-control").click()


def open_search(page: Page) -> Locator:
    """Opens the search and returns its entry. The page shows its text before its script answers the keys."""
    entry = page.get_by_role("combobox", name="Search")
    for _ in range(100):
        page.keyboard.press("Control+k")
        with suppress(Error):
            entry.wait_for(timeout=500)
            break
    return entry


def test_the_documentation_can_be_searched(visitor: Visitor, installed: Path) -> None:
    """The search finds a page by words in it, and opens it; no view has a violation."""
    page = visitor.page
    page.goto(f"{visitor.parley.http}/docs/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Parley")
    check(page, installed, "start")
    open_search(page).press_sequentially("idempotent retries")
    result = page.get_by_role("option").filter(has_text="Idempotent retries").first
    expect(result).to_be_visible()
    result.click()
    expect(page.get_by_role("heading", name="Idempotent retries")).to_be_visible()
    assert "/docs/sessions/" in page.url
    check(page, installed, "sessions")


def test_the_programs_of_a_recipe_are_in_tabs(visitor: Visitor, installed: Path) -> None:
    """A tab shows its program, and the next recipe opens with the same language; the view has no violation."""
    page = visitor.page
    page.goto(f"{visitor.parley.http}/docs/recipes/call/")
    expect(page.get_by_text("from openai import OpenAI").first).to_be_visible()
    page.get_by_text("grpcurl", exact=True).first.click()
    expect(page.get_by_text("parley.v1.ChatCompletions/CreateChatCompletion").first).to_be_visible()
    expect(page.get_by_text("from openai import OpenAI").first).to_be_hidden()
    check(page, installed, "recipe")
    page.goto(f"{visitor.parley.http}/docs/recipes/stream/")
    expect(page.get_by_text("parley.v1.ChatCompletions/StreamChatCompletion").first).to_be_visible()


WORDS = ("azure", "429", "session id", "redact", "streaming", "docker", "tool call", "backup")


def test_obvious_words_are_found(visitor: Visitor) -> None:
    """The search has results for words that a reader would try."""
    page = visitor.page
    page.goto(f"{visitor.parley.http}/docs/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Parley")
    entry = open_search(page)
    for word in WORDS:
        entry.fill(word)
        expect(page.get_by_role("option").filter(has_text=word.split()[0]).first).to_be_visible()


def test_the_documentation_is_read_on_a_phone(visitor: Visitor) -> None:
    """On a phone the navigation is behind a button, and nothing is wider than the screen."""
    page = visitor.page
    page.set_viewport_size(PHONE)
    for path in ("", "configuration/", "api/", "recipes/call/", "protos/"):
        page.goto(f"{visitor.parley.http}/docs/{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.locator(".md-header label[for=__drawer]").click()
    expect(page.get_by_role("link", name="gRPC reference: guards")).to_be_visible()


def test_an_operation_can_be_tried(visitor: Visitor, installed: Path) -> None:
    """With a key, an operation of the reference calls this server and shows its answer."""
    page = visitor.page
    page.goto(f"{visitor.parley.http}/docs/api/")
    expect(page.locator(f'[data-path="{LIST}"]')).to_be_visible()
    check(page, installed, "reference")
    page.get_by_role("button", name="Authorize").click()
    expect(page.locator(".auth-container")).to_have_count(2)  # a key, a token; no form for a sign-in
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
