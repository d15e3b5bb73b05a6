"""Executed notebooks as pages of the web UI: Dagster's own page shows only those below the folder it was started in."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_PREFIX = "/notebooks/"
# What a cell printed runs no script and asks for nothing: it stands under the address of the web UI.
_POLICY = "sandbox; default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'"


def address(folder: Path, notebook: Path) -> str:
    """Path in the web UI of an executed notebook that lies in `folder`."""
    return _PREFIX + quote(str(notebook.relative_to(folder)))


def route(folder: Path) -> "Route":
    """Shows `folder`'s notebooks, and no other file."""
    from starlette.concurrency import run_in_threadpool  # the web stack is of no use to the graph, which asks for addresses
    from starlette.responses import HTMLResponse, PlainTextResponse
    from starlette.routing import Route

    async def show(request: "Request") -> "Response":
        file = _inside(folder, request.path_params["path"])
        if file is None:
            return PlainTextResponse("There is no such notebook. Materialize its asset to make it.", status_code=404)
        page = await run_in_threadpool(_as_html, file)
        return HTMLResponse(page, headers={"content-security-policy": _POLICY})

    return Route(_PREFIX + "{path:path}", show)


def _inside(folder: Path, path: str) -> Path | None:
    if "\0" in path:  # which no file name holds
        return None
    file = (folder / path).resolve()
    return file if file.suffix == ".ipynb" and file.is_relative_to(folder.resolve()) and file.is_file() else None


def _as_html(file: Path) -> str:
    from nbconvert import HTMLExporter  # half a second that only those who look at a notebook pay

    body, _ = HTMLExporter().from_filename(str(file))  # type: ignore[no-untyped-call]  # nbconvert's own
    return str(body)
