"""The asyncio shell: tasks and sockets around the engines."""
