"""What ends badly elsewhere: exits with calls in flight, tools that never return. Each in a
program of its own, with a time limit."""

from __future__ import annotations

import time

import pytest
from conftest import SLEEPER, program

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


ENDERS = """
    import asyncio, sys
    from machina import Machina
    import machina.sync

    def with_enders(m):
        @m.tool(service="ends")
        async def leave() -> None:
            sys.exit(3)

        @m.tool(service="ends")
        async def interrupt() -> None:
            raise KeyboardInterrupt

        @m.tool(service="ends")
        async def echo(text: str) -> str:
            return text
"""


def test_a_coroutine_that_ends_the_program_does_not_end_the_loop() -> None:
    ended = program(
        ENDERS
        + """
    async def main():
        async with Machina() as m:
            with_enders(m)
            for tool, arguments in (("leave", {}), ("echo", {"text": "still here"})):
                answer = await m.call("ends", tool, arguments, timeout=20)
                print(answer.is_error, answer.text)
        print("over")

    async def interrupted():
        async with Machina() as m:
            with_enders(m)
            await m.call("ends", "interrupt", timeout=20)

    asyncio.run(main())
    try:
        asyncio.run(interrupted())
    except KeyboardInterrupt:
        print("Ctrl-C is for the program")
    """
    )
    said = ["True SystemExit: 3", "False still here", "over", "Ctrl-C is for the program"]
    assert ended.stdout.splitlines() == said, ended.stderr


def test_a_coroutine_of_one_that_blocks_does_not_end_the_loop_of_all() -> None:
    ended = program(
        ENDERS
        + """
    import logging
    logging.basicConfig(format="%(name)s: %(message)s")
    logging.getLogger("machina.tools").setLevel(logging.CRITICAL)

    with machina.sync.Machina() as m, machina.sync.Machina() as other:
        with_enders(m)
        with_enders(other)

        @m.tool(service="ends")
        async def begin(what: str) -> str:
            loop = asyncio.get_running_loop()
            loop.call_soon(*{"exit": (sys.exit, 3), "stop": (loop.stop,)}[what])
            return "begun"

        for tool in ("leave", "interrupt"):
            answer = m.call("ends", tool, timeout=20)
            print(answer.is_error, answer.text)
        for what in ("exit", "stop"):
            print(m.call("ends", "begin", {"what": what}, timeout=20).text)
            print(other.call("ends", "echo", {"text": "still here"}, timeout=20).text)
        logging.getLogger("machina.tools").setLevel(logging.ERROR)
        m.call("ends", "begin", {"what": "exit"}, timeout=20)
        m.call("ends", "echo", {"text": ""}, timeout=20)
    """
    )
    assert ended.stdout.splitlines() == [
        "True SystemExit: 3", "True KeyboardInterrupt", "begun", "still here", "begun", "still here"
    ], ended.stderr  # fmt: skip
    assert ended.stderr.startswith("machina.tools: what a tool began in the loop of the tools raised"), ended.stderr
    assert "SystemExit: 3" in ended.stderr and "Exception in thread" not in ended.stderr


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
            stuck.set()
            threading.Event().wait()
    stuck = threading.Event()
    logging.getLogger("machina").addHandler(Stuck())
    logging.getLogger("machina").setLevel(logging.DEBUG)

    async def main():
        async with Machina() as m:
            await with_sleeper(m)
            await asyncio.to_thread(stuck.wait, 20)
            for _ in range(20):
                await m.call("sleeper", "sleep", {"seconds": 0})
        print("answered", flush=True)

    asyncio.run(main())
    """,
        timeout=30,
    )
    assert ended.stdout.splitlines()[0] == "stuck" and ended.stdout.splitlines()[-1] == "answered"
    assert time.monotonic() - began < 20
