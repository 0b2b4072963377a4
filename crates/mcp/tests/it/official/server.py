"""A server by the protocol's official Python library, for official.rs.

    python server.py stdio
    python server.py http    (prints its port)
"""

import asyncio
import os
import socket
import sys
import tempfile

try:
    from mcp.server.mcpserver import Context, Image, MCPServer as Server
except ImportError:  # Before version 2.
    from mcp.server.fastmcp import Context, FastMCP as Server, Image
from mcp.types import ToolAnnotations

server = Server("official")


@server.tool(annotations=ToolAnnotations(readOnlyHint=True))
def add(a: float, b: float = 0.5) -> float:
    """Adds two numbers."""
    return a + b


@server.tool()
def divide(a: float, b: float) -> float:
    """Divides two numbers."""
    return a / b


@server.tool()
def picture() -> Image:
    """A picture of one black point."""
    return Image(data=b"P1 1 1 1", format="pbm")


@server.tool()
async def sleep(seconds: float) -> str:
    """Sleeps."""
    await asyncio.sleep(seconds)
    return "awake"


@server.tool()
async def talk(ctx: Context) -> str:
    """Reports progress and logs before it answers."""
    await ctx.report_progress(1, 2)
    print("a line of the log", file=sys.stderr)
    return "done"


@server.tool(annotations=ToolAnnotations(idempotentHint=True))
def fragile() -> str:
    """Ends the server the first time it is called."""
    mark = os.path.join(tempfile.gettempdir(), f"tangelo-mcp-official-{os.getppid()}")
    if os.path.exists(mark):
        os.remove(mark)
        return "whole"
    open(mark, "w").close()
    os._exit(1)


if sys.argv[1] == "stdio":
    server.run("stdio")
else:
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
