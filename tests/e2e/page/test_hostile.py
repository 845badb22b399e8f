"""Answers that attack the page: nothing runs, nothing is loaded, nothing freezes."""

from playwright.sync_api import expect

from tests.e2e.page.conftest import Visitor
from tests.upstream import Events, ScriptedUpstream, chunk, chunks, ending, stream

ATTACKS = {
    "script": "<script>document.title = 'hacked'</script>",
    "image": "<img src=x onerror=\"document.title='hacked'\">",
    "svg": '<svg onload="document.title=\'hacked\'"><use href="data:image/svg+xml,x#x"/></svg>',
    "link": "[click](javascript:document.title='hacked')",
    "coded link": "[click](&#106;avascript&colon;alert(1)) [tab](java\tscript:alert(1))",
    "data link": "[click](data:text/html,<script>alert(1)</script>)",
    "svg image": "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)",
    "frame": '<iframe srcdoc="<script>parent.document.title=1</script>"></iframe>',
    "style": '<style>body{display:none}</style><p style="position:fixed;inset:0">x</p>',
    "form": '<form action="http://127.0.0.2"><button>Sign in</button></form>',
    "math": r"$\href{javascript:alert(1)}{x}$ $\includegraphics{http://127.0.0.2/x.png}$ $\style{color:red}{x}$",
    "language": '```"><script>alert(1)</script>\nx\n```',
    "reference": "[a]: javascript:alert(1)\n\n[a] <http://127.0.0.2/auto>",
}


def test_nothing_of_an_answer_runs(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """No answer adds a script, frame, style or form, nor a link or an image that is more than one."""
    for name, attack in ATTACKS.items():
        upstream.answer(stream(attack, f"\n\nThe end of {name}."))
        reader.ask("Attack")
        answer = reader.page.get_by_role("article").last
        expect(answer).to_contain_text(f"The end of {name}.")
        reader.finished()
        assert 0 == answer.locator("script, iframe, style, svg, form, object, embed, base, link, meta").count(), name
        links = [link.get_attribute("href") for link in answer.get_by_role("link").all()]
        assert all((link or "").startswith(("http://", "https://", "mailto:")) for link in links), name
        sources = [image.get_attribute("src") for image in answer.locator("img").all()]
        assert all((source or "").startswith("data:image/png") for source in sources), name
        assert "Parley" == reader.page.title(), name


def test_an_override_of_the_direction_is_visible(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """Characters that reverse the text behind them are replaced, in text and in code."""
    upstream.answer(stream("file\u202etxt.exe\n\n```\nif \u2066x\u2069 \u202e\n```\n"))
    reader.ask("Attack")
    reader.finished()
    text = reader.page.get_by_role("article").inner_text()
    assert "file\ufffdtxt.exe" in text
    assert not set("\u202e\u2066\u2069") & set(text)


def test_a_line_of_a_megabyte_does_not_freeze_the_page(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """A line of 1 MB is shown in parts, and the page still answers."""
    upstream.answer(Events([*chunks(*["x" * 50_000] * 20), *ending()]))
    reader.ask("Attack")
    reader.finished()
    expect(reader.page.get_by_role("button", name="Show more")).to_be_visible()
    reader.page.get_by_role("button", name="New chat").click()
    expect(reader.page.get_by_role("article")).to_have_count(0)


def test_a_table_of_very_many_cells_is_text(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """A table with more cells than a browser lays out at once is shown as its source, and the page still answers."""
    columns = 8_000
    table = f"|{'a|' * columns}\n|{'-|' * columns}\n" + "|a\n" * 1_000
    upstream.answer(Events([*chunks(*(table[at : at + 2_000] for at in range(0, len(table), 2_000))), *ending()]))
    reader.ask("Attack")
    reader.finished()
    assert 0 == reader.page.get_by_role("cell").count()
    expect(reader.page.get_by_role("article")).to_contain_text("|a|a|a")


def test_very_many_blocks_do_not_freeze_the_page(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The text behind two thousand blocks is plain: a browser needs seconds for tens of thousands of formulas."""
    upstream.answer(Events([*chunks("# a\n---\n" * 5_000, "$$x$$\n\n" * 5_000, "The end."), *ending()]))
    reader.ask("Attack")
    reader.finished()
    answer = reader.page.get_by_role("article")
    expect(answer).to_contain_text("The end.")
    assert answer.locator("*").count() < 3_000


def test_json_in_json_does_not_freeze_the_page(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """Deeply nested JSON is shown as it is, in an answer and in the arguments of a call."""
    deep = "[" * 10_000 + "]" * 10_000
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": deep}}
    upstream.answer(
        Events([chunk({"role": "assistant", "content": deep, "tool_calls": [call]}), *ending("tool_calls")])
    )
    reader.ask("Attack")
    reader.finished()
    assert deep == reader.page.get_by_role("article").locator(".tool code").text_content()
    assert len(reader.page.get_by_role("article").text_content() or "") < 100_000


def test_tool_calls_cannot_attack_either(reader: Visitor, upstream: ScriptedUpstream) -> None:
    """The name and the arguments of a call are text."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "<b>x</b>", "arguments": "<script>"}}
    upstream.answer(Events([chunk({"role": "assistant", "tool_calls": [call]}), *ending("tool_calls")]))
    reader.ask("Attack")
    reader.finished()
    expect(reader.page.get_by_role("heading", name="Call of <b>x</b>")).to_be_visible()
