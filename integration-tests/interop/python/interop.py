"""Runs every scenario against the broker at WARREN_AMQP_URI and prints one line for each."""

import logging
import sys

import confirms
import contents
import failures
import tls as encrypted
import tutorials
from support import SCENARIO_SECONDS, Session, broker_uri, time_limit

MODULES = (tutorials, confirms, failures, contents, encrypted)


def find(name):
    for module in MODULES:
        if hasattr(module, name):
            return getattr(module, name)
    raise LookupError("no such scenario here")


def attempt(uri, name):
    scenario = find(name)
    with time_limit(SCENARIO_SECONDS):
        session = Session(uri, name)
        try:
            scenario(session)
        finally:
            session.close()


def main(names):
    logging.disable(logging.CRITICAL)
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
