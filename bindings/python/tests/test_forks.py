"""Forks: what a child has of its parent. Each in a program of its own, with a time limit."""

from __future__ import annotations

from conftest import SLEEPER, program


def test_a_handle_after_fork_says_so() -> None:
    ended = program(
        SLEEPER
        + """
    import traceback, machina.sync
    sync = machina.sync.Machina.open("memory:")
    sync.register({"name": "a"})
    watching = sync.watch()

    async def main():
        global m
        m = await Machina.open("memory:")
        await with_sleeper(m)
        await m.call("sleeper", "sleep", {"seconds": 0})

    asyncio.run(main())
    pid = os.fork()
    if pid == 0:
        try:
            async def child():
                for do in (m.get("a"), m.find(), m.call("sleeper", "sleep", {"seconds": 0}), m.close()):
                    try:
                        await asyncio.wait_for(do, 5)
                        print("no error")
                    except machina.Unavailable as error:
                        print(error)
            asyncio.run(child())
            for do in (sync.find, sync.close, lambda: next(sync.watch())):
                try:
                    do()
                    print("no error")
                except machina.Unavailable as error:
                    print(error)
            with machina.sync.Machina("memory:") as own:
                own.register({"name": "b"})
                print([one.name for one in own.find()])
            async def own():
                async with Machina() as m:
                    await with_sleeper(m)
                    print((await m.call("sleeper", "sleep", {"seconds": 0})).text)
            asyncio.run(own())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    print("child", os.waitstatus_to_exitcode(status))
    print([one.name for one in sync.find()])
    sync.close()
    asyncio.run(m.close())
    """
    )
    assert ended.stdout.splitlines() == [
        *["the handle was opened before fork: open one in this process"] * 7,
        "['b']",
        "0.0",
        "child 0",
        "['a']",
    ], ended.stderr


def test_a_pool_of_processes_takes_functions_that_open_one() -> None:
    ended = program(
        """
    import multiprocessing, machina.sync

    def work(n):
        with machina.sync.Machina("memory:") as m:
            return m.register({"name": f"s{n}"}).name

    with machina.sync.Machina("memory:") as m:
        m.register({"name": "parent"})
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(sorted(pool.map(work, range(6))))
    """
    )
    assert ended.stdout == "['s0', 's1', 's2', 's3', 's4', 's5']\n"
