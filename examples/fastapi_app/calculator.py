"""Another server: a calculator that speaks MCP on stdin and stdout."""

from mcp.server import MCPServer

calculator = MCPServer("calculator")


@calculator.tool()
def add(numbers: list[float]) -> float:
    """Adds numbers."""
    return sum(numbers)


if __name__ == "__main__":
    calculator.run("stdio")
