"""Workers of Kafka Connect, as a person starts them: a file of properties and a command, then REST."""

import atexit
import http.client
import json
import os
import urllib.error
import urllib.request

from checks import KAFKA_BIN, Process
from cluster import WORK

START_S = 120
LOG_CONFIGURATION = os.path.join(os.path.dirname(KAFKA_BIN.rstrip("/")), "broker-log4j2.properties")
CONVERTERS = {
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
}
# Retries come soon, so that a suite waits for the broker and not for its clients' patience.
SOON = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20, "retry.backoff.max.ms": 200}


def properties(name, entries):
    path = os.path.join(WORK, name)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{key}={value}\n" for key, value in entries.items())
    return path


class Worker:
    """A process of Connect that is started, killed and started again. Its output is kept in WORK."""

    def __init__(self, tool, name, *files):
        self.command = [f"{KAFKA_BIN}/{tool}", *files]
        self.name = name
        self.process = None
        self.url = None
        # A suite that fails leaves the output of the process that runs then.
        atexit.register(self.keep_output)

    def launch(self):
        """Starts the process and does not wait for it."""
        self.process = Process(self.command, env={"KAFKA_OPTS": f"-Dlog4j2.configurationFile={LOG_CONFIGURATION}"})

    def await_rest(self):
        line = self.process.line_with("REST server listening at ", START_S)
        self.url = line.split("REST server listening at ")[1].split(",")[0].rstrip("/")

    def start(self):
        self.launch()
        self.await_rest()

    def kill(self):
        self.process.kill()
        self.keep_output()
        self.process = None

    def keep_output(self):
        if self.process is not None:
            with open(os.path.join(WORK, f"{self.name}.log"), "a", encoding="utf-8") as file:
                file.write("\n".join(self.process.lines) + "\n--- end\n")

    def ask(self, path, body=None, method=None):
        """The answer's body as data, or nothing while the worker cannot answer (it starts, or its group rebalances)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return json.loads(text) if text else {}
        except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException):
            return None
