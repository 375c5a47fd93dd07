#!/usr/bin/env python3
"""One server for one test, which may do with it what it likes.

    serve.py postgres|redis

Prints a line of JSON when the server is ready: its port, and the variables that run.py would set. Then each
line on stdin is an order, answered with a line `ok` when it is carried out:

    kill      ends it as the loss of its machine would     start     starts it again: same port, same data
    stop      ends it in good order                        pause     it keeps its connections and answers nothing
                                                           resume    it goes on after pause

At the end of stdin the server is killed and its directory removed.
"""

import json
import signal
import sys

import run
from packages import BackingError
from servers import Certificates, Postgres, Redis

KINDS = {"postgres": Postgres, "redis": Redis}
ORDERS = ("kill", "stop", "start", "pause", "resume")


def say(line):
    print(line, flush=True)


def serve(kind):
    with run.directory() as place:
        server = KINDS[kind](place / kind, Certificates(place))
        try:
            server.start()
            say(json.dumps({"port": server.port, **server.variables()}))
            for line in sys.stdin:
                order = line.strip()
                if order not in ORDERS:
                    say(f"unknown order `{order}`: one of {', '.join(ORDERS)}")
                    continue
                getattr(server, order)()
                say("ok")
        finally:
            server.kill()


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in KINDS:
        print(__doc__, file=sys.stderr)
        return 2
    for each in run.SIGNALS:
        signal.signal(each, run.interrupt)
    try:
        serve(sys.argv[1])
    except BackingError as error:
        print(f"backing: FAILED: {error}", file=sys.stderr)
        return 1
    except run.Interrupted as interrupted:
        return 128 + interrupted.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
