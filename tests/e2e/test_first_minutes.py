"""The first minutes of a new user: `parley init`, a start, the printed call, another key, `parley doctor`."""

import json
import shlex
import subprocess
from pathlib import Path

from parley.cli.shared.first_key import greeting
from parley.config.loader import load
from parley.supervisor.addresses import parse_address
from tests.processes import PATIENCE, environment, run_here, started


def test_from_init_to_another_key(tmp_path: Path) -> None:
    """The written file starts, the example call is answered, the printed command works, doctor finds no failure.

    The store has a key before the start, so that the start is like a second one.
    """
    file = tmp_path / "parley.yaml"
    assert 0 == run_here("init", str(file), "--vendor", "local").returncode
    places = {"PARLEY_CONFIG": str(file), "PARLEY_STATE_DIR": str(tmp_path / "state")}
    key = json.loads(run_here("keys", "create", "--name", "first", "--json", **places).stdout)["key"]
    with started("--config", str(file), folder=tmp_path) as parley:
        rest, grpc = parley.http.removeprefix("http://"), parley.grpc
        assert parley.output.startswith(f"\nPage  http://{rest}/\nREST  http://{rest}\ngRPC  {grpc}\n")
        shown = greeting(parse_address(rest), parse_address(grpc), key, load(file))
        call = shown[shown.index("curl ") : shown.index("\nCtrl-C")].replace("curl ", "curl -s ", 1)
        done = subprocess.run(
            ["bash", "-c", call], env=environment(no_proxy="*"), capture_output=True, check=True, timeout=PATIENCE
        )
        assert "Paris" in json.loads(done.stdout)["choices"][0]["message"]["content"]

        command = shlex.split(parley.output.split("To create another API key:\n\n")[1].splitlines()[0])
        assert ["keys", "create", "--state-dir", str(tmp_path / "state"), "--config", str(file)] == command[1:-2]
        created = json.loads(run_here(*command[1:-1], "second", "--json").stdout)["key"]
        assert 200 == parley.request("GET", "/v1/models", key=created)[0]

        doctor = run_here("doctor", "--json", PARLEY_HTTP=rest, PARLEY_GRPC=grpc, **places)
        assert 0 == doctor.returncode, doctor.stdout
        assert '"message": "local answered in ' in doctor.stdout
        assert f"{rest} (--http) is in use while Parley runs (process {parley.process.pid})" in doctor.stdout
