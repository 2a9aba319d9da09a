"""Kafka Connect: a standalone worker copies a file into a topic and the topic into a file; distributed workers, whose
group, configuration, offsets and states are all kept by the broker, copy a file exactly once. Workers and the broker are
killed with -9 in the middle."""

import os
import random
import re
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from checks import AGAINST_KAFKA, kafka_tool, must, ok, wait_for
from cluster import WORK, Broker
from worker import CONVERTERS, SOON, Worker, properties

KILLS = int(os.environ.get("KILLS", "2" if AGAINST_KAFKA else "4"))
SEED = int(os.environ.get("SEED", "3"))
LONG_S = 150
TOPIC_OF = {"config": "connect-configs", "offset": "connect-offsets", "status": "connect-status"}


def in_work(name):
    return os.path.join(WORK, name)


class Lines:
    """A file to which lines are added, each with its number."""

    def __init__(self, name):
        self.path = in_work(name)
        self.count = 0
        open(self.path, "w", encoding="utf-8").close()

    def add(self, count):
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(f"line {number} of many\n" for number in range(self.count, self.count + count))
        self.count += count

    def expected(self):
        return [f"line {number} of many" for number in range(self.count)]


class Writer(threading.Thread):
    """Adds lines until it is stopped."""

    def __init__(self, lines):
        super().__init__(daemon=True)
        self.lines = lines
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.wait(0.02):
            self.lines.add(4)

    def end(self):
        self.stopping.set()
        self.join(30)


class Reader:
    """What a committed reader sees of a topic of one partition, in its order."""

    def __init__(self, bootstrap, topic):
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": f"read-{topic}", "isolation.level": "read_committed",
            "enable.auto.commit": False, "auto.offset.reset": "earliest", "reconnect.backoff.max.ms": 100, "log_level": 0,
        })
        self.consumer.assign([TopicPartition(topic, 0, 0)])
        self.values = []

    def poll(self):
        self.values.extend(message.value().decode() for message in self.consumer.consume(2000, 0.1) if message.error() is None)
        return self.values

    def rest(self):
        """Gives whatever comes too often a second in which to come."""
        for _ in range(10):
            self.poll()
        return self.values


def read_lines(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def first_of_each(values):
    return list(dict.fromkeys(values))


def standalone(broker, admin):
    bootstrap = broker.bootstrap()
    lines, copy, offsets = Lines("standalone.txt"), in_work("standalone-copy.txt"), in_work("standalone.offsets")
    # Connect's producers are idempotent only where this is asked for.
    worker = properties("standalone.properties", {
        "bootstrap.servers": bootstrap, **CONVERTERS, "offset.storage.file.filename": offsets, "offset.flush.interval.ms": 300,
        "listeners": "http://127.0.0.1:0", "plugin.discovery": "service_load", "producer.enable.idempotence": "true",
        "consumer.session.timeout.ms": 6000, "consumer.heartbeat.interval.ms": 1000,
        **{f"{role}.{key}": value for role in ("producer", "consumer") for key, value in SOON.items()},
    })
    source = properties("standalone-source.properties", {
        "name": "file-source", "connector.class": "FileStreamSource", "tasks.max": 1, "file": lines.path, "topic": "standalone",
    })
    sink = properties("standalone-sink.properties", {
        "name": "file-sink", "connector.class": "FileStreamSink", "tasks.max": 1, "file": copy, "topics": "standalone",
    })
    connect = Worker("connect-standalone", "standalone", worker, source, sink)
    reader = Reader(bootstrap, "standalone")
    group = Consumer({"bootstrap.servers": bootstrap, "group.id": "connect-file-sink", "log_level": 0})

    def flushed():
        """Whether the worker has written down how far the source is read, and committed how far the sink is written."""
        with open(offsets, "rb") as file:
            kept = f'"position":{os.path.getsize(lines.path)}}}'.encode() in file.read()
        return kept and group.committed([TopicPartition("standalone", 0)], 10)[0].offset == lines.count

    lines.add(500)
    connect.start()
    wait_for("the sink has the source's lines", lambda: len(read_lines(copy)) >= lines.count, within=LONG_S)
    must(read_lines(copy) == lines.expected(), "a standalone worker copies a file through a topic into a file")
    wait_for("the worker keeps its offsets", lambda: os.path.exists(offsets) and flushed())
    connect.kill()
    lines.add(500)
    connect.start()
    wait_for("the sink has the lines of the worker's second life", lambda: len(read_lines(copy)) >= lines.count, within=LONG_S)
    must(read_lines(copy) == lines.expected(), "a worker that was killed goes on from its offsets: no line lost, none twice")
    writer = Writer(lines)
    writer.start()
    for _ in range(2):
        here = len(reader.poll())
        wait_for("the source goes on", lambda here=here: len(reader.poll()) > here + 100, within=LONG_S, pause=0)
        broker.kill()
        broker.start()
    writer.end()
    wait_for("the topic has every line", lambda: len(reader.poll()) >= lines.count, within=LONG_S, pause=0)
    must(reader.rest() == lines.expected(), f"over kills of the broker the topic has every line once and in order, {lines.count} of them")
    wait_for("the sink has every line", lambda: len(set(read_lines(copy))) >= lines.count, within=LONG_S)
    must(first_of_each(read_lines(copy)) == lines.expected(), "and the sink has every line in order")
    states = [connect.ask(f"/connectors/{name}/status") for name in ("file-source", "file-sink")]
    states = [status and [task["state"] for task in status["tasks"]] for status in states]
    must(states == [["RUNNING"], ["RUNNING"]], "no task failed", states)
    connect.kill()


class Cluster:
    """Two distributed workers."""

    def __init__(self, bootstrap):
        common = {
            "bootstrap.servers": bootstrap, **CONVERTERS, "group.id": "connect-cluster", "exactly.once.source.support": "enabled",
            "listeners": "http://127.0.0.1:0", "plugin.discovery": "service_load", "offset.flush.interval.ms": 500,
            "session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "consumer.session.timeout.ms": 6000, "rebalance.timeout.ms": 10000, "scheduled.rebalance.max.delay.ms": 0,
            **{f"{kind}.storage.{key}": value for kind in ("config", "offset", "status") for key, value in (("topic", TOPIC_OF[kind]), ("replication.factor", 1))},
            "offset.storage.partitions": 5, "status.storage.partitions": 2, **SOON,
            **{f"{role}.{key}": value for role in ("producer", "consumer", "admin") for key, value in SOON.items()},
        }
        self.workers = [Worker("connect-distributed", f"distributed-{number}", properties(f"distributed-{number}.properties", common)) for number in range(2)]

    def start(self):
        for worker in self.workers:
            worker.launch()
        for worker in self.workers:
            worker.await_rest()

    def ask(self, path, body=None, method=None):
        """Asks the workers, one after the other, until one answers."""
        for worker in self.workers:
            answer = worker.ask(path, body, method)
            if answer is not None:
                return answer
        return None

    def shares(self, names):
        """Whether everything runs, and every worker has something of it."""
        found = [self.ask(f"/connectors/{name}/status") for name in names]
        parts = [part for status in found if status for part in (status["connector"], *status["tasks"])]
        everything = len(parts) == 2 * len(names) and all(part["state"] == "RUNNING" for part in parts)
        return everything and len({part["worker_id"] for part in parts}) == len(self.workers)

    def worker_of(self, name):
        """The worker that runs the only task of a connector."""
        status = wait_for("a worker tells the task's state", lambda: self.ask(f"/connectors/{name}/status"), within=LONG_S)
        place = status["tasks"][0]["worker_id"] if status["tasks"] else ""
        return next((worker for worker in self.workers if worker.url.endswith(place)), self.workers[0])

    def kill(self):
        for worker in self.workers:
            worker.kill()


def policies(admin, topics):
    wanted = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    return {future.result(30)["cleanup.policy"].value for future in admin.describe_configs(wanted).values()}


def distributed(broker, admin):
    bootstrap = broker.bootstrap()
    chance = random.Random(SEED)
    admin.create_topics([NewTopic("exactly-once", 1, 1)])["exactly-once"].result(30)
    lines, reader = Lines("distributed.txt"), Reader(bootstrap, "exactly-once")
    cluster = Cluster(bootstrap)
    cluster.start()
    wait_for("the workers have their group", lambda: cluster.ask("/connectors") == [], within=LONG_S)
    must(policies(admin, ["connect-configs", "connect-offsets", "connect-status"]) == {"compact"}, "distributed workers make their compacted topics")

    listed = kafka_tool("kafka-groups", "--bootstrap-server", bootstrap, "--list")
    must(re.search(r"^connect-cluster\s+Classic\s+connect\s*$", listed, re.MULTILINE), "the workers' group has Connect's own protocol", listed)
    configuration = {
        "name": "once", "connector.class": "FileStreamSource", "tasks.max": "1", "file": lines.path, "topic": "exactly-once",
        "exactly.once.support": "required", "offsets.storage.topic": "once-offsets",
    }
    wait_for("a connector is made", lambda: cluster.ask("/connectors/once/config", configuration, "PUT"), within=LONG_S)
    copy = in_work("distributed-copy.txt")
    sink = {"name": "copy", "connector.class": "FileStreamSink", "tasks.max": "1", "file": copy, "topics": "exactly-once"}
    wait_for("a sink is made", lambda: cluster.ask("/connectors/copy/config", sink, "PUT"), within=LONG_S)
    lines.add(200)
    wait_for("the task copies lines", lambda: len(reader.poll()) >= lines.count, within=LONG_S, pause=0)
    ok("a connector made by REST copies a file in transactions")
    wait_for("both workers have work", lambda: cluster.shares(["once", "copy"]), within=LONG_S)
    ok("two workers share connectors and tasks")
    writer = Writer(lines)
    writer.start()

    def goes_on(what):
        here = len(reader.poll())
        wait_for(f"the source goes on after {what}", lambda: len(reader.poll()) > here + 50, within=LONG_S, pause=0)

    for round_number in range(KILLS):
        broker.kill()
        broker.start()
        goes_on(f"kill {round_number} of the broker")
        writer.stopping.wait(chance.random() * 0.5)
        if round_number % 2 == 0:
            worker = cluster.worker_of("once")
            worker.kill()
            if round_number % 4 == 0:
                broker.kill()
                broker.start()
            worker.start()
            goes_on("the kill of its worker")
    writer.end()
    wait_for("every line is in the topic", lambda: len(reader.poll()) >= lines.count, within=LONG_S, pause=0)
    values = reader.rest()
    wrong = next((number for number, (left, right) in enumerate(zip(values, lines.expected())) if left != right), None)
    must(values == lines.expected(), f"exactly once: {lines.count} lines, each once and in order, over kills of brokers and workers", (len(values), lines.count, wrong))
    wait_for("the sink has every line", lambda: len(set(read_lines(copy))) >= lines.count, within=LONG_S)
    must(first_of_each(read_lines(copy)) == lines.expected(), "and a distributed sink has every line in order")
    wait_for("everything runs and is shared again", lambda: cluster.shares(["once", "copy"]), within=LONG_S)
    ok("after the last kill both workers share the work again, and no task failed")
    offsets = wait_for("the connector's offsets", lambda: cluster.ask("/connectors/once/offsets"))
    position = offsets["offsets"][0]["offset"]["position"]
    must(position == os.path.getsize(lines.path), "the connector's offsets stand at the end of the file", offsets)
    for name in ("once", "copy"):
        cluster.ask(f"/connectors/{name}", method="DELETE")
    wait_for("the connectors are gone", lambda: cluster.ask("/connectors") == [])
    ok("connectors are deleted by REST")
    cluster.kill()


def main():
    overrides = {"group.initial.rebalance.delay.ms": 0}
    if AGAINST_KAFKA:
        overrides |= {"offsets.topic.num.partitions": 2, "transaction.state.log.num.partitions": 2}
    broker = Broker(overrides=overrides)
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap(), "log_level": 0})
    standalone(broker, admin)
    distributed(broker, admin)
    broker.stop()


main()
