"""Measures the page in Chromium: `python -m tests.e2e.page.frames [--tokens 10000] [--rate 500]`; one JSON line.

The scripted upstream streams Markdown. The result has the longest time between two frames, the longest task of the page
during the answer, also in CPU time, and the time from the start of the navigation until the page could be used.
"""

import argparse
import json
import shutil
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import write_config
from tests.e2e.page.conftest import OPTIONS, WIDE
from tests.processes import started
from tests.upstream import Delay, Events, ScriptedUpstream, Step, chunk, ending

TEXT = """\
## A heading

A paragraph with **strong** words, `code`, [a link](https://example.com) and a formula: $a^2 + b^2 = c^2$.

- a list
- of several items

```python
def function(argument: int) -> int:
    return argument + 1
```

| a | b |
|---|---|
| 1 | 2 |

"""
TOKENS = [TEXT[at : at + 4] for at in range(0, len(TEXT), 4)]
TOGETHER = 5  # tokens that arrive at once
OBSERVE = """
window.gaps = []; window.tasks = [];
let last = performance.now();
const note = (now) => { window.gaps.push(now - last); last = now; requestAnimationFrame(note); };
requestAnimationFrame(note);
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask" });
"""


def answer(tokens: int, rate: float) -> Events:
    """Returns a stream of so many tokens, at so many a second."""
    steps: list[Step] = []
    for number, token in enumerate(islice(cycle(TOKENS), tokens), 1):
        steps.append(chunk({"content": token}))
        if number % TOGETHER == 0:
            steps.append(Delay(TOGETHER / rate))
    return Events([*steps, *ending()], together=True)


def cpu_of_tasks(trace: bytes) -> list[float]:
    """Returns the CPU milliseconds of each task of the page's main thread, in order of their size.

    Unlike the time between frames, they do not depend on what else the machine does.
    """
    events = json.loads(trace)["traceEvents"]
    names = {"CrRendererMain"}
    threads = {
        (one["pid"], one["tid"]) for one in events if one["name"] == "thread_name" and one["args"]["name"] in names
    }
    tasks = [one for one in events if one.get("tdur") and (one["pid"], one["tid"]) in threads]
    return sorted(one["tdur"] / 1000 for one in tasks if one["name"].endswith("RunTask"))


def measure(page: Page, address: str, key: str) -> dict[str, Any]:
    """Asks one question. Returns the figures, in milliseconds."""
    page.goto(address)
    page.get_by_label("API key").wait_for()
    usable = page.evaluate("performance.now()")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_label("Message", exact=True).fill("Go")
    browser = page.context.browser
    assert browser
    browser.start_tracing(page=page, categories=["toplevel", "__metadata"])
    page.evaluate("() => { window.gaps.length = 0; window.tasks.length = 0; }")
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_role("button", name="Retry").wait_for(timeout=600_000)
    gaps = sorted(page.evaluate("window.gaps"))
    used = cpu_of_tasks(browser.stop_tracing())
    return {
        "usable_ms": round(usable),
        "longest_frame_ms": round(gaps[-1], 1),
        "frames_over_50_ms": sum(gap > 50 for gap in gaps),
        "p99_frame_ms": round(gaps[len(gaps) * 99 // 100], 1),
        "longest_task_ms": round(max(page.evaluate("window.tasks"), default=0)),
        "longest_task_cpu_ms": round(used[-1], 1),
        "p99_task_cpu_ms": round(used[len(used) * 99 // 100], 1),
        "cpu_s": round(sum(used) / 1000, 1),
    }


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=500)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ScriptedUpstream() as upstream, sync_playwright() as playwright:
        upstream.default = lambda _: answer(chosen.tokens, chosen.rate)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        page = browser.new_page(viewport=WIDE)
        page.add_init_script(OBSERVE)
        with started("--config", str(write_config(Path(folder), upstream))) as parley:
            figures = measure(page, parley.http, parley.key)
        browser.close()
    sys.stdout.write(json.dumps({"tokens": chosen.tokens, "rate": chosen.rate, **figures}) + "\n")


if __name__ == "__main__":
    main()
