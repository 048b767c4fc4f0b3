"""Waits in different ways: in threads, in asyncio, deep in a recursion."""
import asyncio
import threading
import time

from poold import worker


@worker.method
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@worker.method
def in_thread(seconds: float) -> str:
    def helper_function() -> None:
        time.sleep(seconds)

    helper = threading.Thread(target=helper_function, name="the helper")
    helper.start()
    helper.join()
    return "joined"


@worker.method
def in_asyncio(seconds: float) -> str:
    async def inner_coroutine() -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        await asyncio.gather(asyncio.create_task(inner_coroutine(), name="first task"), inner_coroutine())

    asyncio.run(main())
    return "gathered"


@worker.method
def deep(seconds: float, depth: int) -> str:
    return deep(seconds, depth - 1) if depth else nap(seconds)
