"""What ends badly elsewhere: exits with calls in flight, forks, tools that never return. Each in a
program of its own, with a time limit."""

from __future__ import annotations

import time

import pytest
from conftest import program

SLEEPER = """
    import asyncio, machina, os, sys, threading, time
    from machina import Machina

    async def with_sleeper(m):
        native = m.native("sleeper")

        @native.tool
        async def sleep(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

        @native.tool
        def block(seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        @native.tool
        def blow() -> None:
            raise ValueError("no such account")

        @native.tool
        def leave() -> None:
            sys.exit(3)

        await native.register()
"""


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(0)",
        "raise SystemExit(0)",
        "os.kill(os.getpid(), __import__('signal').SIGTERM)",
        "asyncio.get_running_loop().stop()",
    ],
)
def test_an_exit_with_calls_in_flight_is_clean(end: str) -> None:
    began = time.monotonic()
    ended = program(
        SLEEPER
        + f"""
    async def main():
        m = await Machina.open("memory:")
        await with_sleeper(m)
        tasks = [asyncio.ensure_future(m.call("sleeper", "sleep", {{"seconds": 60}})) for _ in range(20)]
        tasks.append(asyncio.ensure_future(m.call("sleeper", "block", {{"seconds": 60}})))
        await asyncio.sleep(0.3)
        {end}
        await asyncio.sleep(5)

    try:
        asyncio.run(main())
    except RuntimeError as stopped:
        assert "stopped before" in str(stopped), stopped
    """,
        expect=None,
    )
    assert ended.returncode == (-15 if "SIGTERM" in end else 0), ended.stderr
    assert "panicked" not in ended.stderr and "Fatal" not in ended.stderr, ended.stderr
    assert time.monotonic() - began < 20


def test_the_main_thread_ends_while_others_wait() -> None:
    ended = program(
        SLEEPER
        + """
    async def main():
        async with Machina() as m:
            await with_sleeper(m)
            await m.call("sleeper", "sleep", {"seconds": 60})

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    import machina.sync
    s = machina.sync.Machina.open("memory:")
    threading.Thread(target=lambda: list(s.watch()), daemon=True).start()
    time.sleep(1)
    print("over")
    """
    )
    assert ended.stdout == "over\n" and "panicked" not in ended.stderr, ended.stderr


def test_child_processes_end_with_the_program() -> None:
    ended = program(
        """
    import asyncio, sys, psutil
    from machina import Machina

    async def main():
        m = await Machina.open("memory:")
        code = "import sys, time; sys.stdin.read(); time.sleep(60)"
        await m.register({"name": "a", "instances": [{"stdio": {"command": sys.executable, "args": ["-c", code]}}]})
        for _ in range(100):
            children = psutil.Process().children(recursive=True)
            if children:
                break
            await asyncio.sleep(0.05)
        print(children[0].pid)

    asyncio.run(main())
    """
    )
    import psutil

    child = int(ended.stdout)
    for _ in range(100):
        if not psutil.pid_exists(child):
            break
        time.sleep(0.05)
    assert not psutil.pid_exists(child)


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


def test_what_a_tool_does_wrong_harms_its_own_call_only() -> None:
    began = time.monotonic()
    ended = program(
        SLEEPER
        + """
    async def main():
        async with Machina(config={"sessions": {"close_timeout": "1s"}}) as m:
            await with_sleeper(m)
            blown = await m.call("sleeper", "blow")
            print(blown.is_error, blown.text)
            left = await m.call("sleeper", "leave")
            print(left.is_error, left.text)
            for tool in ("block", "sleep"):
                try:
                    await m.call("sleeper", tool, {"seconds": 600}, timeout=0.2)
                except machina.Timeout as late:
                    print(late.code, late.context["outcome"])
            print((await m.call("sleeper", "sleep", {"seconds": 0})).text)

    asyncio.run(main())
    """
    )
    assert ended.stdout.splitlines() == [
        "True ValueError: no such account",
        "True SystemExit: 3",
        "timeout unknown",
        "timeout unknown",
        "0.0",
    ]
    assert time.monotonic() - began < 30, "a thread that blocks for ten minutes does not keep the program"


def test_one_that_was_not_closed_is_complained_of_and_closed() -> None:
    ended = program(
        """
    import asyncio, machina, os, tempfile, warnings
    from machina import Machina
    os.chdir(tempfile.mkdtemp())
    warnings.simplefilter("always")

    async def main():
        m = await Machina.open("memory:")
        m.scoped("alice")
        print("scoped gone", flush=True)
        m.tool(service="x")(lambda: 1)
        url = f"sqlite:{os.getcwd()}/machina.db"
        kept = await Machina.open(url)
        kept.tool(service="x", name="x")(lambda: 1)
        del m, kept
        for _ in range(200):
            try:
                async with Machina(url):
                    print("closed", flush=True)
                    break
            except machina.Unavailable:
                await asyncio.sleep(0.05)

    asyncio.run(main())
    """
    )
    assert ended.stderr.count("was not closed") == 2, ended.stderr
    assert ended.stdout == "scoped gone\nclosed\n"


def test_nothing_is_printed_unless_logging_is_configured() -> None:
    work = """
    import asyncio, logging, sys
    from machina import Machina
    {configure}

    async def main():
        async with Machina(config={{"health": {{"startup_grace_stdio": "1s"}}}}) as m:
            await m.register({{"name": "a", "instances": [{{"stdio": {{"command": "/no/such/command"}}}}]}})
            for _ in range(100):
                if (await m.health("a")).status == "unhealthy":
                    break
                await asyncio.sleep(0.05)
            await m.check("a")
            await asyncio.sleep(0.2)

    asyncio.run(main())
    """
    silent = program(work.format(configure=""))
    assert (silent.stdout, silent.stderr) == ("", "")
    loud = program(work.format(configure="logging.basicConfig(level=logging.DEBUG, format='%(name)s|%(levelname)s')"))
    lines = {line for line in loud.stderr.splitlines() if line.startswith("machina.")}
    assert lines, loud.stderr
    assert all(line.split("|")[0].split(".")[1] in {"core", "mcp", "store", "http"} for line in lines), lines
    only = program(
        work.format(
            configure="logging.basicConfig(level=logging.DEBUG, format='%(name)s');"
            "logging.getLogger('machina').setLevel(logging.CRITICAL)"
        )
    )
    assert "machina" not in only.stderr


def test_ctrl_c_interrupts_what_blocks() -> None:
    ended = program(
        """
    import _thread, signal, threading, time, machina.sync
    # Whoever runs the tests in the background may have had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    m = machina.sync.Machina.open("memory:")
    threading.Timer(0.5, _thread.interrupt_main).start()
    try:
        next(m.watch())
    except KeyboardInterrupt:
        print("interrupted", m.overview().services)
    m.close()
    """
    )
    assert ended.stdout == "interrupted 0\n"


def test_a_handler_of_logs_that_never_returns_holds_up_no_answer() -> None:
    began = time.monotonic()
    ended = program(
        SLEEPER
        + """
    import logging
    class NoLock:
        acquire = release = __enter__ = __exit__ = lambda self, *_: None

    class Stuck(logging.Handler):
        def createLock(self):
            self.lock = NoLock()  # the end of the interpreter would wait for a real one

        def emit(self, record):
            print("stuck", flush=True)
            threading.Event().wait()
    logging.getLogger("machina").addHandler(Stuck())
    logging.getLogger("machina").setLevel(logging.DEBUG)

    async def main():
        async with Machina() as m:
            await with_sleeper(m)
            await asyncio.sleep(0.2)
            for _ in range(20):
                await m.call("sleeper", "sleep", {"seconds": 0})
        print("answered", flush=True)

    asyncio.run(main())
    """,
        timeout=30,
    )
    assert ended.stdout.splitlines()[0] == "stuck" and ended.stdout.splitlines()[-1] == "answered"
    assert time.monotonic() - began < 20
