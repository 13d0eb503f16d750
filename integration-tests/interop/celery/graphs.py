"""Small graphs of tasks, each with its outcome checked."""

import time

from celery import chord as chord_of
from celery import group as group_of

from support import WAIT_SECONDS, Mismatch, equal, holds
from tasks import Stubborn

# Two clocks are compared, the wall's and the one of the worker's timer.
CLOCK_SECONDS = 0.05


def answer(result):
    return result.get(timeout=WAIT_SECONDS)


def retry(session):
    app = session.app()
    session.worker()
    persist = app.tasks["tasks.persist"]
    patient, hopeless = persist.delay(3), persist.delay(10)
    equal("attempts", answer(patient), [0, 1, 2, 3])
    try:
        attempts = answer(hopeless)
    except Stubborn as last:
        equal("last failure", str(last), "after [0, 1, 2, 3]")
    else:
        raise Mismatch(f"a task with three retries succeeded after {attempts}")


def countdown(session):
    app = session.app()
    session.worker()
    account = app.tasks["tasks.account"]
    sent = time.time()
    later, soon = account.apply_async(countdown=2), account.delay()
    soon, later = answer(soon), answer(later)
    holds(f"{later} before {sent} + 2 s", later["at"] >= sent + 2 - CLOCK_SECONDS)
    holds(f"{later} before {soon}", later["at"] > soon["at"])
    for came in (soon, later):
        equal("routing key", came["routing_key"], session.queue)


def group(session):
    app = session.app()
    session.worker()
    square = app.tasks["tasks.square"]
    equal("squares", answer(group_of(square.s(number) for number in range(20))()), [n**2 for n in range(20)])
    # Each of them gives its result to the next task.
    chains = group_of(square.s(number) | square.s() for number in range(4))
    equal("squares of squares", answer(chains()), [0, 1, 16, 81])


def chord(session):
    # A chord's results have to be where every worker can read them, which rpc:// is not.
    app = session.app(result_backend=session.folder().as_uri(), result_chord_retry_interval=0.2)
    session.worker()
    square, total = app.tasks["tasks.square"], app.tasks["tasks.total"]
    squares = [square.s(number) for number in range(10)]
    equal("sum of squares", answer(chord_of(squares)(total.s())), 285)
    equal("its square", answer(chord_of(squares)(total.s() | square.s())), 285**2)


def late_acks(session):
    app = session.app(**session.quorum(), task_acks_late=True)
    first = session.worker()

    def seen(message):
        if message["status"] == "HELD":
            first.kill()
            session.worker()

    outcome = app.tasks["tasks.hold"].delay().get(timeout=WAIT_SECONDS, on_message=seen)
    holds("the first worker was never killed", first.process.returncode is not None)
    equal("outcome", outcome, "finished by the second worker")


def quorum_countdown(session):
    app = session.app(**session.quorum())
    session.worker()
    account = app.tasks["tasks.account"]
    # A worker that answers has declared the exchanges and queues of all delays.
    equal("exchange", answer(account.delay())["exchange"], session.queue)
    sent = time.time()
    came = answer(account.apply_async(countdown=3))
    holds(f"{came} before {sent} + 3 s", came["at"] >= sent + 3 - CLOCK_SECONDS)
    equal("exchange", came["exchange"], "celery_delayed_delivery")
    # One bit for each exchange on the way. The two that are set sent it through queues, for two seconds and for one.
    equal("routing key", came["routing_key"], ".".join(f"{3:028b}") + "." + session.queue)
