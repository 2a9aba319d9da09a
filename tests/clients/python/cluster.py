"""A broker that a suite starts, kills and starts again itself: Milena, or Apache Kafka when that is what is tested."""

import json
import os
import re
import shutil
import signal
import time

from checks import AGAINST_KAFKA, DEADLINE_S, MILENA, Process, require

XTASK = os.environ["XTASK"]
WORK = os.environ["WORK"]
# A broker whose groups notice within seconds who crashed, for consumer groups of both protocols.
FAST_GROUPS = {
    "group.consumer.min.heartbeat.interval.ms": 100, "group.consumer.heartbeat.interval.ms": 300,
    "group.consumer.min.session.timeout.ms": 1000, "group.consumer.session.timeout.ms": 5000,
    "group.consumer.assignment.interval.ms": 100, "group.initial.rebalance.delay.ms": 0,
}
# The same for share groups, whose locks may be as short as a test wants.
FAST_SHARE_GROUPS = {
    "group.share.min.heartbeat.interval.ms": 100, "group.share.heartbeat.interval.ms": 300,
    "group.share.min.session.timeout.ms": 1000, "group.share.session.timeout.ms": 10_000,
    "group.share.assignment.interval.ms": 100, "group.share.min.record.lock.duration.ms": 1000,
}


class Broker:
    def __init__(self, name="broker", overrides=None, data=None, listeners="PLAINTEXT://127.0.0.1:0", is_kafka=AGAINST_KAFKA):
        self.is_kafka = is_kafka
        self.name = name
        self.overrides = dict(overrides or {})
        self.data = data or os.path.join(WORK, f"{name}-data")
        self.listeners = listeners
        self.process = None
        self.port = None
        self.starts = 0

    def log_directory(self):
        return os.path.join(self.data, "data") if self.is_kafka else self.data

    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def start(self, within=DEADLINE_S):
        """Starts the broker and gives the milliseconds until it said that it serves."""
        ready = os.path.join(WORK, f"{self.name}-ready")
        if os.path.exists(ready):
            os.remove(ready)
        begin = time.monotonic()
        self.process = Process(self._command(ready))
        self.starts += 1
        address = None
        while not address:
            ended = self.process.child.poll() is not None
            require(not ended, "the broker starts", "\n   ".join(self.process.lines[-40:]))
            require(time.monotonic() - begin < within, f"the broker is ready within {within} s", "\n   ".join(self.process.lines[-40:]))
            if os.path.exists(ready):
                with open(ready, encoding="utf-8") as file:
                    address = file.read().strip()
            time.sleep(0.002)
        self.port = int(address.rsplit(":", 1)[1])
        return (time.monotonic() - begin) * 1000

    def _command(self, ready):
        # The second start takes the first one's port, so that clients find the broker again.
        listeners = self.listeners if self.port is None else f"PLAINTEXT://127.0.0.1:{self.port}"
        if self.is_kafka:
            port = listeners.rsplit(":", 1)[1]
            command = [XTASK, "kafka", "start", "--data", self.data, "--ready-file", ready]
            command += ["--port", port] if port != "0" else []
        else:
            command = [MILENA, "serve", "--ready-file", ready, "--override", f"log.dirs={self.data}"]
            command += ["--override", f"listeners={listeners}"]
        for key, value in self.overrides.items():
            command += ["--override", f"{key}={value}"]
        return command

    def pid(self):
        if self.is_kafka:
            line = self.process.line_with("(process ")
            return int(re.search(r"\(process (\d+)\)", line).group(1))
        return self.process.child.pid

    def kill(self):
        """kill -9: nothing of the process is left but what it wrote."""
        os.kill(self.pid(), signal.SIGKILL)
        self.process.child.wait(DEADLINE_S)
        self.process.reader.join(DEADLINE_S)
        self._keep_log()

    def stop(self):
        os.kill(self.pid(), signal.SIGTERM)
        self.process.child.wait(DEADLINE_S)
        self._keep_log()
        return self.process.child.returncode

    def _keep_log(self):
        path = os.path.join(WORK, f"{self.name}.log")
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"--- start {self.starts}\n" + "\n".join(self.process.lines) + "\n")

    def remove(self):
        shutil.rmtree(self.data, ignore_errors=True)
