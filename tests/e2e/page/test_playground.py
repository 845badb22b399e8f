"""The Playground's stories, in a browser, against a real Parley with a scripted upstream."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.e2e import vendor
from tests.e2e.page.conftest import Visitor
from tests.processes import PATIENCE, environment
from tests.upstream import Cut, Events, Gate, ScriptedUpstream, chunk, chunks, ending, stream

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
RICH = """\
# Title

| a | b |
|---|--:|
| 1 | 2 |

```python
def f(): return 1
```

Euler: $e^{i\\pi} = -1$ costs $5 and $6.
"""
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
PROGRAMS = {
    "curl": ["bash", "-c"],
    "Python": [sys.executable, "-c"],
    "TypeScript": ["node", "--input-type=module", "--eval"],
    "grpcurl": ["bash", "-c"],
}
TOKENS = [
    {
        "token": "Paris",
        "logprob": -0.01,
        "bytes": None,
        "top_logprobs": [{"token": "Rome", "logprob": -4.6, "bytes": None}],
    },
    {"token": "!", "logprob": -3.0, "bytes": None, "top_logprobs": []},
]


def test_a_wrong_key_is_refused_and_a_right_one_opens_the_playground(visitor: Visitor) -> None:
    """The page names the problem of a key; after signing out, the key is forgotten."""
    visitor.fails = True
    page = visitor.page
    page.goto(visitor.parley.http)
    expect(page.get_by_role("link", name="Docs")).to_have_attribute("href", "/docs/")
    page.get_by_label("API key").fill("sk-" + "x" * 43)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("alert")).to_contain_text("does not accept this key")
    page.get_by_label("API key").fill(visitor.parley.key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("combobox", name="Model")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    assert [None, None] == page.evaluate(
        "[sessionStorage, localStorage].map((one) => one.getItem('parley.credential'))"
    )


def test_an_answer_has_tables_code_math_and_reasoning(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """Markdown becomes elements: a table, highlighted code, MathML; reasoning is folded; amounts of money stay text."""
    upstream.answer(Events([chunk({"role": "assistant", "reasoning_content": "Hm."}), *chunks(RICH), *ending()]))
    reader.ask("Show everything")
    answer = reader.page.get_by_role("article")
    expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    expect(answer.get_by_role("cell", name="2")).to_have_css("text-align", "right")
    expect(answer.locator(".hljs-keyword").first).to_have_text("def")
    expect(answer.locator("math")).to_have_count(1)
    expect(answer).to_contain_text("costs $5 and $6.")
    expect(answer.get_by_text("Hm.")).to_be_hidden()
    answer.get_by_text("Reasoning").click()
    expect(answer.get_by_text("Hm.")).to_be_visible()


def test_an_answer_is_shown_while_it_arrives_and_can_be_stopped(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """Text is visible before the end; Stop cancels the call upstream, and the question stays. Both are announced."""
    gate = Gate()
    upstream.answer(Events([gate, *chunks("First", " words"), Gate(), *ending()]))
    reader.ask("Tell me")
    expect(reader.page.get_by_role("status").filter(has_text="Answer in progress")).to_be_attached()
    moves = "getComputedStyle(document.querySelector('.waiting'), '::after').animationName"
    assert "none" == reader.page.evaluate(moves)  # the visitor prefers reduced motion
    gate.set()
    expect(reader.page.get_by_role("article")).to_contain_text("First words")
    reader.page.get_by_role("button", name="Stop", exact=True).click()
    expect(reader.page.get_by_role("article")).to_contain_text("Stopped.")
    expect(reader.page.get_by_role("status").filter(has_text="The answer was stopped")).to_be_attached()
    assert upstream.received().closed.wait()
    expect(reader.page.get_by_text("Tell me")).to_be_visible()


def test_a_broken_stream_is_named_and_retried(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """A stream that breaks off shows its text, the error and the request's id; a retry is a branch with an answer."""
    gate = Gate()
    upstream.answer(Events([*chunks("Half"), gate, Cut(reset=True)]), stream("Whole"))
    reader.ask("Go")
    answer = reader.page.get_by_role("article")
    expect(answer).to_contain_text("Half")
    gate.set()
    expect(answer.get_by_role("alert")).to_contain_text("Request ")
    answer.get_by_role("button", name="Retry").click()
    expect(reader.page.get_by_role("article")).to_contain_text("Whole")
    expect(reader.page.get_by_role("group", name="Branches")).to_contain_text("2 of 2")


def test_an_edit_forks_the_session(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """An edited question is sent to a fork with the turns before it; both branches stay readable."""
    upstream.answer(stream("One"), stream("Two"), stream("Three"))
    for question in ("First", "Second"):
        reader.ask(question)
        reader.finished()
    reader.page.get_by_role("listitem").filter(has_text="Second").get_by_role("button", name="Edit").click()
    reader.page.get_by_label("Edit the question").fill("Other")
    reader.page.get_by_role("listitem").filter(has=reader.page.get_by_label("Edit the question")).get_by_role(
        "button", name="Send"
    ).click()
    expect(reader.page.get_by_role("article").last).to_contain_text("Three")
    expected = [("user", "First"), ("assistant", "One"), ("user", "Other")]
    assert expected == [(one["role"], one["content"]) for one in upstream.received(2).json["messages"]]
    status, listed = reader.parley.request("GET", "/api/v1/sessions?page_size=1")
    assert (200, True) == (status, "forked_from" in listed["sessions"][0])
    reader.page.get_by_role("button", name="Previous branch").click()
    expect(reader.page.get_by_role("article").last).to_contain_text("Two")


def test_tools_are_answered_by_hand(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The calls of an answer are shown; the results that are typed in are the next turn."""
    upstream.answer(vendor.calls_in_pieces(vendor.PARALLEL_CALLS), stream("It is sunny."))
    setup(reader, "Tools", json.dumps([TOOL]))
    reader.ask("What is the weather?")
    fields = reader.page.get_by_label("Result of get_weather")
    expect(fields).to_have_count(len(vendor.PARALLEL_CALLS))
    for field in fields.all():
        field.fill("sunny")
    reader.page.get_by_role("button", name="Send the results").click()
    expect(reader.page.get_by_role("article").last).to_contain_text("It is sunny.")
    assert [TOOL] == upstream.received(0).json["tools"]
    results = [one for one in upstream.received(1).json["messages"] if one["role"] == "tool"]
    assert [(call["id"], "sunny") for call in vendor.PARALLEL_CALLS] == [
        (one["tool_call_id"], one["content"]) for one in results
    ]


def test_a_schema_is_sent_and_its_answer_is_indented(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The answer to a JSON schema is shown as code; a text that is not JSON is named and nothing is sent."""
    upstream.answer(stream('{"city":', '"Paris"}'))
    setup(reader, "JSON schema of the answer", "{")
    expect(reader.page.get_by_text("Not valid JSON")).to_be_visible()
    reader.page.get_by_label("Message", exact=True).fill("Where?")
    expect(reader.page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    setup(reader, "JSON schema of the answer", json.dumps(SCHEMA), is_open=True)
    reader.ask("Where?")
    expect(reader.page.locator("article pre")).to_have_text('{\n  "city": "Paris"\n}')
    expected = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    assert expected == upstream.received().json["response_format"]


def test_parameters_reach_the_model(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The system prompt and the parameters are part of the request; empty fields are not."""
    setup(reader, "System prompt", "Be brief.")
    for label, value in (("Temperature", "0.5"), ("Max tokens", "7"), ("Stop sequences", "END\nSTOP")):
        setup(reader, label, value, is_open=True)
    reader.ask("Hello")
    sent = upstream.received().json
    assert {"role": "system", "content": "Be brief."} == sent["messages"][0]
    assert (0.5, 7, ["END", "STOP"]) == (sent["temperature"], sent["max_tokens"], sent["stop"])
    assert {"top_p", "seed", "tools", "response_format", "logprobs"}.isdisjoint(sent)


def test_images_go_in_and_come_out(reader: Visitor, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """A chosen image is part of the question; images of the answer are shown, one of another server is a link."""
    (tmp_path / "a.png").write_bytes(PIXEL)
    url = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
    text = f"![own]({url}) ![other](http://127.0.0.2/x.png)"
    drawn = {"images": [{"type": "image_url", "image_url": {"url": url}}]}
    upstream.answer(Events([*chunks(text), chunk(drawn), *ending()]))
    reader.page.locator("input[type=file]").set_input_files(tmp_path / "a.png")
    expect(reader.page.get_by_role("button", name="Remove image 1")).to_be_visible()
    reader.ask("What is this?")
    answer = reader.page.get_by_role("article")
    expect(answer.get_by_role("img", name="own")).to_be_visible()
    expect(answer.get_by_role("img", name="Image of the answer")).to_be_visible()
    expect(answer.get_by_role("link", name="Image: other")).to_have_attribute("href", "http://127.0.0.2/x.png")
    parts = upstream.received().json["messages"][-1]["content"]
    assert [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}] == parts


def test_two_models_answer_one_question(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """Both answers appear side by side, one of them by the built-in model."""
    upstream.answer(stream("Scripted"))
    reader.page.get_by_role("button", name="Compare two models").click()
    reader.choose("scripted", "Model 1")
    reader.choose("smollm2", "Model 2")
    reader.ask("Say hello")
    reader.finished()
    expect(reader.page.get_by_role("article", name="Answer of scripted")).to_contain_text("Scripted")
    second = reader.page.get_by_role("article", name="Answer of smollm2").locator(".markdown")
    expect(second).to_have_text(re.compile(r"\w"))


def test_probabilities_shade_the_tokens(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """Each token has a shade by its probability; pointing or an arrow key shows its alternatives."""
    part = chunk({"content": "Paris!"})
    part["choices"][0]["logprobs"] = {"content": TOKENS, "refusal": None}
    upstream.answer(Events([part, *ending()]))
    reader.page.get_by_role("button", name="Setup").click()
    reader.page.get_by_label("Return token probabilities").check()
    reader.page.get_by_role("button", name="Setup").click()
    reader.ask("Where?")
    reader.page.get_by_role("button", name="Probabilities").click()
    expect(reader.page.locator(".tokens .level-0")).to_have_text("Paris")
    expect(reader.page.locator(".tokens .level-4")).to_have_text("!")
    group = reader.page.get_by_role("group", name="Probabilities")
    expect(group.get_by_role("status")).to_have_text('"Paris" 99% · "Rome" 1%')
    group.press("ArrowRight")
    expect(group.get_by_role("status")).to_have_text('"!" 5%')


def test_the_receipt_shows_each_attempt(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The timeline names the target, the outcome, the times and the tokens of the attempt."""
    upstream.answer(stream("Hello"))
    reader.ask("Hello")
    reader.page.get_by_role("button", name="Receipt").click()
    receipt = reader.page.get_by_role("group", name="Receipt")
    expect(receipt.get_by_role("listitem")).to_have_text(
        re.compile(r"scripted-\d+/scripted-1: completed after .*, first token after .*, 12 tokens")
    )


def test_a_request_is_copied_as_code_that_runs(reader: Visitor, upstream: ScriptedUpstream, installed: Path) -> None:
    """The request of an answer, copied in each language, runs with the key in KEY and has the same messages."""
    question = "It's “quoted” $HOME"
    upstream.answer(stream("Hello"), *[stream("Again")] * len(PROGRAMS))
    reader.ask(question)
    reader.page.get_by_role("button", name="Code", exact=True).click()
    dialog = reader.page.get_by_role("dialog")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for number, (name, command) in enumerate(PROGRAMS.items(), 1):
        dialog.get_by_role("button", name=name, exact=True).click()
        dialog.get_by_role("button", name="Copy the code").click()
        expect(dialog.get_by_text("Copied")).to_be_visible()
        code = reader.page.evaluate("navigator.clipboard.readText()")
        known = environment(KEY=reader.parley.key, GRPC_PORT=reader.parley.grpc.rsplit(":", 1)[1], PATH=path)
        done = subprocess.run(
            [*command, code], cwd=installed, env=known, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert "Again" in done.stdout, (name, done.stdout, done.stderr)
        assert reader.parley.key not in code
        assert question == upstream.received(number).json["messages"][-1]["content"]


def test_the_keyboard_alone_is_enough(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """Enter sends, Shift+Enter starts a line, Escape closes a dialog, and every control is reached by Tab."""
    upstream.answer(stream("Hello"))
    page = reader.page
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    page.keyboard.press("Enter")
    reader.finished()
    assert "One\nTwo" == upstream.received().json["messages"][-1]["content"]
    reached = set[str]()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel || ''"))
    assert {"Code", "Retry", "Edit", "Setup", "Compare", "New chat"} <= reached
    page.get_by_role("button", name="Edit").press("Enter")
    expect(page.get_by_label("Edit the question")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Edit")).to_be_focused()
    page.get_by_role("button", name="Code", exact=True).press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_an_answer_and_its_branches_outlive_the_view(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """An answer goes on while the list of sessions is shown; Back leads to it and to its branches."""
    gate = Gate()
    upstream.answer(stream("One"), stream("Two"), Events([*chunks("Half"), gate, *chunks(" whole"), *ending()]))
    page = reader.page
    reader.ask("Question")
    reader.finished()
    page.get_by_role("link", name="Sessions").click()
    page.get_by_role("link", name="Question").first.click()
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("article")).to_contain_text("Two")
    reader.ask("More")
    expect(page.get_by_role("article").last).to_contain_text("Half")
    page.get_by_role("link", name="Sessions").click()
    expect(page.get_by_label("Search")).to_be_visible()
    page.go_back()
    gate.set()
    expect(page.get_by_role("article").last).to_contain_text("Half whole")
    expect(page.get_by_role("group", name="Branches")).to_contain_text("2 of 2")


def test_a_reload_keeps_the_chat_and_the_text_that_is_not_sent(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The address names the session of the chat, also of a fork; an address that is not valid still shows the page."""
    upstream.answer(stream("One"), stream("Two"), stream("Three"))
    page = reader.page
    for question in ("First", "Second"):
        reader.ask(question)
        reader.finished()
    page.get_by_role("button", name="Retry").last.click()
    expect(page.get_by_role("article").last).to_contain_text("Three")
    page.get_by_label("Message", exact=True).fill("Not sent")
    page.get_by_role("link", name="Sessions").click()
    expect(page.get_by_label("Search")).to_be_visible()
    page.get_by_role("link", name="Playground").click()
    expect(page).to_have_url(re.compile("#/playground/.+"))  # the page names the session in a task of its own
    page.reload()
    expect(page.get_by_role("article").last).to_contain_text("Three")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Not sent")
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("article")).to_have_count(0)
    assert page.url.endswith("#/playground")
    reader.fails = True
    page.goto(f"{reader.parley.http}/#/playground/%")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Unknown session")


def test_nothing_is_lost_without_the_server_or_the_session(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """Offline, and after the session was deleted elsewhere, the page says what to do, and a retry is answered."""
    upstream.answer(stream("One"), stream("Two"), stream("Three"))
    reader.fails = True
    page = reader.page
    reader.ask("First")
    reader.finished()
    page.context.set_offline(True)
    reader.ask("Second")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached. Check the connection")
    page.context.set_offline(False)
    page.get_by_role("button", name="Retry").last.click()
    expect(page.get_by_role("article").last).to_contain_text("Two")
    reader.finished()
    assert 200 == reader.parley.request("DELETE", f"/api/v1/sessions/{page.url.rpartition('/')[2]}")[0]
    reader.ask("Third")
    expect(page.get_by_role("alert")).to_contain_text("has been deleted. Retry the question")
    page.get_by_role("button", name="Retry").last.click()
    expect(page.get_by_role("article").last).to_contain_text("Three")
    sent = [one["content"] for one in upstream.received(2).json["messages"]]
    assert ["First", "One", "Second", "Two", "Third"] == sent


def test_choices_are_shown_one_below_the_other(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """With `n` the page shows each choice on its own, and all of them can be copied."""
    parts = [chunk({"content": text}) for text in ("Te", "Cof", "a", "fee")]
    for number, part in enumerate(parts):
        part["choices"][0]["index"] = number % 2
    upstream.answer(Events([*parts, *ending()]))
    setup(reader, "Other parameters", '{"n": 2}')
    reader.page.get_by_role("button", name="Setup").click()
    reader.ask("What?")
    reader.finished()
    expect(reader.page.get_by_role("article").locator(".markdown")).to_have_text(["Tea", "Coffee"])
    reader.page.get_by_role("button", name="Copy choice 2").click()
    assert "Coffee" == reader.page.evaluate("navigator.clipboard.readText()")


def test_an_edit_waits_for_the_answer_in_progress(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """A question that is edited while another answer arrives can be sent afterwards; nothing is lost."""
    gate = Gate()
    upstream.answer(stream("One"), Events([*chunks("Two"), gate, *ending()]), stream("Three"))
    page = reader.page
    reader.ask("First")
    reader.finished()
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Message", exact=True).fill("Second")
    page.get_by_label("Message", exact=True).press("Enter")
    page.get_by_label("Edit the question").fill("Edited")
    form = page.locator("form.question")
    expect(form.get_by_role("button", name="Send")).to_be_disabled()
    gate.set()
    form.get_by_role("button", name="Send").click()
    expect(page.get_by_role("article")).to_contain_text("Three")
    expect(page.get_by_role("listitem").filter(has_text="Edited")).to_have_count(1)


def setup(reader: Visitor, label: str, value: str, *, is_open: bool = False) -> None:
    """Fills in a field of the setup; opens it unless it is open."""
    button: Any = reader.page.get_by_role("button", name="Setup")
    if not is_open:
        button.click()
    reader.page.get_by_label(label, exact=True).fill(value)
