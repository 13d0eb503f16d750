"""Runs every scenario against the broker at WARREN_AMQP_URI and prints one line for each."""

import signal
import sys

import graphs
from support import SCENARIO_SECONDS, Session, broker_uri, time_limit


def attempt(uri, name):
    scenario = getattr(graphs, name, None)
    if scenario is None:
        raise LookupError("no such scenario here")
    with time_limit(SCENARIO_SECONDS):
        session = Session(uri, name)
        try:
            scenario(session)
            session.finish()
        finally:
            session.close()


def main(names):
    # Whoever ends this process ends its workers with it.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(143))
    uri = broker_uri()
    failed = 0
    for name in names:
        try:
            attempt(uri, name)
        except Exception as why:  # whatever went wrong is this scenario's result
            failed += 1
            print(f"FAIL {name}: {type(why).__name__}: {why!s}".replace("\n", " "), flush=True)
        else:
            print(f"ok {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
