"""`parley init`: writes a commented configuration, after a test call."""

import asyncio
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from parley.cli.shared.dialog import Dialog, is_terminal
from parley.cli.shared.options import ForceOption
from parley.cli.shared.output_file import require_new, write_new
from parley.cli.shared.prose import print_wrapped, unbroken
from parley.cli.shared.starter import Answers, starter
from parley.cli.shared.vendors import VENDORS, Vendor, offered
from parley.config import LlamaCppBackend
from parley.config.loader import parse
from parley.config.variables import FILE
from parley.supervisor.errors import CommandError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BUILT_IN = "smollm2"


def init(  # noqa: PLR0913 - the command's options
    file: Annotated[Path, Parameter(name="FILE", help="The file to write.")] = Path("parley.yaml"),
    /,
    *,
    vendor: Annotated[
        str | None, Parameter(name="--vendor", help=f"One of: {', '.join(VENDORS)}. Default without a terminal: local.")
    ] = None,
    model: Annotated[
        str | None, Parameter(name="--model", help="The vendor's name of the model. Default: a small one.")
    ] = None,
    base_url: Annotated[
        str | None, Parameter(name="--base-url", help="URL of the API, without /chat/completions.")
    ] = None,
    key_variable: Annotated[
        str | None,
        Parameter(
            name="--key-variable",
            help="The environment variable with the key, '' for no key. Default: the vendor's, as OPENAI_API_KEY.",
        ),
    ] = None,
    model_id: Annotated[
        str | None, Parameter(name="--id", help="The id that requests name. Default: the name of the model.")
    ] = None,
    no_test: Annotated[bool, Parameter(name="--no-test", negative=(), help="Make no test call.")] = False,
    no_input: Annotated[
        bool, Parameter(name="--no-input", negative=(), help="Ask nothing, also on a terminal.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write a commented configuration. Without options, ask for the vendor, the model and the variable with the key.

    The key is read from the environment for one test call, and never written.
    """
    require_new(file, force=force)
    dialog = Dialog(asks=is_terminal() and not no_input)
    answers = _answers(dialog, _Options(vendor, model, base_url, key_variable, model_id))
    text = starter(answers, shlex.quote(str(file)))
    if not no_test:
        _test(dialog, answers, text)
    write_new(file, text, force=force)
    for line in _next_steps(file, answers):
        print_wrapped(line, indent=4)


@dataclass(frozen=True, slots=True)
class _Options:
    """The values of the options; None for those that are not given."""

    vendor: str | None
    model: str | None
    base_url: str | None
    key_variable: str | None
    model_id: str | None


def _answers(dialog: Dialog, given: _Options) -> Answers:
    """Returns the answers of the options and of the user. Raises CommandError."""
    if given.vendor is None and dialog.asks:
        print("Vendors:")
        for number, (one, known) in enumerate(offered().items(), 1):
            print(f"  {number:>2}  {one:<14}{known.title}")
    name = dialog.value(given.vendor, "--vendor", "Vendor, by number or name", "local", _vendor)
    chosen = VENDORS[name]
    url = _base_url(dialog, name, chosen, given.base_url)
    if chosen.kind == "llama_cpp":
        return Answers(name, chosen, "", "", "", given.model_id or _BUILT_IN)
    model = dialog.value(given.model, "--model", "Model, by the vendor's name", chosen.model, _model)
    key = ""
    if chosen.kind != "any_llm":
        question = "Environment variable with the key" + ("" if chosen.key else ", empty for no key")
        key = dialog.value(given.key_variable, "--key-variable", question, chosen.key, _variable)
    id_ = dialog.value(given.model_id, "--id", "Id of the model for callers", model, _model)
    return Answers(name, chosen, url, key, model, id_)


def _base_url(dialog: Dialog, name: str, vendor: Vendor, given: str | None) -> str:
    """Returns the URL of an API that each installation has at its own place; else the given one, or ""."""
    if vendor.kind in {"llama_cpp", "any_llm"}:
        if given is not None:
            raise CommandError(f"--base-url: {name} has none; leave it out")
        return ""
    if given is None and vendor.base_url.startswith("https://"):
        return ""
    url = dialog.value(given, "--base-url", "URL of the API", vendor.base_url, _url)
    return url if urlsplit(url).path else url + urlsplit(vendor.base_url).path


def _vendor(text: str) -> str:
    names = list(offered())
    if text.isdecimal() and 1 <= int(text) <= len(names):
        return names[int(text) - 1]
    if text not in VENDORS:
        raise ValueError(f'"{text}" is unknown; use one of: {", ".join(names)}')
    return text


def _model(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a name is needed")
    return text


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[!-~]+", text):
        raise ValueError("a URL is needed, for example http://10.0.0.5:8000/v1")
    return text.rstrip("/").removesuffix("/chat/completions")


def _variable(text: str) -> str:
    """Checks the name of a variable. The error never repeats the text, which may be a key by mistake."""
    if text and not _VARIABLE.fullmatch(text):
        raise ValueError("the name of a variable is needed, such as OPENAI_API_KEY; the key itself stays there")
    return text


def _test(dialog: Dialog, answers: Answers, text: str) -> None:
    """Makes a test call. Raises CommandError if it fails and the user does not want the file nevertheless."""
    from parley.cli.shared.probe import ProbeFailed, probe

    if answers.key and not {answers.key, answers.key + FILE} & os.environ.keys():
        problem = f"the variable {answers.key} is not set, so that no test call is made"
        if not dialog.asks:
            raise CommandError(f"{problem}; set it, or give --no-test")
        print_wrapped(f"{problem}; set it before you start Parley.")
        return
    backend = parse(text, "parley.yaml").backends[answers.name]
    if isinstance(backend, LlamaCppBackend):
        return  # `parley up` starts it
    print_wrapped(f"Asking {answers.name} ({answers.model}) for one word …")
    try:
        reply = asyncio.run(probe(answers.name, backend, answers.model))
    except ProbeFailed as error:
        problem = f"the test call failed: {error}; {error.remedy}"
        if not dialog.asks:
            raise CommandError(f"{problem}, or give --no-test") from error
        print_wrapped(problem)
        if not dialog.confirms("Write the file nevertheless?"):
            raise CommandError("nothing is written") from error
        return
    words = " ".join(reply.text.split())[:60] or "(no text yet: the model reasons first)"
    print_wrapped(f"It answered in {reply.seconds:.1f} s: {words}")


def _next_steps(file: Path, answers: Answers) -> list[str]:
    name = shlex.quote(str(file))
    start, check = unbroken(f"parley up --config {name}"), unbroken(f"parley doctor --config {name}")
    lines = [f"Wrote {name}.", "", f"  {start}       start Parley", f"  {check}   check everything"]
    if answers.key and answers.key not in os.environ:
        lines.insert(2, f"  export {answers.key}=…")
    return lines
