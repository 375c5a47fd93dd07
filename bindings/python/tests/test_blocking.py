"""Threads that block when something else ends: Ctrl-C, an interpreter that exits. Each in a program of
its own, with a time limit."""

from __future__ import annotations

import time

import pytest
from conftest import program


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


def test_a_call_that_ctrl_c_interrupts_is_cancelled_and_written_down() -> None:
    ended = program(
        """
    import asyncio, os, signal, threading, time, machina.sync
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began, cancelled = threading.Event(), threading.Event()

    with machina.sync.Machina("memory:") as m:
        @m.tool(service="sleeper", executions_max=1)
        async def sleep(seconds: float) -> None:
            began.set()
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        def interrupt():
            began.wait(20)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            m.call("sleeper", "sleep", {"seconds": 60}, timeout=60)
        except KeyboardInterrupt:
            print("interrupted", cancelled.wait(20))
        for _ in range(200):
            entries = m.journal("call", service="sleeper").items
            if entries:
                break
            time.sleep(0.05)
        print([(entry.tool, entry.success, entry.attempts) for entry in entries])
        print(m.explain("sleeper", "sleep").candidates[0].in_flight)
        print(m.call("sleeper", "sleep", {"seconds": 0}, timeout=20).is_error)
    """
    )
    assert ended.stdout.splitlines() == [
        "interrupted True", "[('sleep', False, 1)]", "0", "False"
    ], ended.stdout + ended.stderr  # fmt: skip


SILENT = """
    import atexit, http.server, json, socket, sys, threading, time
    # Runs when all of Machina has ended, so that it is seen what becomes of the thread then.
    atexit.register(time.sleep, 1)
    import machina.sync

    m = machina.sync.Machina.open("memory:", monitor=False)
    code = "import sys, time; sys.stdin.read(); time.sleep(60)"
    m.register({"name": "mute", "instances": [{"stdio": {"command": sys.executable, "args": ["-c", code]}}]})

    class Silent(http.server.BaseHTTPRequestHandler):
        # Says that it is a Machina, and nothing else.

        def do_GET(self):
            if self.path != "/api/v1/status":
                time.sleep(60)
            body = json.dumps({"name": "machina", "version": machina.__version__}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET
        log_message = lambda *_: None

    silent = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=silent.serve_forever, daemon=True).start()
    far = machina.sync.Machina.open("http://127.0.0.1:%d" % silent.server_port)
    deaf = socket.create_server(("127.0.0.1", 0))
"""


@pytest.mark.parametrize(
    ("wait", "ends"),
    [
        ('m.call("mute", "anything", timeout=60)', ["Unavailable"]),
        # The end cuts connections too, which may be seen first.
        ("far.find()", ["Unavailable", "Lost"]),
        ('far.call("mute", "anything")', ["Unavailable", "Lost"]),
        ("far.watch()", ["Unavailable", "Lost"]),
        # The close of the Machina ends the probe, which is an answer if there is time for it.
        ('m.check("mute")', ["Unavailable", "answered"]),
        ('machina.sync.Machina.open("http://127.0.0.1:%d" % deaf.getsockname()[1])', ["Unavailable"]),
    ],
)
def test_an_exit_while_a_thread_blocks_is_clean(wait: str, ends: list[str]) -> None:
    began = time.monotonic()
    ended = program(
        SILENT
        + f"""
    def block():
        try:
            {wait}
        except machina.MachinaError as error:
            print(type(error).__name__, flush=True)
        else:
            print("answered", flush=True)

    thread = threading.Thread(target=block, daemon=True)
    thread.start()
    time.sleep(1)
    print("blocks", thread.is_alive(), flush=True)
    """
    )
    assert ended.stdout.splitlines() in [["blocks True", end] for end in ends], ended.stdout + ended.stderr
    assert "panicked" not in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
    assert time.monotonic() - began < 20


def test_what_is_asked_when_machina_has_ended() -> None:
    ended = program(
        """
    import atexit

    def late():
        asyncio.run(awaited.close())
        m.close()
        for do in (m.find, lambda: next(events), machina.sync.Machina.open, lambda: asyncio.run(awaited.find())):
            try:
                do()
                print("no error")
            except machina.Unavailable as error:
                print(error)

    atexit.register(late)
    import asyncio, machina.sync
    m = machina.sync.Machina.open("memory:")
    events = m.watch()
    awaited = asyncio.run(machina.Machina.open("memory:"))
    """,
        timeout=20,
    )
    closed, exiting = "the handle is closed: open another", "the interpreter is exiting"
    assert ended.stdout.splitlines() == [closed, exiting, exiting, closed], ended.stderr
    assert "panicked" not in ended.stderr, ended.stderr


def test_a_thread_that_follows_events_ends_with_the_machina() -> None:
    ended = program(
        """
    import threading, time, machina.sync
    with machina.sync.Machina("memory:") as m:
        events = m.watch()
        threading.Thread(target=lambda: print([event.service for event in events])).start()
        m.register({"name": "a"})
        time.sleep(0.5)
    """,
        timeout=20,
    )
    assert ended.stdout == "['a']\n", ended.stderr
