"""The page with axe-core, in light and dark, on a phone and on a wide screen."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.page.conftest import WIDE, Visitor
from tests.e2e.page.test_playground import RICH
from tests.upstream import Events, ScriptedUpstream, chunk, chunks, ending

PHONE = {"width": 390, "height": 844}


def violations(page: Page, packages: Path) -> list[Any]:
    """Returns what axe-core finds wrong with a page: the rule, and the elements."""
    source = (packages / "node_modules" / "axe-core" / "axe.min.js").read_text()
    page.evaluate(f"() => {{ {source} }}")  # not as an element, which the page's policy forbids
    found = page.evaluate("async () => (await axe.run()).violations")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize(("theme", "size"), product(["light", "dark"], [PHONE, WIDE]), ids=str)
def test_no_view_violates_a_rule(
    visitor: Visitor, upstream: ScriptedUpstream, installed: Path, theme: str, size: Any
) -> None:
    """Sign-in, an empty and a used Playground, the setup and the code of a request are without a violation."""
    page = visitor.page
    page.set_viewport_size(size)
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    page.goto(visitor.parley.http)
    expect(page.get_by_label("API key")).to_be_visible()
    assert [] == violations(page, installed), "sign-in"
    visitor.sign_in()
    assert [] == violations(page, installed), "empty"
    upstream.answer(Events([chunk({"role": "assistant", "reasoning_content": "Hm."}), *chunks(RICH), *ending()]))
    visitor.ask("Show everything")
    visitor.finished()
    expect(page.locator("math")).to_have_count(1)
    page.get_by_role("button", name="Receipt").click()
    assert [] == violations(page, installed), "used"
    page.get_by_role("button", name="Code", exact=True).click()
    assert [] == violations(page, installed), "code"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Setup").click()
    assert [] == violations(page, installed), "setup"


@pytest.mark.parametrize("width", [390, 600, 900, 1440])
def test_nothing_is_wider_than_the_screen(visitor: Visitor, upstream: ScriptedUpstream, width: int) -> None:
    """The page has no horizontal scroll bar at any width, also with a wide table and a long word."""
    visitor.page.set_viewport_size({"width": width, "height": 844})
    visitor.sign_in()
    wide = "|".join("column" for _ in range(40))
    upstream.answer(Events([*chunks(f"{'x' * 500}\n\n|{wide}|\n|{'-|' * 40}\n|{wide}|\n"), *ending()]))
    visitor.ask("Wide")
    visitor.finished()
    assert visitor.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
