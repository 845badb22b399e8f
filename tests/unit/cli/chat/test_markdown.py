"""Markdown that grows, as a terminal shows it."""

import io
import re
import time

import pytest
from rich.console import Console

from parley.cli.chat.markdown import MarkdownView, split_blocks

ANSWER = """# Title

Some **bold** words, and so many of them that the line has to be wrapped at a word.

- one
- two

```python
x = 1

y = 2
```

| a | b |
|---|---|
| 1 | 2 |

<script>alert(1)</script> [here](javascript:alert)
end"""
SHOWN = """m
Title

Some bold words, and so many of them
that the line has to be wrapped at a
word.

 • one
 • two

 x = 1

 y = 2

 a  b
 ────
 1  2

<script>alert(1)</script>
[here](javascript:alert) end

"""


class Output(io.StringIO):
    """A terminal, or a file."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        """Returns whether it is a terminal."""
        return self._is_terminal


def shown(*parts: str, is_terminal: bool = False) -> str:
    """Returns what a view prints for the parts of an answer."""
    output = Output(is_terminal=is_terminal)
    with MarkdownView(Console(file=output, width=40, height=10, _environ={})) as view:
        view.show_model("m")
        for part in parts:
            view.show(part)
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().split("\n")[:-1])


@pytest.mark.parametrize("size", [1, 7, len(ANSWER)])
def test_an_answer_looks_the_same_however_it_arrives(size: int) -> None:
    """Blocks, words and HTML are shown as Markdown, whatever the parts are; the lines break between words."""
    assert SHOWN == shown(*(ANSWER[at : at + size] for at in range(0, len(ANSWER), size)))


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("", [""]),
        ("one\n", ["one\n"]),
        ("one\n\ntwo\n", ["one\n\n", "two\n"]),
        ("- a\n- b\n\n  c\nd\n\n# e\n", ["- a\n- b\n\n  c\nd\n\n", "# e\n"]),
        ("```\na\n\nb\n", ["```\na\n\nb\n"]),
        ("\n\none\n---\ntwo", ["\n\none\n---\n", "two"]),
        ("a\u2028b\n\nc", ["a\u2028b\n\n", "c"]),
    ],
)
def test_blocks(text: str, blocks: list[str]) -> None:
    """The blocks are those of the top level, and are the text together."""
    assert blocks == split_blocks(text)
    assert text == "".join(split_blocks(text))


def test_the_growing_block_is_drawn_while_it_grows() -> None:
    """A terminal shows each word before its paragraph ends, and every line once in the end."""
    output = Output(is_terminal=True)
    console = Console(file=output, width=40, height=10, _environ={"TERM": "xterm"})
    with MarkdownView(console) as view:
        view.show("Hello **wor")
        assert "Hello" in output.getvalue()
        drawn = len(output.getvalue())
    assert "Hello **wor" in output.getvalue()[drawn:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("> " * 500 + "deep\n", ["deep"]),
        ("- " * 12 + "inner\n", ["inner"]),
        ("a\n\n[1]: https://host/page\n", ["[1]:", "https://host/page"]),
        ("![alt](https://host/a.png) <https://host/b>", ["alt", "(https://host/a.png)", "https://host/b"]),
        ("| h |\n|---|\n| " + "x" * 70 + "END |\n", ["END"]),
    ],
)
def test_nothing_of_an_answer_is_left_out(text: str, words: list[str]) -> None:
    """Deep nesting, definitions of links, addresses of images and long cells of tables are shown."""
    found = shown(text)
    for word in words:
        assert 1 == found.count(word), found


def test_characters_without_width_are_left_out() -> None:
    """What terminals show differently, or not at all, is not printed; joined emoji and letters stay."""
    assert "m\nab c 👩\u200d🔬\n\n" == shown("a\u200bb\u00ad\ufeff\u2060 c 👩\u200d🔬")


def test_the_terminal_wraps_no_line_that_is_drawn_again() -> None:
    """A line that the terminal finds wider than expected would be drawn twice; finished lines may be wrapped."""
    output = Output(is_terminal=True)
    with MarkdownView(Console(file=output, width=40, height=10, _environ={"TERM": "xterm"})) as view:
        view.show("growing")
        assert re.search(r"\x1b\[\?7l(?s:.)*growing(?s:.)*\x1b\[\?7h$", output.getvalue())
    end = output.getvalue()
    assert end.rindex("growing") > end.rindex("\x1b[?7h")


def test_a_line_of_a_megabyte_freezes_nothing() -> None:
    """An endless line costs CPU time in proportion to its length, and is shown whole."""
    parts = ["word " * 200] * 1000
    started = time.process_time()
    text = shown(*parts, is_terminal=True)
    assert time.process_time() - started < 20.0
    assert text.count("word") >= 200_000


def test_reasoning_gives_way_to_the_answer() -> None:
    """The reasoning is shown while there is no answer, and is not kept."""
    output = Output(is_terminal=True)
    with MarkdownView(Console(file=output, width=40, height=10, _environ={"TERM": "xterm"})) as view:
        view.show_reasoning("let me see")
        assert "let me see" in output.getvalue()
        drawn = len(output.getvalue())
        view.show("42")
    assert "let me see" not in output.getvalue()[drawn:]


def test_a_refused_attempt_leaves_no_line() -> None:
    """A view that shows nothing prints nothing: a busy session is called several times a second."""
    output = Output(is_terminal=False)
    with pytest.raises(KeyError), MarkdownView(Console(file=output, width=40, height=10, _environ={})):
        raise KeyError
    assert "" == output.getvalue()
