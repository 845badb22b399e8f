"""Calls of clients that use only protos/: grpcurl, Python, Node, TypeScript, Go, Java."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.api
import pytest
import yaml

from tests.e2e import go_programs, vendor
from tests.e2e.node_packages import installed, unavailable
from tests.processes import PATIENCE, Parley, environment
from tests.upstream import ScriptedUpstream

__all__ = ["installed"]
ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("grpc_clients")
BIN = Path(sys.executable).parent
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Hello"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        ],
    },
]
TYPED = {
    "model": "scripted",
    "messages": [
        {"role": "system", "text": "Be brief."},
        {"role": "user", "parts": [{"text": "Hello"}, {"image": {"data": "iVBORw==", "mime_type": "image/png"}}]},
    ],
    "stop_sequences": ["END"],
}
ANSWER = {"whole": "Hello! How can I assist you today?", "streamed": "Hello!", "total": 1163}
DEBIANS_JARS = Path("/usr/share/java")
JARS = (
    "geronimo-annotation-1.3-spec",
    "grpc-*",
    "gson",
    "guava",
    "netty-*",
    "opencensus-*",
    "perfmark-*",
    "proto-google-common-protos",
    "protobuf",
)


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the folder `protos`, as another team receives it, without this project's programs."""
    return shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=shutil.ignore_patterns("openapi"))


@pytest.fixture
def answers(upstream: ScriptedUpstream) -> None:
    """Scripts a complete answer, then a stream."""
    upstream.answer(vendor.complete_answer(), vendor.text("Hel", "lo", "!"))


@pytest.fixture
def typed_requests(answers: None, upstream: ScriptedUpstream) -> Iterator[None]:
    """Expects that each call is the conversation of the programs, written in typed forms."""
    yield
    sent = [(request.json["messages"], request.json["stop"]) for request in upstream.requests]
    assert sent
    assert all((CONVERSATION, ["END"]) == one for one in sent), sent


def run(command: list[str], folder: Path, stack: Parley, **more: str) -> str:
    """Runs a command to its end; returns what it printed."""
    variables = environment(PARLEY_GRPC=stack.grpc, KEY=stack.key, **more)
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=5 * PATIENCE
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def generate(template: str, folder: Path, stack: Parley, path: str) -> None:
    """Runs `buf generate` with a template of the project."""
    run([str(BIN / "buf"), "generate", "--template", f"protos/{template}"], folder, stack, PATH=path)


def test_the_vendored_protos_are_those_of_google() -> None:
    """The files under protos/google equal those of the package googleapis-common-protos."""
    [published] = google.api.__path__
    for file in (ROOT / "protos" / "google" / "api").iterdir():
        assert (Path(published) / file.name).read_bytes() == file.read_bytes()


@pytest.mark.usefixtures("typed_requests")
def test_grpcurl_reads_the_folder(stack: Parley, protos: Path) -> None:
    """grpcurl calls the service from the folder without reflection, and buf builds the folder."""
    run([str(BIN / "buf"), "build", str(protos), "-o", "image.binpb"], protos, stack)
    options = ["-plaintext", "-import-path", str(protos), "-proto", "parley/v1/chat_completions.proto"]
    options += ["-H", f"authorization: Bearer {stack.key}", "-d", json.dumps(TYPED), stack.grpc]
    command = [sys.executable, str(BIN / "grpcurl"), *options, "parley.v1.ChatCompletions/CreateChatCompletion"]
    message = json.loads(run(command, protos, stack))["choices"][0]["message"]
    assert (ANSWER["whole"], ANSWER["whole"]) == (message["text"], message["content"])


@pytest.mark.usefixtures("typed_requests")
def test_python_is_generated(stack: Parley, protos: Path) -> None:
    """grpc_tools generates the client by buf; the package `parley` comes only from the generated code."""
    folder = protos.parent
    (folder / "gen" / "python").mkdir(parents=True)
    generate("buf.gen.python.yaml", folder, stack, f"{BIN}:{os.environ['PATH']}")
    packages = sysconfig.get_path("purelib")
    path = f"{folder / 'gen' / 'python'}:{packages}"
    command = [sys.executable, "-S", str(PROGRAMS / "client.py")]
    assert ANSWER == json.loads(run(command, folder, stack, PYTHONPATH=path))


@pytest.mark.usefixtures("typed_requests")
def test_node_reads_the_folder(stack: Parley, protos: Path, installed: Path) -> None:
    """@grpc/proto-loader requires only the folder."""
    program = (PROGRAMS / "client.mjs").read_text()
    command = ["node", "--input-type=module", "--eval", program]
    assert ANSWER == json.loads(run(command, installed, stack, PROTOS=str(protos)))


@pytest.mark.usefixtures("typed_requests")
def test_typescript_is_generated(stack: Parley, protos: Path, installed: Path) -> None:
    """protoc-gen-es generates the client by buf, and it compiles in strict mode."""
    folder = protos.parent
    (folder / "node_modules").symlink_to(installed / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copy(PROGRAMS / "client.ts", folder)
    tools = folder / "node_modules" / ".bin"
    generate("buf.gen.typescript.yaml", folder, stack, f"{tools}:{os.environ['PATH']}")
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck"]
    run([str(tools / "tsc"), *options, "client.ts"], folder, stack)
    assert ANSWER == json.loads(run(["node", "client.js"], folder, stack))


@pytest.mark.usefixtures("typed_requests")
def test_go_is_generated(stack: Parley, protos: Path) -> None:
    """protoc-gen-go and protoc-gen-go-grpc generate the client by buf, with Debian's packages of Go and gRPC."""
    go_programs.need_go()
    generate("buf.gen.go.yaml", protos.parent, stack, os.environ["PATH"])
    assert ANSWER == run_go("client", protos.parent, stack)


@pytest.mark.usefixtures("answers")
def test_grpc_gateway_serves_the_annotated_paths(stack: Parley, protos: Path) -> None:
    """grpc-gateway's plugin reads the HTTP annotations; its server translates a body, a path and a query."""
    go_programs.need_go()
    if not go_programs.GATEWAY.exists():
        unavailable(f"grpc-gateway is not in {go_programs.GATEWAY}; .ci/run shows how it gets there")
    folder = protos.parent
    go_programs.build(go_programs.GATEWAYS_PLUGIN, folder, "bin/protoc-gen-grpc-gateway")
    template = yaml.safe_load((protos / "buf.gen.go.yaml").read_text())
    template["plugins"].append({"local": "protoc-gen-grpc-gateway", "out": "gen/go"})
    (protos / "buf.gen.gateway.yaml").write_text(yaml.safe_dump(template))
    generate("buf.gen.gateway.yaml", folder, stack, f"{folder / 'bin'}:{os.environ['PATH']}")
    served = run_go("gateway", folder, stack)
    assert ANSWER["whole"] == served["answer"]["choices"][0]["message"]["content"]
    assert "scripted" == served["model"]["id"]
    assert [served["answer"]["chatSessionId"]] == [session["id"] for session in served["sessions"]["sessions"]]


def run_go(program: str, folder: Path, stack: Parley) -> Any:
    """Compiles a program with the code that buf has generated, and runs it; returns the JSON that it prints."""
    source = folder / "src" / program
    source.mkdir(parents=True)
    shutil.copy(PROGRAMS / f"{program}.go", source)
    (folder / "gen" / "go" / "example.com").rename(folder / "src" / "example.com")
    return json.loads(run([str(go_programs.build(program, folder, f"{program}.run"))], folder, stack, PROTOS="protos"))


@pytest.mark.usefixtures("typed_requests")
def test_java_is_generated(stack: Parley, protos: Path) -> None:
    """protoc and protoc-gen-grpc-java generate the client by buf, with Debian's packages of Java and gRPC."""
    go_programs.need("javac", "protoc", "grpc_java_plugin", packages=JAVA_PACKAGES)
    folder = protos.parent
    (folder / "bin").mkdir()
    plugin = shutil.which("grpc_java_plugin")
    (folder / "bin" / "protoc-gen-grpc-java").symlink_to(str(plugin))
    generate("buf.gen.java.yaml", folder, stack, f"{folder / 'bin'}:{os.environ['PATH']}")
    jars = ":".join(str(jar) for pattern in JARS for jar in sorted(DEBIANS_JARS.glob(f"{pattern}.jar")))
    sources = [str(file) for file in (folder / "gen" / "java").rglob("*.java")]
    options = ["-J-XX:TieredStopAtLevel=1", "-proc:none", "-nowarn", "-Xlint:none", "-cp", jars, "-d", "classes"]
    run(["javac", *options, *sources, str(PROGRAMS / "Client.java")], folder, stack)
    assert ANSWER == json.loads(
        run(["java", "-XX:TieredStopAtLevel=1", "-cp", f"classes:{jars}", "Client"], folder, stack, PROTOS="protos")
    )


JAVA_PACKAGES = (
    "default-jdk-headless",
    "libgeronimo-annotation-1.3-spec-java",
    "libgoogle-common-protos-java",
    "libgoogle-gson-java",
    "libgrpc-java",
    "libnetty-java",
    "libperfmark-java",
    "libprotobuf-java",
    "protobuf-compiler",
    "protobuf-compiler-grpc-java-plugin",
)
