"""What every suite needs: results that xtask can count, waits with a deadline, processes that end with us.

A suite prints `ok SENTENCE` for each thing that it has shown and leaves with an error on the first that it cannot show.
"""

import os
import signal
import subprocess
import sys
import threading
import time

DEADLINE_S = 60
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS_PER_CODEC = 200
PARTITIONS = 6

MILENA = os.environ.get("MILENA")
KAFKA_BIN = os.environ["KAFKA_BIN"]
AGAINST_KAFKA = os.environ.get("AGAINST") == "kafka"


def ok(sentence):
    print(f"ok {sentence}", flush=True)


def must(condition, sentence, detail=""):
    """Shows a sentence to be true, or ends the suite."""
    if not condition:
        print(f"not ok {sentence}", flush=True)
        if detail != "":
            print(f"   {detail}", flush=True)
        sys.exit(1)
    ok(sentence)


def require(condition, sentence, detail=""):
    """A condition on the way, too small to be counted."""
    if not condition:
        must(condition, sentence, detail)


def wait_for(what, condition, within=DEADLINE_S, pause=0.05):
    """Asks until the condition gives something true; ends the suite at the deadline."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        require(time.monotonic() < deadline, f"{what} within {within} s")
        time.sleep(pause)


class Process:
    """A child with its output collected line by line."""

    def __init__(self, arguments, env=None, cwd=None):
        self.arguments = [str(argument) for argument in arguments]
        self.lines = []
        self.child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *self.arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}, cwd=cwd, text=True, errors="replace",
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.append(line.rstrip("\n"))

    def write(self, text):
        self.child.stdin.write(text)
        self.child.stdin.flush()

    def line_with(self, part, within=DEADLINE_S):
        found = lambda: next((line for line in self.lines if part in line), None)
        deadline = time.monotonic() + within
        while True:
            line = found()
            if line is not None:
                return line
            if self.child.poll() is not None:
                self.reader.join(DEADLINE_S)
                require(found() is not None, f"{self.arguments} prints '{part}' before it ends", "\n   ".join(self.lines[-30:]))
                return found()
            require(time.monotonic() < deadline, f"{self.arguments} prints '{part}' within {within} s", "\n   ".join(self.lines[-30:]))
            time.sleep(0.02)

    def interrupt(self):
        self.child.send_signal(signal.SIGINT)
        self.child.wait(DEADLINE_S)
        self.reader.join(DEADLINE_S)

    def kill(self):
        self.child.kill()
        self.child.wait(DEADLINE_S)
        self.reader.join(DEADLINE_S)


def run(*arguments, stdin=None, within=DEADLINE_S, env=None, check=True):
    """Runs a command to its end and gives its stdout."""
    arguments = [str(argument) for argument in arguments]
    done = subprocess.run(
        arguments, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=within, text=True,
        errors="replace", env={**os.environ, **(env or {})}, stdin=None if stdin is not None else subprocess.DEVNULL,
    )
    if check:
        require(done.returncode == 0, f"{' '.join(arguments)} succeeds", f"exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def kafka_tool(name, *arguments, **options):
    """One of Apache Kafka's own tools."""
    return run(f"{KAFKA_BIN}/{name}", *arguments, **options)


def milena_tool(name, *arguments, **options):
    """One of Milena's tools; against Apache Kafka the same of Kafka's."""
    if AGAINST_KAFKA:
        return kafka_tool(name, *arguments, **options)
    return run(MILENA, name, *arguments, **options)


def value_of(codec, number):
    return f"{codec}-{number:05d}-" + "the same words compress well " * 4


def key_of(number):
    return f"key-{number % 20}"


def expected_values():
    return {value_of(codec, number) for codec in CODECS for number in range(RECORDS_PER_CODEC)}


class Seen:
    """What a group of consumers has read, and whether it holds together."""

    def __init__(self):
        self.offsets = {}
        self.partition_of_key = {}
        self.values = []

    def add(self, partition, offset, key, value):
        last = self.offsets.get(partition)
        require(last is None or offset > last, "offsets only go up", f"{partition}: {offset} after {last}")
        self.offsets[partition] = offset
        first = self.partition_of_key.setdefault(key, partition)
        require(first == partition, "a key stays in one partition", f"{key}: {first} and {partition}")
        self.values.append(value)

    def order_holds(self):
        """Within one codec and key the numbers go up as they were sent."""
        last = {}
        for value in self.values:
            codec, number = value.split("-")[:2]
            key = (codec, key_of(int(number)))
            if last.get(key, -1) >= int(number):
                return False
            last[key] = int(number)
        return True
