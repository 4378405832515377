"""The page: files of the package, read once; a client names one of them, never a path."""

from importlib.resources import files

from fastapi import APIRouter, Response

from unispeech.serving.refusals import Refusal, shown

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Ending of a file -> its media type."""


def page_routes() -> APIRouter:
    """Make the routes of the page and its parts.

    Returns:
        A router; its routes are no part of the API.
    """
    folder = files("unispeech.serving") / "page"
    parts = {
        part.name: part.read_bytes() for part in folder.iterdir() if part.name.rpartition(".")[2] in TYPES
    }
    router = APIRouter(include_in_schema=False)

    def send(name: str) -> Response:
        # Asked for anew each time: a new version of the package has new files.
        media_type, headers = TYPES[name.rpartition(".")[2]], {"Cache-Control": "no-cache"}
        return Response(parts[name], media_type=media_type, headers=headers)

    @router.get("/")
    async def page() -> Response:
        return send("index.html")

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return send("icon.svg")

    @router.get("/page/{name}")
    async def part(name: str) -> Response:
        if name not in parts:
            raise Refusal(404, f"the page has no part {shown(name)}.", code="not_found")
        return send(name)

    return router
