"""Checks before any process starts, so that an error is one line and not a partly started Parley."""

import errno
import ipaddress
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from parley.cli.shared.process_settings import model_backends
from parley.config import Config, ConfigError, RemoteBackend
from parley.config.loader import located_error
from parley.supervisor import certificates
from parley.supervisor.addresses import Address
from parley.supervisor.certificates import TlsFiles
from parley.supervisor.errors import CommandError
from parley.supervisor.process import print_notice


def check_config(config: Config, file: Path | None) -> None:
    """Checks what the schema cannot: the `defaults` of each model, the model files of llama.cpp, and certificates.

    Args:
        config: The configuration.
        file: The file that it was read from, for the error message.

    Raises:
        ConfigError: One line for each problem.
    """
    _warn_of_writers(file)
    if problems := config_problems(config):
        raise located_error(file, problems)


def config_problems(config: Config) -> list[str]:
    """Returns the problems that the schema cannot find. Each begins with its path, such as `models[0].defaults: `."""
    return [
        *_wrong_defaults(config),
        *_missing_model_files(config),
        *_unusable_certificates(config),
        *_unusable_certificates_of_clients(config),
    ]


def _unusable_certificates_of_clients(config: Config) -> Iterator[str]:
    """Yields the problems of the authorities and client certificates of backends and guards."""
    backends = [(f"backends.{name}", one) for name, one in config.backends.items() if isinstance(one, RemoteBackend)]
    for path, one in (*backends, *((f"guards.{name}", guard) for name, guard in config.guards.items())):
        if one.ca is None and one.client_certificate is None:
            continue
        from parley.backends.http.tls import context_for

        try:
            context_for(one)
        except ConfigError as error:
            yield f"{path}.{error}"


def _warn_of_writers(file: Path | None) -> None:
    """Warns of a configuration that every user can change. It is accepted, because some mounts have no modes."""
    if file is not None and file.exists() and file.stat().st_mode & stat.S_IWOTH:
        print_notice(f"other users can change {file}, and with it where calls and keys go; run `chmod o-w {file}`")


def _wrong_defaults(config: Config) -> Iterator[str]:
    """Yields the problems of each model's `defaults`, validated as the fields of a request."""
    if not any(model.defaults for model in config.models):
        return  # the imports take a tenth of the start
    from google.protobuf import json_format

    from parley.core.errors import InvalidRequest
    from parley.core.routing.request import check_defaults
    from parley.rpc.validation import validate
    from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

    try:
        check_defaults(config)
    except ConfigError as error:
        yield str(error)
        return
    for index, model in enumerate(config.models):
        request = json_format.ParseDict(model.defaults, CreateChatCompletionRequest())
        request.messages.add(role="user").content.string_value = "…"
        try:
            validate(request, is_stream=True)
        except InvalidRequest as error:
            for field, message, _ in error.violations:
                yield f"models[{index}].defaults.{field}: {message.removeprefix(f'`{field}` ')}"


def _missing_model_files(config: Config) -> Iterator[str]:
    from parley.backends.llama_cpp.launch import model_path

    for name, backend in model_backends(config).items():
        if backend.model_url is not None:
            continue  # it is fetched at the start
        try:
            model_path(backend)
        except ConfigError as error:
            yield f"backends.{name}.{error}"


def _unusable_certificates(config: Config) -> Iterator[str]:
    if (files := tls_files(config)) is not None:
        try:
            certificates.check(files)
        except CommandError as error:
            yield str(error)


def tls_files(config: Config) -> TlsFiles | None:
    """Returns the files of the listeners' TLS."""
    tls, clients, admins = config.tls, config.auth.mtls, config.admin.mtls
    if tls is None:
        return None
    files = TlsFiles(tls.certificate, tls.key)
    if clients is not None:
        files = replace(files, client_ca=clients.ca, client_required=clients.required, client_name=clients.account)
    if admins is not None:
        files = replace(files, admin_ca=admins.ca, admin_name=admins.name)
    return files


def require_private(address: Address, option: str, remedy: str) -> None:
    """Raises CommandError for an address that other machines reach: without TLS, API keys could be read on the way."""
    if not _is_loopback(address.host):
        message = f"{option}: other machines reach {address}, and without TLS their API keys can be read on the way"
        raise CommandError(f"{message}; {remedy}, or give --insecure")


def _is_loopback(host: str) -> bool:
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)


def check_address(address: Address, option: str) -> None:
    """Raises CommandError if the address cannot be bound; the message names `option`, which sets another address."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed just now is free
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        raise CommandError(_explain(address, option, error)) from error


def _explain(address: Address, option: str, error: OSError) -> str:
    """Returns the problem of an address and what to change."""
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use; stop what uses it or choose another with {option}"
    if error.errno == errno.EACCES:
        return f"{address} needs privileges that this process lacks; choose a port above 1023 with {option}"
    return f"{address} is not an address of this machine ({error.strerror}); choose another with {option}"


def check_ready_file(path: Path | None) -> None:
    """Removes a stale ready file. Raises CommandError if the file cannot be written."""
    if path is None:
        return
    try:
        path.unlink(missing_ok=True)
        with tempfile.TemporaryFile(
            dir=path.parent
        ):  # not the file itself: a program that waits for it would read an empty file
            pass
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}); choose another file with --ready-file"
        raise CommandError(message) from error
