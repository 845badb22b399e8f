"""The first minutes of a new user: `parley init`, the first start with its key, `parley doctor`, a later start."""

import json
import shlex
import subprocess
from pathlib import Path

from tests.processes import PATIENCE, environment, run_here, started


def test_from_init_to_a_later_start(tmp_path: Path) -> None:
    """The written file starts, the printed call is answered, doctor finds no failure, a later start shows a command."""
    file = tmp_path / "parley.yaml"
    assert 0 == run_here("init", str(file), "--vendor", "local").returncode
    with started("--config", str(file), folder=tmp_path) as parley:
        text = parley.output
        assert text.startswith(f"\nPage  {parley.http}/\nREST  {parley.http}\ngRPC  {parley.grpc}\n")
        call = text[text.index("curl ") : text.index("\nCtrl-C")]
        done = subprocess.run(
            ["bash", "-c", f"{call.replace('curl', 'curl -s', 1)}"],
            env=environment(no_proxy="*"),
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
        assert "smollm2" == json.loads(done.stdout)["model"]
        addresses = {"PARLEY_HTTP": parley.http.removeprefix("http://"), "PARLEY_GRPC": parley.grpc}
        doctor = run_here(
            "doctor", "--json", PARLEY_CONFIG=str(file), PARLEY_STATE_DIR=str(tmp_path / "state"), **addresses
        )
        found = {(one["check"], one["status"]): one["message"] for one in json.loads(doctor.stdout)}
        assert 0 == doctor.returncode, doctor.stdout
        assert found["backends", "ok"].startswith("local answered in ")
        assert f"is in use while Parley runs (process {parley.process.pid})" in doctor.stdout
        assert "first API key" in found["permissions", "warning"]
        parley.stop()
    with started("--config", str(file), folder=tmp_path) as later:
        command = shlex.split(later.output.split("To create another API key:\n\n")[1].splitlines()[0])
        assert ["keys", "create", "--state-dir", str(tmp_path / "state"), "--config", str(file)] == command[1:-2]
        created = run_here(*command[1:-1], "second", "--json")
        assert 200 == later.request("GET", "/v1/models", key=json.loads(created.stdout)["key"])[0]
