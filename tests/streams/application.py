"""The Streams application of these suites, what feeds it and what reads from it: words are counted over repartition and
changelog topics, joined and windowed. Every update comes out once: a word that was there n times has the counts 1 to n."""

import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from checks import AGAINST_KAFKA, DEADLINE_S, KAFKA_BIN, Process, must, require, run, wait_for
from cluster import WORK

KILLS = int(os.environ.get("KILLS", "1" if AGAINST_KAFKA else "10"))
WORDS = [f"word{number}" for number in range(12)]
PARTITIONS = 2
# The two halves of the topology, each in as many tasks as there are partitions.
TASKS = {f"{half}_{partition}" for half in range(2) for partition in range(PARTITIONS)}
GROUP = "word-count"
HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.dirname(KAFKA_BIN.rstrip("/"))
CLASSES = os.path.join(WORK, "classes")
SOON = {"reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 40, "retry.backoff.ms": 5, "metadata.recovery.strategy": "none", "log_level": 0}
# Each line is ten seconds later than the one before, so that windows end while the application runs. The first is not so old
# that the changelog's retention would take it, and the last not in the future.
STEP_MS, WINDOW_MS = 10_000, 60_000
BEGIN_MS = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - 6 * 3_600_000

# A broker whose groups start at once and notice soon who is gone.
SETTINGS = {
    "group.initial.rebalance.delay.ms": 0, "group.streams.initial.rebalance.delay.ms": 0,
    "group.streams.min.heartbeat.interval.ms": 100, "group.streams.heartbeat.interval.ms": 300,
    "group.streams.min.session.timeout.ms": 1000, "group.streams.session.timeout.ms": 6000,
}


def compile_application():
    """Compiled once: a start from the source would compile at every start. Gives the class path."""
    with open(os.path.join(HOME, "classpath"), encoding="utf-8") as file:
        libraries = file.read().strip()
    run("javac", "-cp", libraries, "-d", CLASSES, os.path.join(HERE, "WordCount.java"), within=120)
    return f"{libraries}:{CLASSES}"


class Application:
    """One instance, whose state lies in a directory of its name."""

    def __init__(self, classpath, bootstrap, protocol, threads, name="first"):
        self.name = name
        self.state = os.path.join(WORK, f"state-{name}")
        self.command = [
            "java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", f"-XX:SharedArchiveFile={HOME}/tools.jsa",
            f"-Dlog4j2.configurationFile={HOME}/tools-log4j2.properties", "-cp", classpath, "WordCount", bootstrap, self.state, protocol, threads,
        ]
        self.process = None

    def start(self):
        self.process = Process(self.command)
        self.process.line_with("state RUNNING", 120)

    def kill(self):
        self.process.kill()

    def stop(self):
        """Ends in order, as by a person's hand."""
        self.process.child.terminate()
        self.process.child.wait(DEADLINE_S)

    def forget(self):
        shutil.rmtree(self.state, ignore_errors=True)

    def tasks(self):
        told = [line for line in list(self.process.lines) if line.startswith("tasks")]
        return told[-1].split()[1:] if told else []


def wait_shared(instances):
    """Until every task is run by one instance, and each instance has some."""
    deadline = time.monotonic() + 120
    while True:
        each = {instance.name: instance.tasks() for instance in instances}
        if all(each.values()) and sorted(task for tasks in each.values() for task in tasks) == sorted(TASKS):
            return
        require(time.monotonic() < deadline, f"{list(each)} share the tasks", each)
        time.sleep(0.1)


class Feeder:
    def __init__(self, bootstrap):
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 2, **SOON})
        self.random = random.Random(11)
        self.lines = 0
        self.counts = {}
        self.windows = {}

    def feed(self, lines):
        for number in range(lines):
            words, time_ms = self.random.choices(WORDS, k=4), BEGIN_MS + self.lines * STEP_MS
            self.lines += 1
            for word in words:
                self.counts[word] = self.counts.get(word, 0) + 1
                window = (word, time_ms // WINDOW_MS * WINDOW_MS)
                self.windows[window] = self.windows.get(window, 0) + 1
            self.producer.produce("lines", key=str(number % 7), value=" ".join(words), partition=number % PARTITIONS, timestamp=time_ms)
        self.producer.poll(0)

    def end(self):
        require(self.producer.flush(60) == 0, "all lines are sent")

    def total(self):
        return sum(self.counts.values())


class Reader:
    """What a committed reader has seen of one output topic: the counts of each word, or of each word in each window."""

    def __init__(self, bootstrap, topic):
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"read-{topic}", "isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "earliest", **SOON})
        self.consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self.seen = {}

    def poll(self):
        for message in self.consumer.consume(2000, 0.2):
            if message.error() is None:
                word, value = message.key().decode(), message.value().decode()
                count, _, window = value.split(":")[0].partition("@")
                self.seen.setdefault((word, int(window)) if window else word, []).append(int(count))

    def count(self):
        return sum(len(counts) for counts in self.seen.values())


def prepare(bootstrap):
    """The topics that the application reads and writes, and the table's rows."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **SOON})
    topics = [NewTopic(name, PARTITIONS, 1) for name in ("lines", "lengths", "counts", "joined", "windowed")]
    for future in admin.create_topics(topics).values():
        future.result(30)
    lengths = Producer({"bootstrap.servers": bootstrap, **SOON})
    for word in WORDS:
        # The partition that Java's producer chooses for the key, so that both sides of the join meet.
        lengths.produce("lengths", key=word, value=str(len(word)), partition=partition_of(word), timestamp=BEGIN_MS)
    require(lengths.flush(30) == 0, "the table is filled")
    return admin


def wait_moving(feeder, reader, when):
    """Feeds some lines and waits until the application has counted some."""
    before = reader.count()
    feeder.feed(60)

    def moves():
        reader.poll()
        return reader.count() > before

    wait_for(f"the application counts {when}", moves, within=120, pause=0)


def check_outputs(bootstrap, feeder):
    """Everything is in every output topic, once and in order."""
    feeder.end()
    for topic, expected in (("counts", feeder.counts), ("joined", feeder.counts), ("windowed", feeder.windows)):
        reader = Reader(bootstrap, topic)

        def all_read():
            reader.poll()
            return reader.count() >= feeder.total()

        wait_for(f"everything is in {topic}", all_read, within=180, pause=0)
        reader.poll()
        wanted = {key: list(range(1, count + 1)) for key, count in expected.items()}
        wrong = {key: counts[:20] for key, counts in reader.seen.items() if counts != wanted.get(key)}
        must(
            not wrong and reader.seen.keys() == wanted.keys(),
            f"{topic}: {feeder.total()} updates of {len(wanted)} counts, each once and in order, over {KILLS} kills of the broker", wrong,
        )


def partition_of(key):
    """Java's default partitioner: murmur2 of the key."""
    data, seed, mask = key.encode(), 0x9747B28C, 0xFFFFFFFF
    value = (seed ^ len(data)) & mask
    for at in range(0, len(data) - len(data) % 4, 4):
        part = int.from_bytes(data[at:at + 4], "little") * 0x5BD1E995 & mask
        part = (part ^ part >> 24) * 0x5BD1E995 & mask
        value = (value * 0x5BD1E995 & mask) ^ part
    rest = data[len(data) - len(data) % 4:]
    if rest:
        value ^= int.from_bytes(rest, "little")
        value = value * 0x5BD1E995 & mask
    value ^= value >> 13
    value = value * 0x5BD1E995 & mask
    value ^= value >> 15
    return (value & 0x7FFFFFFF) % PARTITIONS
