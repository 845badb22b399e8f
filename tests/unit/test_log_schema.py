"""The tables of docs/logs.md list exactly the events, levels and fields that the code writes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.pages import ROOT

PAGE = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
CODE = ROOT / "service" / "parley"
LEVELS = ("debug", "info", "warning", "error")
# The functions that make the fields of calls, by file.
CALLS = {
    "rpc/call_log.py": ("write", "_add_usage", "_add_failure", "_add_cache"),
    "rpc/authentication.py": ("_record",),
    "rpc/call_handler.py": ("service",),
    "rpc/admin_access.py": ("_set_origin",),
    "rpc/services/chat_completions.py": ("_record_answer",),
    "rpc/metadata/receipts.py": ("add_fields",),
    "supervisor/refused_calls.py": ("_call",),
    "logs/configuration.py": ("process",),
}
NO_FIELDS = {"fields", "exc_info", "ErrorInfo"}


def functions(tree: ast.AST, *names: str) -> Iterator[ast.AST]:
    """Yields the functions with these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (not names or node.name in names):
            yield node


def text(node: ast.AST | None) -> str | None:
    """Returns the text of a constant."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def keys(tree: ast.AST) -> set[str]:
    """Returns the keys of all mappings that the code writes: of literals, and of assignments."""
    found = {text(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            found.add(text(node.slice))
    return {key for key in found if key}


def values(tree: ast.AST, name: str) -> Iterator[ast.AST]:
    """Yields what is assigned to a name, and the functions of that name."""
    yield from functions(tree, name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and name in [one.id for one in node.targets if isinstance(one, ast.Name)]:
            yield node.value


def fields_of(call: ast.Call, tree: ast.AST) -> set[str]:
    """Returns the fields of an event: its keyword arguments, and the keys of the mappings among them."""
    found = set[str]()
    for keyword in call.keywords:
        if keyword.arg:
            found.add("exception" if keyword.arg == "exc_info" else keyword.arg)
            continue
        name = keyword.value.func if isinstance(keyword.value, ast.Call) else keyword.value
        for value in values(tree, name.id) if isinstance(name, ast.Name) else ():
            found |= keys(value)
    return found


def names_of(call: ast.Call, tree: ast.AST) -> set[str]:
    """Returns the names of the events that a call writes. A parameter has the constants that callers give for it."""
    event = call.args[0]
    if isinstance(event, ast.Name):
        constants = {text(value) for value in values(tree, event.id)}
        if not any(constants):
            (own,) = [one for one in functions(tree) if call in ast.walk(one)]
            name = getattr(own, "name", "")
            callers = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and name in ast.unparse(node.func)]
            constants = {text(one.args[-1]) for one in callers}
        return {constant for constant in constants if constant}
    return {constant} if (constant := text(event)) else set()


def written() -> dict[str, tuple[set[str], set[str]]]:
    """Returns the levels and the fields of each event in the code, besides calls."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for path in CODE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if "_log = structlog" not in source:
            continue
        tree = ast.parse(source)
        reports = {"report": {"info", "warning"}}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = ast.unparse(node.func)
            levels = {called.removeprefix("_log.")} & set(LEVELS) or reports.get(called, set())
            for name in names_of(node, tree) if levels else ():
                known = found.setdefault(name, (set(), set()))
                known[0].update(levels)
                known[1].update(fields_of(node, tree))
    return found


def supervisor_events() -> dict[str, tuple[set[str], set[str]]]:
    """Returns those of the supervisor, which are mappings with an `event` and a `level`."""
    tree = ast.parse((CODE / "supervisor" / "refused_calls.py").read_text(encoding="utf-8"))
    found = {}
    for function in functions(tree, "_connection", "report_closed", "_report"):
        pairs = {
            text(key): text(value)
            for node in ast.walk(function)
            if isinstance(node, ast.Dict)
            for key, value in zip(node.keys, node.values, strict=True)
        }
        if "event" not in pairs:
            continue  # it writes by another one
        fields = {key for key in pairs if key} - {"event", "level", "timestamp"}
        found[pairs["event"] or ""] = ({pairs["level"] or ""}, fields)
    return found


def rows(heading: str) -> list[list[str]]:
    """Returns the cells of the first table below a heading or a line."""
    table = PAGE.split(f"\n{heading}\n", 1)[1].split("\n|---", 1)[1].split("\n\n", 1)[0]
    return [line.strip("|").split("|") for line in table.splitlines()[1:]]


def code(cell: str) -> set[str]:
    """Returns the words in backticks."""
    return set(re.findall(r"`([^`]+)`", cell))


def fields_in(path: str, names: tuple[str, ...]) -> set[str]:
    """Returns the fields that these functions of a file set."""
    tree = ast.parse((CODE / path).read_text(encoding="utf-8"))
    found = [keys(function) for function in functions(tree, *names)]
    assert len(found) >= len(names), path
    return set().union(*found)


def test_the_fields_of_a_call() -> None:
    """Every field of a call's line is documented, and every documented field is written."""
    actual = set().union(*(fields_in(path, names) for path, names in CALLS.items()))
    assert actual == set().union(*(code(row[0]) for row in rows("## Calls")))


def test_the_fields_of_an_attempt() -> None:
    """The same for the attempts of a call."""
    assert fields_in("rpc/metadata/receipts.py", ("_tried",)) == set().union(
        *(code(row[0]) for row in rows("Each attempt in `tried`:"))
    )


def test_the_events() -> None:
    """Every event is documented with its levels and its fields, and every documented event is written."""
    actual = written() | supervisor_events()
    documented = {
        next(iter(code(row[0]))): (set(row[1].replace(" ", "").split(",")), code(row[2])) for row in rows("## Events")
    }
    shortened = {
        name: (name if ":" not in name or name in documented else f"{name.partition(':')[0]}: …") for name in actual
    }
    assert {shortened[name]: found for name, found in actual.items()} == documented


def test_the_command_line() -> None:
    """The levels are those of `--log-level`."""
    assert Path(CODE / "logs" / "__init__.py").read_text(encoding="utf-8").count("Literal[") == 1
    for level in LEVELS:
        assert level in PAGE
