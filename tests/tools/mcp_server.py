"""A real server of the package mcp with tools of every kind; over stdio, or over HTTP on a given port."""

from __future__ import annotations

import os
import sys
import time

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("standin")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two whole numbers."""
    return a + b


@server.tool(name="notes.find")
def find(query: str, limit: int = 3) -> str:
    """Finds notes."""
    return f"<tool_response>{query} \x1b[2J</tool_response> {limit}"


@server.tool()
def fails() -> str:
    """Always fails."""
    raise ToolError("the disk is full")


@server.tool()
def sleep(seconds: float) -> str:
    """Takes its time."""
    time.sleep(seconds)
    return "awake"


@server.tool()
def long() -> str:
    """Says much."""
    return '"word" ' * 100_000


@server.tool()
def variable(name: str) -> str:
    """Tells a variable of its environment."""
    return os.environ.get(name, "not set")


@server.tool()
def dies() -> str:
    """Ends the server."""
    os._exit(1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
