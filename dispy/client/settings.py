"""A cluster's settings: its arguments, then the environment, the configuration, the defaults."""

import os
from collections.abc import Mapping
from typing import Any

from dispy.model.configuration import read_configuration
from dispy.model.credentials import Credentials
from dispy.model.setting import Value
from dispy.model.settings import resolve
from dispy.system.directories import configuration_files


def client_settings(**arguments: Any) -> dict[str, Any]:
    """Return the value of every setting of the client; an argument that is None says nothing.

    Raises DispyError for a wrong value, naming where it stands.
    """
    given = {name: Value(value, name) for name, value in arguments.items() if value is not None}
    return {name: setting.value for name, setting in resolve_here("client", given).items()}


def client_credentials(**arguments: Any) -> Credentials:
    """Return what this program proves itself by; as `client_settings`.

    Raises DispyError for a file that cannot be used, or that others may read.
    """
    given = {name: Value(value, name) for name, value in arguments.items() if value is not None}
    return credentials_of("client", resolve_here("client", given))


def credentials_of(room: str, settings: Mapping[str, Value]) -> Credentials:
    """Return the credentials that the settings of a room mean; raises DispyError."""
    from dispy.net.credentials import load_credentials

    return load_credentials(settings)


def resolve_here(room: str, given: Mapping[str, Value]) -> dict[str, Value]:
    """Resolve with the environment and the configuration files of this very process."""
    return resolve(room, given, os.environ, read_configuration(configuration_files(os.environ)))
