"""`parley models pull`: fetches the weights of a model for llama.cpp."""

import json
from typing import Annotated

from cyclopts import Parameter

from parley.cli.shared import download, http_source, model_files
from parley.cli.shared.download import Fetched
from parley.cli.shared.download_progress import progress
from parley.cli.shared.options import JsonOption, StateDirOption
from parley.supervisor import folders


def pull(
    source: Annotated[str, Parameter(name="SOURCE", help="The address or the path of a GGUF file.")],
    /,
    *,
    sha256: Annotated[
        str | None,
        Parameter(
            name="--sha256", help="The checksum that the file must have. An address may end in #sha256=… instead."
        ),
    ] = None,
    name: Annotated[
        str | None, Parameter(name="--name", help="The name of the file here. Default: that of the source.")
    ] = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch the weights of a model into the folder `models` of the state folder. Run it again to go on."""
    found = http_source.parse(source)
    checksum = http_source.checked_sha256(sha256) if sha256 is not None else found.sha256
    target = model_files.file_path(folders.state_dir(state_dir), name or found.file_name)
    with progress(target.name) as show:
        fetched = download.fetch(found, target, checksum, show)
    _print(fetched, as_json=json)


def _print(fetched: Fetched, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(fetched.path), "sha256": fetched.sha256, "bytes": fetched.size}))
        return
    path = json.dumps(str(fetched.path), ensure_ascii=False)
    print(f"{fetched.path}{'' if fetched.is_new else ' (was there already)'}")
    print(f"sha256 {fetched.sha256}\n\nIn parley.yaml:\n")
    print(f"backends:\n  local: {{kind: llama_cpp, model_path: {path}}}")
    print(f"models:\n  - {{id: {fetched.path.stem}, targets: [{{backend: local}}]}}")
