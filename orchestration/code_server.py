"""The code server: the process that holds our definitions, on a unix socket that only this user can reach."""

import sys
from pathlib import Path

import yaml
from dagster._grpc.client import DagsterGrpcClient

from tidemill.durable import write_file

# The name of our code location: in the web UI, and in the runs that `tidemill run` records.
LOCATION = "tidemill"


def code_server_answers(socket: Path) -> bool:
    """Whether the code server on this socket has loaded its definitions, or knows why it could not."""
    client = DagsterGrpcClient(socket=str(socket))
    return socket.exists() and client.health_check_query() == "SERVING"  # type: ignore[no-untyped-call]  # Dagster's


def command(module: str, folder: Path, socket: Path) -> list[str]:
    """Serves `defs` of `module` from `folder`; a load error is shown in the web UI, and its "Reload" loads the code again."""
    serve = [sys.executable, "-m", "dagster", "code-server", "start", "--socket", str(socket)]
    # Named, since the module holds the definitions of each service beside the whole.
    served = ["--module-name", module, "--attribute", "defs", "--working-directory", str(folder)]
    return [*serve, *served, "--location-name", LOCATION]


def write_workspace(file: Path, socket: Path) -> None:
    """The workspace file by which the web UI and the daemon find the code server."""
    content = {"load_from": [{"grpc_server": {"socket": str(socket), "location_name": LOCATION}}]}
    write_file(file, yaml.safe_dump(content).encode())
