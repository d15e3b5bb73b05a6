"""Dagster's web UI behind the gate, in one process.

`python -m orchestration.webserver --port N --workspace FILE --code-server SOCKET`. What others must not see in a list of
processes comes in variables: TIDEMILL_GATE_KEY (hex) signs links and sessions, TIDEMILL_GATE_LINKS is a JSON object of names
and addresses that the sign-in page offers.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context

from orchestration import notebook_page
from orchestration.code_server import code_server_answers
from orchestration.gate import Gate
from tidemill.access.passes import KEY_VARIABLE, LINKS_VARIABLE, Passes
from tidemill.config import load_settings
from tidemill.steps.performance.notebooks import executed_folder

STATEMENT_SECONDS = 15


def _wait_for_code(socket: Path, seconds: float = 60.0) -> None:
    """Imports are done by now; what the code server lacks is waited for, so that the first page shows its assets."""
    deadline = time.monotonic() + seconds
    while not code_server_answers(socket) and time.monotonic() < deadline:
        time.sleep(0.05)


def serve(port: int, workspace: Path, code_server: Path) -> None:
    """Until SIGTERM."""
    passes = Passes(bytes.fromhex(os.environ.pop(KEY_VARIABLE)))
    links = json.loads(os.environ.pop(LINKS_VARIABLE, "{}")).items()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_SECONDS * 1000, pool_recycle=3600, max_overflow=8)
        _wait_for_code(code_server)
        with WorkspaceProcessContext(instance, workspace_load_target=WorkspaceFileTarget([str(workspace)])) as context:
            app = create_app_from_workspace_process_context(context)
            app.router.routes.insert(0, notebook_page.route(executed_folder(load_settings())))
            gate = Gate(app, passes, port, links)
            # h11 and asyncio would do; httptools and uvloop come with the project and are faster.
            uvicorn.run(gate, host="127.0.0.1", port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=2)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestration.webserver")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--code-server", type=Path, required=True)
    given = parser.parse_args(arguments)
    serve(given.port, given.workspace, given.code_server)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
