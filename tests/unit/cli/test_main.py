"""The command line: help, errors, exit codes; as a separate process if that makes a difference."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ANY_PORTS, COMMAND, environment, run, run_here

COMMANDS = [
    "",
    "up",
    "serve",
    "edge",
    "edge render",
    "edge run",
    "edge drain",
    "keys",
    "keys create",
    "keys list",
    "keys revoke",
    "models",
    "config",
    "config check",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    """`--help` of every command has an example line."""
    done = run_here(*command.split(), "--help")
    assert (0, "") == (done.returncode, done.stderr)
    _, found, example = done.stdout.partition("Example")
    assert found
    assert f"  parley {command}".rstrip() in example


def test_the_help_shows_addresses_as_they_are_written() -> None:
    """A default is shown in the format of the option."""
    lines = run_here("up", "--help").stdout.replace("│", " ").split()
    assert "[default: 127.0.0.1:8080]" in " ".join(lines)


@pytest.mark.parametrize(
    "variable",
    ["CONFIG", "STATE_DIR", "HTTP", "GRPC", "WORKERS", "READY_FILE", "CORS_ORIGIN", "MAX_BODY", "MAX_STREAMS"],
)
def test_the_help_of_up_names_each_variable(variable: str) -> None:
    """Every option of `up` can be set in the environment, and the help names the variable."""
    assert f"PARLEY_{variable}" in run_here("up", "--help").stdout.replace("\n", " ")


def test_help_does_not_load_what_it_does_not_need() -> None:
    """`parley --help` loads no gRPC, HTTP client, database or configuration, and so is fast."""
    program = (
        "import sys\n"
        "from parley.cli.main import main\n"
        "sys.argv = ['parley', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'aiohttp', 'apsw', 'pydantic', 'google.protobuf', 'uvloop'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stderr


def test_up_does_not_load_grpc() -> None:
    """The supervisor does not load gRPC, because it forks."""
    program = "import sys, parley.cli.up, parley.stores.sqlite, parley.auth.api_keys; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "False\n" == done.stdout


def test_the_version_is_printed() -> None:
    """`parley --version` prints one line."""
    done = run("--version")
    assert 0 == done.returncode
    assert done.stdout.startswith("parley 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["upp"], '"upp"'),
        (["up", "--htpp", "x"], "--htpp"),
        (["up", "--http", "8080"], "write HOST:PORT"),
        (["up", "--workers", "0"], "--workers"),
        (["up", "--workers", "many"], "--workers"),
        (["config", "check"], "FILE"),
        (["up", "stray"], "stray"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str) -> None:
    """A wrong word or value is named in one line on stderr, with a hint to the help; the exit code is 2."""
    done = run_here(*arguments)
    assert (2, "") == (done.returncode, done.stdout)
    assert 1 == len(done.stderr.splitlines())
    assert done.stderr.startswith("parley: ")
    assert message in done.stderr
    assert done.stderr.endswith("See `parley --help`.\n")


def test_a_wrong_variable_is_one_line_too() -> None:
    """An invalid value in the environment is reported like an invalid option."""
    done = run_here("up", PARLEY_HTTP="nonsense")
    assert 2 == done.returncode
    assert "nonsense" in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_config_check_of_a_valid_file(tmp_path: Path) -> None:
    """The check of a valid file prints the number of its parts."""
    file = tmp_path / "parley.yaml"
    file.write_text(
        "backends: {a: {kind: llama_cpp}, b: {kind: openai, base_url: 'http://b/v1'}}\n"
        "models: [{id: m, targets: [{backend: a}]}]\n"
    )
    done = run_here("config", "check", str(file))
    assert (0, f"{file} is fine: 2 backends, 1 model\n", "") == (done.returncode, done.stdout, done.stderr)


def test_config_check_lists_every_problem(tmp_path: Path) -> None:
    """Each problem is a line with file and path; the exit code is 1."""
    file = tmp_path / "parley.yaml"
    file.write_text("backends: {a: {kind: llama_cpp, slots: 0}}\nmodels: [{id: m, targets: []}]\n")
    done = run_here("config", "check", str(file))
    assert (1, "") == (done.returncode, done.stdout)
    assert [f"parley: {file}:1: backends.a.slots", f"parley: {file}:2: models[0].targets"] == [
        line.rpartition(": ")[0] for line in done.stderr.splitlines()
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("defaults: {temprature: 1}, targets: [{backend: b}]", "2: models[0].defaults.temprature: "),
        ("targets: [{backend: a}]", "1: backends.a.model_path: there is no file /none.gguf; "),
    ],
)
def test_config_check_rejects_what_up_rejects(model: str, message: str, tmp_path: Path) -> None:
    """The check includes names of parameters and model files, like the start of `parley up`."""
    file = tmp_path / "parley.yaml"
    file.write_text(
        "backends: {a: {kind: llama_cpp, model_path: /none.gguf}, b: {kind: openai, base_url: 'http://b/v1'}}\n"
        f"models: [{{id: m, {model}}}]\n"
    )
    up = ("up", *ANY_PORTS, "--config", str(file), "--state-dir", str(tmp_path / "s"))
    for done in (run_here("config", "check", str(file)), run(*up)):
        assert (1, "") == (done.returncode, done.stdout)
        assert 1 == len(done.stderr.splitlines())
        assert done.stderr.startswith(f"parley: {file}:{message}")


def test_models_lists_models(tmp_path: Path) -> None:
    """The table and the JSON have every model, its backends, sessions and aliases, what is known of it, and no key."""
    file = tmp_path / "parley.yaml"
    file.write_text(
        "backends: {a: {kind: llama_cpp}, b: {kind: openai, base_url: 'http://b/v1', api_key: secret-word}}\n"
        "models: [{id: one, targets: [{backend: a}, {backend: b, model: gpt}], sessions: {ids: caller}},"
        " {id: '[two]', targets: [{backend: b}],"
        " sessions: off, metadata: {context_length: 128k, modalities: [text, image], tools: false},"
        " aliases: [{id: old, retires: 2999-01-31}, {id: gone, retires: 2020-01-31}, {id: other}]}]\n"
        "default_model: one\n"
    )
    table, data = run_here("models", "--config", str(file)), run_here("models", "--json", PARLEY_CONFIG=str(file))
    assert (0, 0) == (table.returncode, data.returncode)
    assert ["*", "one", "a", "-", "auto,", "own", "ids", "-", "-"] == table.stdout.splitlines()[1].split()
    assert "[two] b - off context length 128000, text, image, no tools old until 2999-01-31" == " ".join(
        table.stdout.splitlines()[3].split()
    )
    assert ["gone retired 2020-01-31", "other"] == [line.strip() for line in table.stdout.splitlines()[4:6]]
    one, two = json.loads(data.stdout)
    assert ("one", True, "auto", ["a", "b"]) == (
        one["id"],
        one["default"],
        one["sessions"],
        [target["backend"] for target in one["targets"]],
    )
    assert ("caller", "generated") == (one["session_ids"], two["session_ids"])
    assert ("[two]", False, "off") == (two["id"], two["default"], two["sessions"])
    assert ({"old": "2999-01-31", "gone": "2020-01-31", "other": None}, 128_000) == (
        two["aliases"],
        two["metadata"]["context_length"],
    )
    assert "secret-word" not in table.stdout + data.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    """A caller that has closed standard streams gets the exit code, and no stack trace."""
    command = f"{COMMAND} chat --no-history {closed}"
    variables = environment(PARLEY_API_KEY="sk-x", PARLEY_ADDRESS="127.0.0.1:1")
    done = subprocess.run(
        ["bash", "-c", command], env=variables, input="Hi", capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert (0 if "<&-" in closed else 1) == done.returncode  # /dev/null has no question
