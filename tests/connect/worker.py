"""A worker of Kafka Connect, its settings and its REST API."""

import json
import os
import socket
import urllib.error
import urllib.request

from checks import KAFKA_BIN, Process, wait_for

WORK = os.environ["WORK"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def properties(name, settings):
    path = os.path.join(WORK, f"{name}.properties")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{key}={value}\n" for key, value in settings.items())
    return path


class Worker:
    """In `mode` standalone or distributed. The same settings at each start."""

    def __init__(self, mode, bootstrap, settings, connectors=()):
        self.port = free_port()
        common = {
            "bootstrap.servers": bootstrap, "listeners": f"http://127.0.0.1:{self.port}",
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "offset.flush.interval.ms": 500,
        }
        self.command = [f"{KAFKA_BIN}/connect-{mode}", properties(mode, {**common, **settings}), *connectors]
        self.process = None

    def start(self):
        self.process = Process(self.command)
        wait_for("Connect's REST API", lambda: self.answer("GET", "/") is not None)

    def answer(self, method, path, body=None):
        """What the worker answers; nothing while it does not."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, headers={"Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            return None

    def runs(self, connector):
        status = self.answer("GET", f"/connectors/{connector}/status") or {}
        tasks = status.get("tasks", [])
        return bool(tasks) and all(task["state"] == "RUNNING" for task in tasks)

    def wait_for(self, what, condition):
        """As [checks.wait_for], and shows what the worker has said if that does not come."""
        try:
            return wait_for(what, condition)
        except SystemExit:
            print("   " + "\n   ".join(self.process.lines[-60:]), flush=True)
            raise

    def stop(self):
        """As people stop it: what was read is sent and noted."""
        self.process.child.terminate()
        self.process.child.wait(60)

    def kill(self):
        self.process.kill()
