"""Server process of llama.cpp: `python -m parley.backends.llama_cpp.server --socket … --model … …`.

After the model is loaded, the server writes a JSON file beside the socket, with the capabilities of the model's chat
template and the number of concurrent requests and choices (`slots`), and prints one line. SIGTERM, SIGINT and the exit
of its parent terminate it immediately.
"""

import argparse
import ctypes
import http.client
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PROMPT_CACHE_MIB = 256
_POLL_SECONDS = 0.5


def main() -> None:
    """Serves until a signal arrives or the parent exits."""
    arguments = _arguments()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _end_with(arguments.parent)
    capabilities = arguments.socket.with_suffix(".json")
    for path in (arguments.socket, capabilities):
        path.unlink(missing_ok=True)
    os.umask(0o177)
    server = _serve(arguments)
    known = _template_capabilities(arguments.socket) | {"slots": arguments.slots}
    capabilities.write_text(json.dumps(known), encoding="utf-8")
    print(f"llama.cpp serves {arguments.model.name} on {arguments.socket}", flush=True)  # noqa: T201 - for the log
    while os.getppid() == arguments.parent:
        time.sleep(_POLL_SECONDS)
    del server


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m parley.backends.llama_cpp.server", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="the Unix socket to listen on")
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--context", type=int, default=4096, help="tokens for each request")
    parser.add_argument("--slots", type=int, default=4, help="requests at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads that compute")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="the parent process, whose exit ends this one")
    return parser.parse_args()


def _end_with(parent: int) -> None:
    """Ends this process when its parent exits: immediately on Linux, elsewhere by the poll in `main`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent process has exited")


def _serve(arguments: argparse.Namespace) -> object:
    """Loads the model and starts the server in threads; the server runs as long as the returned object exists."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(arguments.model)
    params.hostnames = [str(arguments.socket)]
    params.n_ctx = arguments.context * arguments.slots
    params.n_parallel = arguments.slots
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = arguments.threads
        threads.poll = 0  # with busy-waiting threads the server is 10 times slower under other load
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.ui = False
    params.verbosity = 0
    return xllamacpp.Server(params)


def _template_capabilities(path: Path) -> dict[str, object]:
    """Requests the capabilities of the model's chat template from the server."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("GET", "/props", headers={"Connection": "close"})
    response = json.load(connection.getresponse())
    connection.close()
    return dict(response["chat_template_caps"])


if __name__ == "__main__":
    main()
