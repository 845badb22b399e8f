"""The page's list of sessions, against a real Parley."""

import json
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.page.conftest import Visitor
from tests.upstream import ScriptedUpstream, stream


def test_a_session_is_found_continued_exported_and_deleted(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """A session of the API is opened from the list; its history is shown and continued, exported, and deleted."""
    upstream.answer(stream("One"), stream("Two"))
    session = chat(reader, "First question")
    page = reader.page
    page.get_by_role("link", name="Sessions").click()
    page.get_by_label("Search").fill(session)
    row = page.get_by_role("listitem").filter(has_text=session)
    with page.expect_download() as download:
        row.get_by_role("button", name="Export").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert ["First question", "One"] == [json.loads(line)["content"] for line in lines]
    row.get_by_role("link").click()
    expect(page.get_by_role("article")).to_contain_text("One")
    expect(page.get_by_role("article")).to_contain_text("turn 1 completed")
    reader.ask("Second question")
    reader.finished()
    expect(page.get_by_role("article").last).to_contain_text("Two")
    assert session == reader.parley.request("GET", "/api/v1/sessions?page_size=1")[1]["sessions"][0]["id"]
    page.get_by_role("link", name="Sessions").click()
    page.get_by_label("Search").fill(session)
    page.on("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("0 sessions")).to_be_visible()
    assert 404 == reader.parley.request("GET", f"/api/v1/sessions/{session}")[0]


def test_a_session_is_renamed_and_found_by_its_words(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """A chat of the page is named after its question; it is found by a word of its answer, and by a new title."""
    upstream.answer(stream("A quokka smiles."))
    page = reader.page
    reader.ask("Which animal smiles?")
    reader.finished()
    page.get_by_role("link", name="Sessions").click()
    page.get_by_label("Search").fill("quokka")
    row = page.get_by_role("listitem").filter(has_text="Which animal smiles?")
    row.get_by_role("button", name="Edit title and labels of Which animal smiles?").click()
    expect(page.get_by_label("Title")).to_be_focused()
    page.get_by_label("Title").fill("Happy <b>marsupials</b>")
    page.get_by_label("Labels").fill("team=zoo\n=nameless")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    page.get_by_label("Labels").fill("team=zoo\nold=1")
    page.get_by_label("Title").press("Enter")
    expect(page.get_by_role("link", name="Happy <b>marsupials</b>")).to_be_visible()
    page.get_by_role("button", name="Edit title and labels of Happy").click()
    page.get_by_label("Labels").fill("team=zoo")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("team=zoo", exact=True)).to_be_visible()
    expect(page.get_by_text("old=1")).to_have_count(0)
    expect(page.get_by_role("button", name="Edit title and labels of Happy")).to_be_focused()
    page.get_by_label("Search").fill("marsupials")
    expect(page.get_by_text("1 session", exact=True)).to_be_visible()
    page.get_by_role("link", name="Happy <b>marsupials</b>").click()
    expect(page.get_by_role("article")).to_contain_text("A quokka smiles.")
    page.get_by_role("link", name="Sessions").click()
    page.get_by_label("Search").fill("nothing has these words")
    expect(page.get_by_text("0 sessions")).to_be_visible()


def test_a_fork_is_below_its_origin(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The list shows a fork inside of the item of its origin."""
    upstream.answer(stream("One"))
    session = chat(reader, "Question")
    status, fork = reader.parley.request("POST", f"/api/v1/sessions/{session}/fork", {})
    assert 200 == status
    reader.page.get_by_role("link", name="Sessions").click()
    origin = reader.page.get_by_role("listitem").filter(has_text=session).first
    expect(origin.get_by_role("listitem").filter(has_text=fork["id"])).to_be_visible()


def chat(reader: Visitor, question: str) -> str:
    """Asks a question by the API; returns the id of its session."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": question}], "stream": False}
    status, answer = reader.parley.request("POST", "/v1/chat/completions", body)
    assert 200 == status
    return str(answer["chatSessionId"])
