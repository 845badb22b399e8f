"""The commands of the command line."""

from cyclopts import App

from parley import __version__

_EXAMPLES = """Examples:
  parley up                       start everything, create the first key
  parley keys create --name ada   create another key
  parley up --help                show all options of a command and an example"""


def _version() -> str:
    """Returns the name and the version of the package."""
    return f"parley {__version__}"


app = App(
    name="parley",
    help="Chat completions over gRPC and REST, with sessions, from any model.",
    help_epilogue=_EXAMPLES,
    help_format="plaintext",
    version=_version,
    exit_on_error=False,
    print_error=False,
)
# Commands are registered by import path, so that `parley --help` does not import their modules.
app.command(
    "parley.cli.up:up",
    name="up",
    help="Start everything: workers, Envoy, the built-in model.",
    help_epilogue="Example:\n  parley up --config parley.yaml --http 127.0.0.1:8000 --workers 2",
)
app.command(
    "parley.cli.serve:serve",
    name="serve",
    help="Run one worker, gRPC only, without Envoy.",
    help_epilogue="Example:\n  parley serve --listen 127.0.0.1:50052 --config parley.yaml",
)
app.command(
    "parley.cli.health:health",
    name="health",
    help="Check whether a listener serves, as the health checks of containers do.",
    help_epilogue="Examples:\n  parley health 127.0.0.1:50051\n  parley health http://127.0.0.1:8080/readyz",
)
app.command("parley.cli.edge:app", name="edge", help="Run Envoy on its own, in front of workers on other machines.")
app.command("parley.cli.models:app", name="models", help="List the configured models; fetch weights.")
app.command(
    "parley.cli.vendors:vendors",
    name="vendors",
    help="List the presets of vendors for `vendor:` in the configuration.",
    help_epilogue="Examples:\n  parley vendors\n  parley vendors groq mistral\n  parley vendors --json",
)
app.command("parley.cli.keys:app", name="keys", help="Create, list, change, rotate and revoke API keys.")
app.command("parley.cli.accounts:app", name="accounts", help="List, change, suspend and resume accounts.")
app.command(
    "parley.cli.audit:audit",
    name="audit",
    help="Show the changes of keys and accounts.",
    help_epilogue="Examples:\n  parley audit --since 7d\n  parley audit --subject account:acme --json",
)
app.command("parley.cli.session_changes:app", name="sessions", help="List, search, change, export and import sessions.")
app.command("parley.cli.cache:app", name="cache", help="Show and clear the kept answers of models with a cache.")
app.command(
    "parley.cli.chat.command:chat",
    name="chat",
    help="Talk to a model in the terminal.",
    help_epilogue="Examples:\n"
    "  PARLEY_API_KEY=sk-… parley chat --model smollm2\n"
    "  git diff | parley chat --key-file key --once 'Summarise this change.'\n"
    "  parley chat --key-file key --session 0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10",
)
app.command(
    "parley.cli.usage:usage",
    name="usage",
    help="Show what calls have used, and what it cost.",
    help_epilogue="Examples:\n"
    "  parley usage --since 7d\n"
    "  parley usage --by day --by model --account acme --csv > usage.csv\n"
    "  parley usage --by key --since 2026-11-01 --json | jq 'map(.cost) | add'",
)
app.command("parley.cli.targets:app", name="targets", help="Show, open, close and weight the targets.")
app.command("parley.cli.calls:app", name="calls", help="List the running calls; cancel one.")
app.command(
    "parley.cli.top:top",
    name="top",
    help="Watch calls, tokens, targets and sessions live.",
    help_epilogue="Examples:\n  parley top\n  parley top --once",
)
app.command(
    "parley.cli.log_level:log_level",
    name="log-level",
    help="Show or set the log level of the running service.",
    help_epilogue="Examples:\n  parley log-level\n  parley log-level debug --for 10m\n  parley log-level --clear",
)
app.command(
    "parley.cli.control:reload",
    name="reload",
    help="Have the running service read its configuration again.",
    help_epilogue="Example:\n  parley config check parley.yaml && parley reload",
)
app.command(
    "parley.cli.control:drain",
    name="drain",
    help="Stop the running service after its running calls have finished.",
    help_epilogue="Example:\n  parley drain",
)
app.command("parley.cli.db:app", name="db", help="Upgrade the database, or move it to PostgreSQL.")
app.command("parley.cli.config:app", name="config", help="Check a configuration file.")
app.command(
    "parley.cli.init:init",
    name="init",
    help="Write a configuration by asking for vendor and model.",
    help_epilogue="Examples:\n"
    "  parley init\n"
    "  parley init parley.yaml --vendor openai --model gpt-5-mini --no-input\n"
    "  parley init --vendor vllm --base-url http://10.0.0.5:8000/v1 --model qwen3-8b",
)
app.command(
    "parley.cli.doctor:doctor",
    name="doctor",
    help="Check everything that Parley needs; show a remedy for each problem.",
    help_epilogue="Examples:\n  parley doctor --config parley.yaml\n  parley doctor --no-calls --json",
)
app.command("parley.cli.imports:app", name="import", help="Translate the configuration of another gateway.")
