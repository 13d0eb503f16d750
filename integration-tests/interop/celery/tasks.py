"""The tasks and the application around them, for the worker and for the client."""

import threading
import time

from celery import Celery

HOLD_SECONDS = 60


class Stubborn(Exception):
    """What the tasks that are retried fail with."""


def square(number):
    return number**2


def total(numbers):
    return sum(numbers)


def persist(self, failures, attempts=()):
    """Fails as often as it is told to. Which attempts there were travels in the message of the next one."""
    attempts = [*attempts, self.request.retries]
    if len(attempts) <= failures:
        raise self.retry(args=[failures, attempts], countdown=0, max_retries=3, exc=Stubborn(f"after {attempts}"))
    return attempts


def account(self):
    """How its message came, and when."""
    delivery = self.request.delivery_info
    return {"exchange": delivery["exchange"], "routing_key": delivery["routing_key"], "at": time.time()}


def hold(self):
    """Keeps the worker busy until that is killed; who gets the message next finishes at once."""
    if self.request.delivery_info["redelivered"]:
        return "finished by the second worker"
    self.update_state(state="HELD")
    threading.Event().wait(HOLD_SECONDS)
    raise TimeoutError("nobody has killed this worker")


def build(uri, settings):
    app = Celery("interop", broker=uri)
    app.conf.update(settings)
    for task in (square, total):
        app.task(task)
    for task in (persist, account, hold):
        app.task(task, bind=True)
    return app
