"""The console of the admin listener, in a browser: one Parley for all tests."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Locator, expect

from tests.e2e.page.conftest import Visitor, opened
from tests.e2e.page.test_accessibility import check, violations
from tests.processes import Parley, started
from tests.upstream import Events, ScriptedUpstream, Stall, chunks, ending

ADMIN_KEY = "0123456789abcdef0123456789abcdef"
HOSTILE = "<img src=x onerror=alert(1)>\"';a/b%2F?#"
VIEWS = ("Live", "Usage", "Keys", "Accounts", "Log", "Changes")
CONFIG = """\
backends: {{up: {{kind: openai, base_url: "{url}"}}}}
models: [{{id: scripted, targets: [{{backend: up, model: scripted-1}}], retries: {{attempts: 1}}}}]
default_model: scripted
plans: {{pro: {{limits: {{tokens_per_day: 1000}}}}}}
"""


class Operator:
    """A page of the console, the questions that it has asked, and what went wrong in it."""

    def __init__(self, visitor: Visitor, url: str) -> None:
        self.visitor, self.page, self.url = visitor, visitor.page, url
        self.asked: list[str] = []
        self.accepts = True
        self.page.on("dialog", self._answer)

    def sign_in(self) -> None:
        """Opens the console and signs in with the admin key."""
        self.page.goto(self.url)
        self.page.get_by_label("Admin key").fill(ADMIN_KEY)
        self.page.get_by_role("button", name="Use this key").click()
        expect(self.page.get_by_role("heading", name="Targets")).to_be_visible()

    def open(self, view: str) -> None:
        """Opens a view by the navigation."""
        self.page.get_by_role("link", name=view, exact=True).click()
        expect(self.page.get_by_role("heading", name=view, level=1)).to_be_visible()

    def row(self, text: str) -> Locator:
        """Returns the row of a table with a text."""
        return self.page.get_by_role("row").filter(has_text=text)

    def reports(self, text: str) -> None:
        """Waits until the outcome of a change is announced."""
        expect(self.page.get_by_role("status").filter(has_text=text)).to_be_visible()

    def _answer(self, dialog: Dialog) -> None:
        self.asked.append(dialog.message)
        if self.accepts:
            dialog.accept()
        else:
            dialog.dismiss()


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with the admin listener and one worker."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "key").write_text(ADMIN_KEY)
    (folder / "parley.yaml").write_text(CONFIG.format(url=the_upstream.url))
    options = (
        "--config",
        str(folder / "parley.yaml"),
        "--admin",
        "127.0.0.1:0",
        "--admin-key-file",
        str(folder / "key"),
    )
    with started(*options, "--workers", "1", folder=folder) as found:
        yield found


@pytest.fixture(scope="module")
def signed_in_operator(chromium: Browser, parley: Parley) -> Iterator[Operator]:
    """One page for all tests of the file."""
    address = json.loads((parley.folder / "ready.json").read_text())["admin"]
    with opened(chromium, parley) as visitor:
        visitor.origin = f"http://{address}"
        operator = Operator(visitor, visitor.origin)
        operator.sign_in()
        yield operator


@pytest.fixture
def operator(signed_in_operator: Operator) -> Iterator[Operator]:
    """The console at its first view. At the end, it logged no error and called no other server."""
    signed_in_operator.page.goto(f"{signed_in_operator.url}/#/live")
    signed_in_operator.accepts, signed_in_operator.asked, signed_in_operator.visitor.fails = True, [], False
    signed_in_operator.visitor.problems.clear()
    yield signed_in_operator
    assert [] == signed_in_operator.visitor.problems


def ask(parley: Parley, upstream: ScriptedUpstream, key: str | None = None) -> None:
    """Has a model answer a question."""
    upstream.answer(Events([*chunks("Hello there"), *ending()]))
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
    assert 200 == parley.request("POST", "/v1/chat/completions", body, key)[0]


def test_a_wrong_key_is_refused(chromium: Browser, parley: Parley, signed_in_operator: Operator) -> None:
    """An API key is no admin key, and no part of the console is shown without one; the public port has no console."""
    with opened(chromium, parley) as visitor:
        visitor.origin, visitor.fails = signed_in_operator.url, True
        page = visitor.page
        page.goto(f"{signed_in_operator.url}/#/keys")
        page.get_by_label("Admin key").fill(parley.key)
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("alert")).to_contain_text("does not accept this admin key")
        assert 0 == page.get_by_role("navigation").count()
        assert [] == visitor.problems
    for path in ("/console/settings.json", "/console/index.html", "/console.html"):
        assert 404 == parley.request("GET", path)[0]


def test_without_operations_the_console_shows_what_is_stored(
    chromium: Browser, parley: Parley, signed_in_operator: Operator
) -> None:
    """An Envoy apart from its workers serves no operations: the console has neither their views nor their calls."""
    with opened(chromium, parley) as visitor:
        visitor.origin = signed_in_operator.url
        page, methods = visitor.page, list[str]()
        page.route(
            "**/console/settings.json", lambda route: route.fulfill(json={"certificates": False, "operations": False})
        )
        page.on("request", lambda request: methods.append(request.url.rpartition(".")[2]))
        page.goto(f"{signed_in_operator.url}/#/live")
        page.get_by_label("Admin key").fill(ADMIN_KEY)
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("heading", name="Usage", level=1)).to_be_visible()
        assert ["Usage", "Keys", "Accounts", "Changes"] == page.get_by_role("navigation").get_by_role(
            "link"
        ).all_inner_texts()
        page.get_by_role("link", name="Changes", exact=True).click()
        expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
        assert 0 == page.get_by_role("button", name="Reload").count()
        assert "Accounts/ListPlans" in methods
        assert not [method for method in methods if method.startswith("Operations")]
        assert [] == visitor.problems


def test_targets_and_running_calls_are_steered(operator: Operator, parley: Parley, upstream: ScriptedUpstream) -> None:
    """Breakers are opened and closed, weights set, and calls cancelled, each after a question; the view is live."""
    page = operator.page
    target = operator.row("up/scripted-1")
    operator.accepts = False
    target.get_by_role("button", name="Open the breaker").click()
    operator.accepts = True
    target.get_by_role("button", name="Open the breaker").click()
    operator.reports("The breaker of up/scripted-1 is open.")
    expect(target).to_contain_text("Open (operator)")
    assert 2 == len(operator.asked)
    expect(target.get_by_role("button", name="Close the breakers")).to_be_focused()
    page.keyboard.press("Enter")
    expect(target).to_contain_text("Closed")
    expect(target.get_by_role("button", name="Open the breaker")).to_be_focused()
    target.get_by_role("button", name="Set weight of").click()
    page.get_by_role("spinbutton", name="Weight").fill("0.5")
    page.get_by_role("dialog").get_by_role("button", name="Set weight").click()
    expect(target).to_contain_text("0.5 (not 1)")
    upstream.answer(Events([*chunks("Hel"), Stall()]))
    with parley.connection() as connection:
        body = json.dumps({"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
        connection.request("POST", "/v1/chat/completions", body, parley.headers(parley.key))
        response = connection.getresponse()
        call = operator.row("default").filter(has=page.get_by_role("button", name="Cancel the call"))
        expect(call).to_contain_text("scripted")
        call.get_by_role("button", name="Cancel the call").click()
        assert b"call_cancelled" in response.read()
    expect(page.get_by_text("No call runs at this moment.")).to_be_visible()
    expect(page.get_by_role("heading", name="0 running calls")).to_be_focused()


def test_the_life_of_a_key(operator: Operator, parley: Parley, upstream: ScriptedUpstream) -> None:
    """A key is created with scopes and limits, its secret is shown once and works; it is changed and revoked."""
    page = operator.page
    operator.open("Keys")
    page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill(HOSTILE)
    dialog.get_by_label("Account", exact=True).fill(f"{HOSTILE}\u202eof")
    dialog.get_by_label("Expires").fill("2099-12-31")
    dialog.get_by_role("button", name="Create a key").click()
    expect(dialog.get_by_role("alert")).to_contain_text("`account` must not have control characters")
    operator.visitor.problems.clear()  # the status of the refusal
    dialog.get_by_label("Account", exact=True).fill(HOSTILE)
    dialog.get_by_label("chat").check()
    dialog.get_by_label("Requests a minute").fill("5")
    dialog.get_by_role("button", name="Create a key").click()
    secret = dialog.locator("code").inner_text()
    ask(parley, upstream, secret)
    page.keyboard.press("Escape")
    row = operator.row(HOSTILE)
    expect(row).to_contain_text("chatRequests a minute: 5Dec 31, 2099")
    row.get_by_role("button", name="Edit").click()
    expect(dialog.get_by_label("Expires")).to_have_value("2099-12-31")
    dialog.get_by_label("Name", exact=True).fill(f"{HOSTILE}2")
    with page.expect_request("**/UpdateKey") as renamed:
        dialog.get_by_role("button", name="Save").click()
    assert '"update_mask":"name"' in (renamed.value.post_data or "")
    row.get_by_role("button", name="Edit").click()
    dialog.get_by_label("Expires").fill("")
    dialog.get_by_label("Requests a minute").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("chatnever")
    assert secret not in page.content()
    row.get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("Revoked")
    assert 0 == row.get_by_role("button").count()
    assert f"Revoke the key {HOSTILE}2? Its running calls end. This cannot be undone." == operator.asked[-1]


def test_accounts_show_their_limits_and_what_is_used(
    operator: Operator, parley: Parley, upstream: ScriptedUpstream
) -> None:
    """An account has the limits of its plan and its own, and the usage of the day; it is suspended and resumed."""
    page = operator.page
    ask(parley, upstream)
    ask(parley, upstream)
    operator.open("Accounts")
    row = operator.row("Edit").filter(has_text=re.compile("^default"))
    expect(row).to_contain_text("Tokens a day: 1,000")
    page.wait_for_function("() => [...document.querySelectorAll('meter')].length > 0")
    row.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Tokens a day")).to_have_attribute("placeholder", "1000")
    dialog.get_by_label("Cost a month").fill("2.5")
    dialog.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("of 2.50")
    row.get_by_role("button", name="Suspend").click()
    expect(row).to_contain_text("Suspended")
    row.get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("Active")


def test_accounts_are_listed_without_their_usage(operator: Operator, parley: Parley) -> None:
    """Accounts are shown, with the reason, where usage cannot be read; a list that goes on for too long is cut."""
    page = operator.page
    operator.visitor.fails = True
    refused = {"code": 3, "message": "more than 10,000 rows"}
    page.route("**/QueryUsage", lambda route: route.fulfill(status=400, json=refused))
    page.route("**/ListKeys", lambda route: route.fulfill(json={"next_page_token": "more"}))
    try:
        operator.open("Accounts")
        expect(page.get_by_role("alert")).to_have_text("What is used is not known: more than 10,000 rows")
        expect(operator.row("Edit").filter(has_text=re.compile("^default"))).to_contain_text("Active")
        operator.open("Keys")
        expect(page.get_by_role("alert")).to_contain_text("newer ones are missing")
    finally:
        page.unroute_all()


def test_usage_is_drawn_and_listed(operator: Operator, parley: Parley, upstream: ScriptedUpstream) -> None:
    """The chart is drawn within the policy of the page, and the table has its sums, by each group and measure."""
    page = operator.page
    ask(parley, upstream)
    operator.open("Usage")
    expect(page.locator("canvas")).to_be_visible()
    expect(operator.row("scripted")).to_be_visible()
    page.get_by_label("By", exact=True).select_option("target")
    expect(operator.row("up/scripted-1")).to_be_visible()
    page.get_by_label("Measure").select_option("calls")
    expect(page.get_by_role("img", name="Calls a day by target")).to_be_visible()
    page.get_by_label("By", exact=True).select_option("account")
    expect(operator.row("default")).to_be_visible()
    page.locator(".u-over").hover(position={"x": 1200, "y": 100})
    expect(page.locator("figcaption")).to_contain_text(re.compile(r"\d{4}: \d+"))


def test_a_call_is_found_by_its_request(operator: Operator, parley: Parley, upstream: ScriptedUpstream) -> None:
    """The latest lines are listed without those of administrators; a line is found by its request, with all fields."""
    page = operator.page
    upstream.answer(Events([*chunks("Hello"), *ending()]))
    body = json.dumps({"model": f"{HOSTILE}\u202e", "messages": [{"role": "user", "content": "secret words"}]})
    with parley.connection() as connection:
        headers = parley.headers(parley.key) | {"x-request-id": "hostile/request"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        connection.getresponse().read()
    operator.open("Log")
    assert 0 == operator.row("admin-key:admin").count()
    page.get_by_label("Show calls of administrators").check()
    expect(operator.row("admin-key:admin").first).to_be_visible()
    page.get_by_label("Request", exact=True).fill("hostile/request")
    page.get_by_role("button", name="Find").click()
    fields = page.locator("dl")
    expect(fields).to_contain_text(f"model{HOSTILE}\ufffd")
    assert "\u202e" not in fields.inner_text()
    assert "secret words" not in page.content()
    page.get_by_label("Request", exact=True).fill("nothing")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No worker has a line of this request")).to_be_visible()
    page.get_by_role("combobox", name="Log level").select_option("debug")
    operator.reports("The log level is debug.")


def test_the_outcome_of_a_reload_is_shown(operator: Operator, parley: Parley) -> None:
    """A reload that fails is shown with its reason, and the request for it is in the audit log."""
    page, config = operator.page, parley.folder / "parley.yaml"
    text = config.read_text()
    operator.open("Changes")
    config.write_text(f"{text}nonsense: 1\n")
    page.get_by_role("button", name="Reload").click()
    expect(page.get_by_role("alert")).to_contain_text("nonsense")
    expect(operator.row("Reload").first).to_contain_text("admin-key:admin")
    config.write_text(text)


def test_no_view_violates_a_rule(operator: Operator, installed: Path) -> None:
    """No view and no form has a violation or is wider than the screen, on a phone and on a wide one."""
    page = operator.page
    for view in VIEWS:
        operator.open(view)
        expect(page.locator(".loading")).to_have_count(0)
        if view in {"Keys", "Accounts"}:
            page.get_by_role("button", name="Create a").click()
            assert [] == violations(page, installed), f"form of {view}"
            page.keyboard.press("Escape")
        check(page, installed, view)
        for width in (320, 390, 600, 850, 1440):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (view, width)
