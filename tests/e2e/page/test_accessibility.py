"""The page with axe-core, in light and dark, on a phone and on a wide screen."""

from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Page, ViewportSize, expect

from tests.e2e.page.conftest import PHONE, WIDE, Visitor
from tests.e2e.page.test_playground import RICH, TOKENS
from tests.e2e.vendor import PARALLEL_CALLS, calls_in_pieces
from tests.upstream import Cut, Events, ScriptedUpstream, chunk, chunks, ending


def violations(page: Page, packages: Path) -> list[Any]:
    """Returns what axe-core finds wrong with a page: the rule, and the elements."""
    source = (packages / "node_modules" / "axe-core" / "axe.min.js").read_text()
    page.evaluate(f"() => {{ {source} }}")  # not as an element, which the page's policy forbids
    found = page.evaluate("async () => (await axe.run()).violations")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


def check(page: Page, packages: Path, view: str) -> None:
    """Checks a view in light on a phone, and in dark on a wide screen."""
    looks: list[tuple[Literal["light", "dark"], ViewportSize]] = [("light", PHONE), ("dark", WIDE)]
    for theme, size in looks:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=theme)
        assert [] == violations(page, packages), f"{view}, {theme}"


def test_no_view_violates_a_rule(visitor: Visitor, upstream: ScriptedUpstream, installed: Path) -> None:
    """No view, from sign-in to the list of sessions, has a violation."""
    page = visitor.page
    page.goto(visitor.parley.http)
    expect(page.get_by_label("API key")).to_be_visible()
    check(page, installed, "sign-in")
    visitor.sign_in()
    check(page, installed, "empty")
    upstream.answer(Events([chunk({"role": "assistant", "reasoning_content": "Hm."}), *chunks(RICH), *ending()]))
    visitor.ask("Show everything")
    visitor.finished()
    expect(page.locator("math")).to_have_count(1)
    page.get_by_role("button", name="Receipt").click()
    check(page, installed, "answer")
    page.get_by_role("button", name="Code", exact=True).click()
    check(page, installed, "code")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Setup").click()
    check(page, installed, "setup")
    page.get_by_role("button", name="Setup").click()
    page.get_by_role("link", name="Sessions").click()
    expect(page.get_by_label("Search")).to_be_visible()
    check(page, installed, "sessions")
    page.get_by_role("button", name="Edit title and labels of Show everything").first.click()
    check(page, installed, "properties of a session")


def test_no_detail_violates_a_rule(reader: Visitor, upstream: ScriptedUpstream, installed: Path) -> None:
    """Calls of tools, probabilities, several choices, an edit and a failure have no violation."""
    page = reader.page
    shaded = chunk({"content": "Paris!"})
    shaded["choices"][0]["logprobs"] = {"content": TOKENS, "refusal": None}
    other = chunk({"content": "Rome"})
    other["choices"][0]["index"] = 1
    upstream.answer(
        Events([shaded, other, *ending()]), Events([*chunks("Half"), Cut(reset=True)]), calls_in_pieces(PARALLEL_CALLS)
    )
    reader.ask("Where?")
    reader.finished()
    page.get_by_role("button", name="Probabilities").click()
    reader.ask("Break")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="Edit").first.click()
    check(page, installed, "probabilities, failure, edit")
    page.get_by_role("button", name="Cancel").click()
    reader.ask("Call")
    expect(page.get_by_role("button", name="Send the results")).to_be_enabled()
    check(page, installed, "tools")


def test_the_reader_chooses_the_colours(reader: Visitor) -> None:
    """The button changes from the system's colours to light and dark; the choice is kept."""
    page = reader.page
    ground = "getComputedStyle(document.body).backgroundColor"
    page.get_by_role("button", name="System colours").click()
    light = page.evaluate(ground)
    page.get_by_role("button", name="Light colours").click()
    expect(page.get_by_role("button", name="Dark colours")).to_be_visible()
    assert light != page.evaluate(ground)
    page.reload()
    expect(page.get_by_role("button", name="Dark colours")).to_be_visible()
    assert light != page.evaluate(ground)
    page.get_by_role("button", name="Dark colours").click()
    expect(page.get_by_role("button", name="System colours")).to_be_visible()


def test_nothing_is_wider_than_the_screen(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The page has no horizontal scroll bar at any width, also with a wide table and a long word."""
    wide = "|".join("column" for _ in range(40))
    upstream.answer(Events([*chunks(f"{'x' * 500}\n\n|{wide}|\n|{'-|' * 40}\n|{wide}|\n"), *ending()]))
    reader.ask("Wide")
    reader.finished()
    expect(reader.page.get_by_role("table")).to_be_visible()
    for width in (320, 390, 600, 900, 1440):
        reader.page.set_viewport_size({"width": width, "height": 844})
        assert reader.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


def test_a_low_screen_can_be_scrolled(reader: Visitor) -> None:
    """At four times the size (WCAG 1.4.10) no part covers another, with two chats too; the field can be reached."""
    reader.page.set_viewport_size({"width": 320, "height": 256})
    for count in (1, 2):
        last, composer = reader.page.locator(".turns").last, reader.page.locator(".composer")
        end, start = (one.bounding_box() for one in (last, composer))
        assert end
        assert start
        assert end["y"] + end["height"] <= start["y"] + 1, count
        assert end["height"] > 50, count
        reader.page.get_by_label("Message", exact=True).click()
        reader.page.get_by_role("button", name="Compare two models").click()
