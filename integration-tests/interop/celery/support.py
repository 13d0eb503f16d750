"""What every scenario needs: an application, workers, deadlines, comparisons and tidying up."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path

from tasks import build

WAIT_SECONDS = 20
SCENARIO_SECONDS = 40


class Mismatch(Exception):
    """The broker answered, but not with what was expected."""


def equal(what, got, expected):
    if got != expected:
        raise Mismatch(f"{what}: expected {expected!r}, got {got!r}")


def holds(what, condition):
    if not condition:
        raise Mismatch(what)


@contextmanager
def time_limit(seconds):
    """Interrupts even a call that blocks inside Celery."""

    def expired(_signal, _frame):
        raise TimeoutError(f"nothing came of it within {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


class Worker:
    """A `celery worker` with its pool, in a process group of its own."""

    def __init__(self, uri, settings, name):
        command = [sys.executable, "-m", "celery", "-A", "worker", "worker"]
        command += ["--concurrency", "2", "--loglevel", "WARNING", "--hostname", f"{name}@interop"]
        environment = {**os.environ, "WARREN_AMQP_URI": uri, "INTEROP_CELERY_SETTINGS": json.dumps(settings)}
        self.process = subprocess.Popen(
            command,
            cwd=Path(__file__).parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            # Its standard output is a banner; the runner's own is for results.
            stdout=sys.stderr,
            start_new_session=True,
        )

    def kill(self):
        """Ends worker and pool at once, without a word to the broker."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self):
        """Lets it finish what it is at and acknowledge it; one that was killed stays as it is."""
        if self.process.returncode is None:
            self.process.terminate()
            equal("exit status of the worker", self.process.wait(WAIT_SECONDS), 0)


class Session:
    """One scenario's application, queue and workers; leaving it ends the latter and deletes the queue."""

    def __init__(self, uri, scenario):
        self.uri = uri
        self.queue = f"interop.celery.{scenario}.{uuid.uuid4().hex[:12]}"
        self._app = None
        self._settings = None
        self._workers = []
        self._folder = None

    def app(self, **changes):
        self._settings = {
            "result_backend": "rpc://",
            "task_default_queue": self.queue,
            "task_default_exchange": self.queue,
            "task_default_routing_key": self.queue,
            "broker_connection_retry_on_startup": False,
            **changes,
        }
        self._app = build(self.uri, self._settings)
        return self._app

    def quorum(self):
        """Celery's settings for quorum queues; delays are then the broker's, by dead-lettering."""
        return {
            "task_default_queue_type": "quorum",
            "task_default_exchange_type": "topic",
            "broker_transport_options": {"confirm_publish": True},
        }

    def folder(self):
        self._folder = tempfile.TemporaryDirectory()
        return Path(self._folder.name)

    def worker(self):
        worker = Worker(self.uri, self._settings, f"{self.queue}.{len(self._workers)}")
        self._workers.append(worker)
        return worker

    def finish(self):
        """Stops the workers in good order and checks that every message was acknowledged."""
        for worker in self._workers:
            worker.stop()
        with self._app.connection_for_read() as connection:
            left = connection.default_channel.queue_declare(self.queue, passive=True).message_count
        equal("messages left", left, 0)

    def close(self):
        for worker in self._workers:
            worker.kill()
        if self._folder:
            self._folder.cleanup()
        if self._app:
            with self._app.connection_for_write() as connection:
                connection.default_channel.queue_delete(self.queue)
                connection.default_channel.exchange_delete(self.queue)
            self._app.close()


def broker_uri():
    uri = os.environ.get("WARREN_AMQP_URI")
    if not uri:
        raise SystemExit("WARREN_AMQP_URI is not set")
    return uri
