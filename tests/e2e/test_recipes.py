"""The programs of the recipes in docs/recipes, unchanged except for addresses, models and the Go packages' `main`."""

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.e2e import go_programs
from tests.e2e.node_packages import installed
from tests.pages import ROOT
from tests.processes import PATIENCE, Parley, environment
from tests.relay import Relay
from tests.upstream import Events, Gate, Received, ScriptedUpstream, chunks, completion, stream

__all__ = ["installed"]
RECIPES = ROOT / "docs" / "recipes"
PARIS = "The capital of France is Paris."
PRINTED = {
    "call": f"{PARIS}\n",
    "stream": f"{PARIS}\n",
    "session": f"{PARIS}\nThe capital of Germany is Berlin.\n",
    "retry": f"{PARIS}\n",
    "tools": "It is 21 °C in Paris.\n",
    "schema": "Paris\n",
    "image": "A red square.\n",
    "receipt": "12 tokens\nscripted completed\n",
}
"""What the programs of each task print."""
BEGINNING = "The capital of"
"""The part of an answer after which the connection breaks."""
CALL = {"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
SCHEMA = '{"type": "object", "properties": {"capital": {"type": "string", "maxLength": 20}}'
IMAGE = b"\x89PNG\r\n\x1a\n"
TASKS = pytest.mark.parametrize("task", PRINTED)
Run = Callable[[str, str], str]


def model(request: Received) -> Any:
    """Answers as a model does that has tools, schemas and images."""
    body = request.json
    question = body["messages"][-1]
    if question["role"] == "tool":
        return completion(f"It is {json.loads(question['content'])['celsius']:.0f} °C in Paris.")
    if "tools" in body:
        return completion(None, tool_calls=[CALL])
    if "response_format" in body:
        return completion('{"capital": "Paris"}')
    if not isinstance(question["content"], str):
        return completion("A red square.")
    text = "The capital of Germany is Berlin." if "Germany" in question["content"] else PARIS
    return stream(text[:9], text[9:]) if body.get("stream") else completion(text)


@pytest.fixture(scope="module")
def relays(stack: Parley) -> Iterator[tuple[Relay, Relay]]:
    """Relays to both listeners, for the programs whose connection breaks."""
    with Relay(stack.http.removeprefix("http://")) as rest, Relay(stack.grpc) as grpc:
        yield rest, grpc


@pytest.fixture(scope="module")
def source(stack: Parley, relays: tuple[Relay, Relay]) -> Callable[[str, str], str]:
    """Returns a program's text, with the addresses and the model of the tests."""

    def adapt(task: str, name: str) -> str:
        rest, grpc = (one.address for one in relays)
        if task != "retry":
            rest, grpc = stack.http.removeprefix("http://"), stack.grpc
        text = (RECIPES / task / name).read_text(encoding="utf-8")
        text = text.replace("127.0.0.1:8080", rest).replace("127.0.0.1:50051", grpc)
        return re.sub('"(smollm2|support)"', '"scripted"', text)

    return adapt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the image."""
    (tmp_path / "photo.png").write_bytes(IMAGE)
    return tmp_path


def output(command: list[str], folder: Path, stack: Parley) -> str:
    """Runs a program to its end; returns what it prints."""
    variables = environment(KEY=stack.key, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def exchange(request: pytest.FixtureRequest, upstream: ScriptedUpstream, stack: Parley) -> Iterator[None]:
    """Scripts the model's answers, and checks what the model has received."""
    upstream.default = model
    task = request.node.callspec.params["task"] if hasattr(request.node, "callspec") else ""
    with broken(upstream, stack, request.getfixturevalue("relays")) if task == "retry" else nullcontext():
        yield
    if task:
        CHECKS.get(task, lambda _: None)([received.json for received in upstream.requests])


@contextmanager
def broken(upstream: ScriptedUpstream, stack: Parley, relays: tuple[Relay, Relay]) -> Iterator[None]:
    """Breaks the first stream, and checks that the attempts had one idempotency key."""
    upstream.answer(Events([*chunks(BEGINNING), Gate()]))
    for relay in relays:
        relay.cut_after = BEGINNING.encode()
    before = idempotency_keys(stack)
    yield
    for relay in relays:
        relay.cut_after = b""
    assert 1 == len(idempotency_keys(stack) - before)


def idempotency_keys(stack: Parley) -> set[str]:
    """Returns the idempotency keys in the store."""
    with closing(sqlite3.connect(f"file:{stack.folder}/state/parley.db?mode=ro", uri=True)) as database:
        return {key for (key,) in database.execute("SELECT key FROM claims")}


def check_session(requests: list[Any]) -> None:
    """The model receives the first turn before the second question."""
    assert ["What is the capital of France?", PARIS, "And of Germany?"] == [
        message["content"] for message in requests[1]["messages"]
    ]


def check_retry(requests: list[Any]) -> None:
    """The broken stream was repeated."""
    assert 2 == len(requests)


def check_tools(requests: list[Any]) -> None:
    """The model receives the schema, its own call, and the result."""
    assert [["user"], ["user", "assistant", "tool"]] == [
        [message["role"] for message in request["messages"]] for request in requests
    ]
    assert ["city"] == requests[0]["tools"][0]["function"]["parameters"]["required"]
    assert "call-1" == requests[1]["messages"][2]["tool_call_id"]


def check_schema(requests: list[Any]) -> None:
    """The model receives the schema, with its keys in order."""
    assert json.dumps(requests[0]["response_format"]["json_schema"]["schema"]).startswith(SCHEMA)


def check_image(requests: list[Any]) -> None:
    """The model receives the image."""
    url = f"data:image/png;base64,{b64encode(IMAGE).decode()}"
    assert {"type": "image_url", "image_url": {"url": url}} == requests[0]["messages"][0]["content"][1]


CHECKS = MappingProxyType(
    {
        "session": check_session,
        "retry": check_retry,
        "tools": check_tools,
        "schema": check_schema,
        "image": check_image,
    }
)


@TASKS
@pytest.mark.parametrize("name", ["openai_sdk.py", "grpc_client.py"])
def test_python(
    task: str, name: str, stack: Parley, source: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs with the openai package and with parley-client print the answers. They run in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KEY", stack.key)
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(source(task, name), name, "exec"), {"__name__": "__main__"})
    assert PRINTED[task] == printed.getvalue()


@TASKS
@pytest.mark.parametrize("name", ["curl.sh", "grpcurl.sh"])
def test_shell(task: str, name: str, stack: Parley, source: Run, folder: Path) -> None:
    """The scripts with curl, grpcurl and jq print the answers."""
    go_programs.need("jq", "curl", packages=("jq", "curl"))
    assert os.access(RECIPES / task / name, os.X_OK)
    assert PRINTED[task] == output(["bash", "-c", source(task, name)], folder, stack)


@pytest.fixture(scope="module")
def typescript(source: Run, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs in TypeScript, compiled together in strict mode."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(installed / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    for task in PRINTED:
        (folder / f"{task}.ts").write_text(source(task, "client.ts"))
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--types", "node"]
    command = [str(folder / "node_modules" / ".bin" / "tsc"), *options, *(f"{task}.ts" for task in PRINTED)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=5 * PATIENCE)
    assert 0 == done.returncode, done.stdout
    return folder


@TASKS
def test_typescript(task: str, stack: Parley, typescript: Path, folder: Path) -> None:
    """The programs with the openai package for Node print the answers."""
    assert PRINTED[task] == output(["node", str(typescript / f"{task}.js")], folder, stack)


@pytest.fixture(scope="module")
def go(source: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One program of all those in Go, which runs the one that its argument names."""
    go_programs.need_go()
    folder = tmp_path_factory.mktemp("go")
    shutil.copytree(ROOT / "protos", folder / "protos", ignore=shutil.ignore_patterns("openapi"))
    buf = [str(Path(sys.executable).with_name("buf")), "generate", "--template", "protos/buf.gen.go.yaml"]
    subprocess.run(buf, cwd=folder, check=True, capture_output=True, timeout=PATIENCE)
    package = folder / "src" / "recipes"
    package.mkdir(parents=True)
    (folder / "gen" / "go" / "example.com").rename(folder / "src" / "example.com")
    for task in PRINTED:
        text = source(task, "client.go")
        assert 1 == text.count("func main() {")
        (package / f"{task}.go").write_text(text.replace("func main() {", f"func run_{task}() {{"))
    table = ", ".join(f'"{task}": run_{task}' for task in PRINTED)
    main = f"func main() {{ map[string]func(){{{table}}}[os.Args[1]]() }}"
    (package / "main.go").write_text(f'package main\n\nimport "os"\n\n{main}\n')
    return go_programs.build("recipes", folder, "recipes.run")


@TASKS
def test_go(task: str, stack: Parley, go: Path, folder: Path) -> None:
    """The programs in Go with the generated stubs print the answers."""
    assert PRINTED[task] == output([str(go), task], folder, stack)


def test_every_recipe_has_a_page_that_names_its_programs() -> None:
    """Each task has a page with a link to each of its programs."""
    assert set(PRINTED) == {path.name for path in RECIPES.iterdir() if path.is_dir()}
    for task in PRINTED:
        links = re.findall(rf"^- \[[^]]+\]\(({task}/[^)]+)\)$", (RECIPES / f"{task}.md").read_text(), re.MULTILINE)
        assert sorted(f"{task}/{file.name}" for file in (RECIPES / task).iterdir()) == sorted(links)
