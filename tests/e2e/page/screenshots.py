"""Takes pictures of every view of the page: `python -m tests.e2e.page.screenshots FOLDER`.

Each is taken in light and dark, 390 and 1440 pixels wide. `--docs` in place of the folder renews those of docs/page.md,
with pngquant (Debian's package).
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e import vendor
from tests.e2e.page.conftest import OPTIONS
from tests.e2e.page.test_playground import PIXEL, TOKENS
from tests.processes import Parley, started
from tests.upstream import Cut, Delay, Events, ScriptedUpstream, Stall, chunk, chunks, ending

WIDTHS = {390: 844, 1440: 900}
DOCS = Path(__file__).parents[3] / "docs" / "images"
SHOWN = ("answer-light-1440", "compare-dark-1440", "sessions-light-1440", "answer-dark-390", "console-live-light-1440")
ADMIN_KEY = "0123456789abcdef0123456789abcdef"
CONFIG = """\
backends: {{large: {{kind: openai, base_url: "{url}"}}, small: {{kind: openai, base_url: "{url}"}}}}
models:
  - id: large
    targets: [{{backend: large, model: large-2}}]
    retries: {{attempts: 1}}
    metadata: {{context_length: 131072, max_output: 16384, modalities: [text, image], tools: true}}
  - {{id: small, targets: [{{backend: small, model: small-2}}], retries: {{attempts: 1}}}}
plans: {{pro: {{limits: {{tokens_per_day: 20000, cost_per_month: 100}}}}}}
prices: {{large/large-2: {{prompt: 2, completion: 8}}, small/small-2: {{prompt: 0.1, completion: 0.4}}}}
"""
ANSWER = """\
A binary search halves the interval with each step, so it needs $O(\\log n)$ comparisons:

$$T(n) = T(n / 2) + 1 \\quad\\Rightarrow\\quad T(n) = \\lfloor \\log_2 n \\rfloor + 1$$

```python
def search(items: list[int], wanted: int) -> int | None:
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if items[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < len(items) and items[low] == wanted else None
```

| items | linear | binary |
|------:|-------:|-------:|
| 1,000 | 500 | 10 |
| 1,000,000 | 500,000 | 20 |
"""


def pictures(browser: Browser, parley: Parley, upstream: ScriptedUpstream, folder: Path) -> None:
    """Takes the pictures of all views in each theme and width."""
    for theme, (width, height) in product(("light", "dark"), WIDTHS.items()):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        _tour(page, parley, upstream, folder, f"{theme}-{width}")
        page.close()


def _tour(page: Page, parley: Parley, upstream: ScriptedUpstream, folder: Path, kind: str) -> None:
    def shoot(name: str) -> None:
        if folder != DOCS:
            page.screenshot(path=folder / f"{name}-{kind}.png")
        elif f"{name}-{kind}" in SHOWN:
            page.screenshot(path=folder / f"page-{name}-{kind}.png")

    page.goto(parley.http)
    page.get_by_label("API key").wait_for()
    shoot("sign-in")
    page.get_by_label("API key").fill(parley.key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_label("Message", exact=True).wait_for()
    shoot("empty")
    _show_answers(page, upstream, shoot)
    _show_tools(page, upstream, shoot)
    _new(page)
    upstream.answer(
        *[Events([*chunks(f"{text} is a good choice."), Delay(0.1), *ending()]) for text in ("Tea", "Coffee")]
    )
    page.get_by_role("button", name="Compare two models").click()
    _ask(page, "What should I drink?")
    page.get_by_role("button", name="Retry").nth(1).wait_for()
    shoot("compare")
    page.get_by_role("button", name="Compare two models").click()
    page.get_by_role("link", name="Sessions").click()
    page.get_by_role("button", name="Edit title and labels").first.wait_for()
    shoot("sessions")
    page.get_by_role("button", name="Edit title and labels").first.click()
    shoot("rename")
    _show_console(page, parley, upstream, shoot)


def _show_console(page: Page, parley: Parley, upstream: ScriptedUpstream, shoot: Callable[[str], None]) -> None:
    """Shows each view of the console, while a call runs and a breaker is open."""
    page.on("dialog", lambda dialog: dialog.accept())
    upstream.answer(Events([*chunks("Hello"), Stall()]))
    body = json.dumps({"model": "large", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", body, parley.headers(parley.key))
        connection.getresponse().read(6)
        page.goto(f"http://{json.loads((parley.folder / 'ready.json').read_text())['admin']}")
        page.get_by_label("Admin key").wait_for()
        shoot("console-sign-in")
        page.get_by_label("Admin key").fill(ADMIN_KEY)
        page.get_by_role("button", name="Use this key").click()
        page.get_by_role("button", name="Open the breaker of small/small-2").click()
        page.get_by_text("Open (operator)").wait_for()
        page.get_by_role("main").get_by_role("button", name="Close", exact=True).click()  # the notice
        shoot("console-live")
        page.get_by_role("button", name="Close the breakers of small/small-2").click()
        page.get_by_text("Open (operator)").wait_for(state="detached")
        for view in ("Usage", "Keys", "Accounts", "Log", "Changes"):
            page.get_by_role("link", name=view, exact=True).click()
            page.get_by_role("table").first.wait_for()
            shoot(f"console-{view.lower()}")


def _show_answers(page: Page, upstream: ScriptedUpstream, shoot: Callable[[str], None]) -> None:
    """Shows an answer with everything, its details, its request, a failure, a branch and the setup."""
    last = chunk({"content": "!"})
    last["choices"][0]["logprobs"] = {"content": TOKENS, "refusal": None}
    upstream.answer(
        Events([chunk({"role": "assistant", "reasoning_content": "Hm."}), *chunks(ANSWER), Delay(0.2), *ending()]),
        Events([*chunks("Half of an answer"), Delay(0.3), Cut(reset=True)]),
        Events([*chunks("Paris"), last, *ending()]),
    )
    _ask(page, "How fast is a binary search?")
    page.locator("math").first.wait_for()
    page.locator(".hljs-keyword").first.wait_for()
    page.get_by_role("button", name="Receipt").click()
    shoot("answer")
    page.get_by_role("button", name="Code", exact=True).click()
    page.locator(".hljs-string").first.wait_for()
    shoot("code")
    page.keyboard.press("Escape")
    _ask(page, "Where is it used?")
    shoot("broken")
    page.get_by_role("button", name="Retry").last.click()
    page.get_by_role("group", name="Branches").wait_for()
    page.get_by_role("button", name="Probabilities").click()
    shoot("probabilities")
    page.get_by_role("button", name="Edit").last.click()
    shoot("edit")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Setup").click()
    shoot("setup")
    page.get_by_role("button", name="Setup").click()


def _show_tools(page: Page, upstream: ScriptedUpstream, shoot: Callable[[str], None]) -> None:
    """Shows a question with an image, and an answer that calls tools."""
    _new(page)
    upstream.answer(vendor.calls_in_pieces(vendor.PARALLEL_CALLS))
    page.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PIXEL})
    page.get_by_role("button", name="Remove image 1").wait_for()
    shoot("image")
    _ask(page, "What is the weather in this place?")
    page.get_by_role("button", name="Send the results").wait_for()
    shoot("tools")


def _new(page: Page) -> None:
    page.get_by_role("button", name="New chat").click()


def _ask(page: Page, question: str) -> None:
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_role("button", name="Send", exact=True).wait_for()
    page.get_by_role("button", name="Retry").last.wait_for()


def main() -> None:
    """Writes the pictures into the folder of the first argument."""
    folder = DOCS if sys.argv[1] == "--docs" else Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made, ScriptedUpstream() as upstream, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        config = Path(made, "parley.yaml")
        config.write_text(CONFIG.format(url=upstream.url))
        key = Path(made, "admin-key")
        key.write_text(ADMIN_KEY)
        options = ("--config", str(config), "--admin", "127.0.0.1:0", "--admin-key-file", str(key))
        with started(*options, folder=Path(made)) as parley:
            pictures(browser, parley, upstream, folder)
        browser.close()
    if folder == DOCS:  # a third of the size: the site has a limit
        subprocess.run(["pngquant", "--force", "--ext", ".png", *folder.glob("page-*.png")], check=True)


if __name__ == "__main__":
    main()
