"""kill -9 under load, again and again.

Two producers never stop: an idempotent one that retries until it is acknowledged, and a plain acks=all one that tries each
record once and sends more only when it knows what became of those before (else a lost connection may change their order,
with any broker). A third client commits the offsets of a group. After each restart of the broker everything that was
acknowledged must be there, in order, once, and at the offset that was told; at the end Apache Kafka's own DumpLogSegments
must find nothing wrong in any file.
"""

import glob
import itertools
import os
import random
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from checks import AGAINST_KAFKA, kafka_tool, must, ok, require, wait_for
from cluster import Broker

# Apache Kafka takes seconds to start, and what is tried there is only this suite.
KILLS = int(os.environ.get("KILLS", "3" if AGAINST_KAFKA else "100"))
SEED = int(os.environ.get("SEED", "20"))
PARTITIONS = 2
SEGMENT_BYTES = 1024 * 1024
STEP = 15
PAUSE_S = 0.006
PADDING = "x" * 300
GROUP = "kill-group"
# librdkafka's pauses, small: the broker is back within milliseconds. It would write a line for each refused connection.
SOON = {
    "reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 40, "retry.backoff.ms": 5, "retry.backoff.max.ms": 40,
    # Else it forgets the only broker and asks for leaders once a second.
    "metadata.recovery.strategy": "none", "log_level": 0,
}
FAULTS = [
    "isvalid: false", "Non-consecutive offsets", "Mismatches in", "timestamp mismatch", "out of order timestamp", "Exception",
    "sanity check", "Could not",
]


class Writer(threading.Thread):
    """A producer that sends numbers upwards, and what it was told about them."""

    def __init__(self, topic, bootstrap, config, stepwise):
        super().__init__(daemon=True)
        self.topic = topic
        self.stepwise = stepwise
        self.producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 1, **SOON, **config})
        self.lock = threading.Lock()
        self.acknowledged = {}
        self.unknown = set()
        self.sent = 0
        self.fault = None
        self.stopping = threading.Event()

    def _delivered(self, error, message, number):
        with self.lock:
            if error is None:
                place = (message.partition(), message.offset())
                if place in self.acknowledged:
                    self.fault = f"{place} was told for {self.acknowledged[place]} and for {number}"
                self.acknowledged[place] = number
            else:
                self.unknown.add(number)

    def run(self):
        while not self.stopping.is_set():
            for _ in range(STEP):
                number = self.sent
                self.sent += 1
                try:
                    self.producer.produce(
                        self.topic, partition=number % PARTITIONS, value=f"{number} {PADDING}",
                        callback=lambda error, message, number=number: self._delivered(error, message, number),
                    )
                except BufferError:
                    self.sent = number
                    break
            if self.stepwise:
                self.producer.flush(60)
            # Fast enough that every kill finds work under way, slow enough that Python can check all of it.
            self.producer.poll(0)
            self.stopping.wait(PAUSE_S)
        left = self.producer.flush(60)
        if left:
            self.fault = f"{left} records of {self.topic} were neither acknowledged nor refused"

    def count(self):
        with self.lock:
            return len(self.acknowledged)

    def told_since(self, count):
        """The acknowledgements after the first `count`, in the order in which they came."""
        with self.lock:
            return list(itertools.islice(self.acknowledged.items(), count, None))


class Committer(threading.Thread):
    """Commits growing offsets for a group, and remembers which of them were acknowledged."""

    def __init__(self, topic, bootstrap):
        super().__init__(daemon=True)
        self.topic = topic
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP, "enable.auto.commit": False, **SOON})
        self.tried = 0
        self.acknowledged = 0
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            self.tried += 1
            place = TopicPartition(self.topic, 0, self.tried, metadata=f"commit {self.tried}")
            try:
                result = self.consumer.commit(offsets=[place], asynchronous=False)
                if result[0].error is None:
                    self.acknowledged = self.tried
            except KafkaException:
                # The broker is away: whether this one was stored is not known.
                self.stopping.wait(0.005)
        self.consumer.close()


def end_of(reader, topic, partition):
    """The end of a partition; asked again while a broker that has just come back says so with a retriable error."""
    def ask():
        try:
            return (reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1],)
        except KafkaException as error:
            require(error.args[0].retriable() or error.args[0].code() == KafkaError.NOT_LEADER_FOR_PARTITION, "the end is told", error)
            return None

    return wait_for(f"the end of {topic} {partition} is told", ask)[0]


class Auditor:
    """Reads the log as it grows and holds it against what the producers were told."""

    def __init__(self, writer):
        self.writer = writer
        self.log = [[] for _ in range(PARTITIONS)]
        self.compared = 0
        self.ordered = [0] * PARTITIONS

    def read_on(self, bootstrap, whole=False):
        """Reads from where it was (or all, a second time) to the end that the broker names now."""
        reader = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "auditor", "enable.auto.commit": False, "enable.partition.eof": True,
            "check.crcs": True, "auto.offset.reset": "error", "fetch.wait.max.ms": 20, **SOON,
        })
        log = [[] for _ in range(PARTITIONS)] if whole else self.log
        ends = [end_of(reader, self.writer.topic, partition) for partition in range(PARTITIONS)]
        reader.assign([TopicPartition(self.writer.topic, partition, len(log[partition])) for partition in range(PARTITIONS)])
        at_end = lambda: all(len(log[partition]) >= ends[partition] for partition in range(PARTITIONS))

        def step():
            for message in reader.consume(2000, 0.05) if not at_end() else []:
                if message.error() is not None:
                    require(message.error().code() == KafkaError._PARTITION_EOF or message.error().retriable(), "reading works", message.error())
                    continue
                lines = log[message.partition()]
                require(message.offset() == len(lines), "offsets are read without a gap", f"{message.offset()} after {len(lines)}")
                lines.append(int(message.value().split(b" ")[0]))
            return at_end()

        wait_for("the log is read to its end", step, pause=0)
        reader.close()
        return log

    def newly_told(self):
        told = self.writer.told_since(self.compared)
        self.compared += len(told)
        return told

    def compare_new(self, told):
        """Compares what is new since the last time: what was read before is kept here and does not change."""
        self.compare(told, self.log, since=self.ordered)
        self.ordered = [len(lines) for lines in self.log]

    def compare(self, told, log, since=(0,) * PARTITIONS):
        """Everything that was told is in the log, where it was told; what was sent is there in order, at most once."""
        for (partition, offset), number in told:
            require(offset < len(log[partition]), "an acknowledged record is there", f"{self.writer.topic} {partition} {offset}")
            require(
                log[partition][offset] == number, "an acknowledged offset is never given to other bytes",
                f"{self.writer.topic} {partition} {offset}: {log[partition][offset]}, told for {number}",
            )
        for partition, lines in enumerate(log):
            lines = lines[max(0, since[partition] - 1):]
            wrong = [(offset, a, b) for offset, (a, b) in enumerate(zip(lines, lines[1:])) if a >= b]
            require(not wrong, "records are in order and once", f"{self.writer.topic} {partition}: {wrong[:5]}, once: {len(set(lines)) == len(lines)}")


def verify_commit(bootstrap, committer, acknowledged_before):
    """The group's offset is one that was acknowledged or tried, and none older than the last acknowledged."""
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP, **SOON})

    def ask():
        try:
            return reader.committed([TopicPartition(committer.topic, 0)], timeout=30)
        except KafkaException as error:
            require(error.args[0].retriable(), "the group's offset is told", error)
            return None

    found = wait_for("the group's offset is told", ask)[0]
    reader.close()
    require(
        acknowledged_before <= found.offset <= committer.tried, "an acknowledged commit is there after a kill",
        f"{found.offset}, acknowledged {acknowledged_before}, tried {committer.tried}",
    )
    require(found.metadata == f"commit {found.offset}", "with its own metadata", found)


def dump(broker):
    """Apache Kafka's own reader goes through every file."""
    for kind in ["log", "index", "timeindex", "snapshot"]:
        files = sorted(glob.glob(os.path.join(broker.log_directory(), "kill-*", f"*.{kind}")))
        require(files or kind == "snapshot", f"there are .{kind} files", broker.log_directory())
        if not files:
            continue
        more = ["--deep-iteration"] if kind == "log" else []
        output = kafka_tool("kafka-dump-log", *more, "--files", ",".join(files), within=300)
        faults = [line for line in output.splitlines() if any(fault in line for fault in FAULTS)]
        must(not faults, f"DumpLogSegments finds nothing wrong in the .{kind} files", faults[:10])
        if kind == "log":
            require(len(files) > 2 * PARTITIONS, "the load filled more than one segment", files)
            yield output.count("| offset: ")


def main():
    rng = random.Random(SEED)
    broker = Broker("kill")
    broker.start()
    bootstrap = broker.bootstrap()
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    topics = ["kill-idempotent", "kill-plain"]
    config = {"segment.bytes": str(SEGMENT_BYTES)}
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config) for topic in topics]).values():
        future.result(60)
    forever = 2_000_000_000
    writers = [
        Writer("kill-idempotent", bootstrap, {"enable.idempotence": True, "message.timeout.ms": 0, "retries": forever}, stepwise=False),
        Writer("kill-plain", bootstrap, {"retries": 0, "max.in.flight": 1, "message.timeout.ms": 10000}, stepwise=True),
    ]
    committer = Committer("kill-plain", bootstrap)
    auditors = [Auditor(writer) for writer in writers]
    for thread in [*writers, committer]:
        thread.start()
    starts = []
    for kill in range(1, KILLS + 1):
        goals = [writer.count() + rng.randrange(1, 250) for writer in writers]
        commits = committer.acknowledged + rng.randrange(1, 4)
        busy = lambda: all(writer.count() >= goal for writer, goal in zip(writers, goals)) and committer.acknowledged >= commits
        wait_for(f"the load goes on before kill {kill}", busy, pause=0.001)
        broker.kill()
        told = [auditor.newly_told() for auditor in auditors]
        committed = committer.acknowledged
        starts.append(broker.start())
        for auditor, known in zip(auditors, told):
            auditor.read_on(bootstrap)
            auditor.compare_new(known)
        verify_commit(bootstrap, committer, committed)
        faults = [writer.fault for writer in writers if writer.fault]
        require(not faults, "the producers are told nothing impossible", faults)
    ok(f"after each of {KILLS} kills every acknowledged record was there, in order, once, at its offset")
    ok(f"after each of {KILLS} kills the group's acknowledged commit was there")
    for thread in [*writers, committer]:
        thread.stopping.set()
    for thread in [*writers, committer]:
        thread.join(120)
    broker.kill()
    starts.append(broker.start())
    finish(broker, writers, auditors)
    starts.sort()
    print(f"records {[writer.count() for writer in writers]}, start after a kill: median {starts[len(starts) // 2]:.0f} ms, longest {starts[-1]:.0f} ms")


def finish(broker, writers, auditors):
    total = 0
    for writer, auditor in zip(writers, auditors):
        require(writer.fault is None, "every record got an answer", writer.fault)
        seen = [list(lines) for lines in auditor.log]
        everything = auditor.read_on(broker.bootstrap(), whole=True)
        auditor.compare(writer.told_since(0), everything)
        for before, after in zip(seen, everything):
            require(after[:len(before)] == before, "what a consumer has read once never changes", writer.topic)
        total += sum(len(lines) for lines in everything)
    ok("what a consumer has read once was never taken back or changed")
    idempotent = writers[0]
    require(not idempotent.unknown, "the idempotent producer was refused nothing", sorted(idempotent.unknown)[:10])
    everything = sorted(number for lines in auditors[0].read_on(broker.bootstrap(), whole=True) for number in lines)
    must(everything == list(range(idempotent.sent)), "the idempotent producer's every record is there exactly once")
    broker.stop()
    counted = list(dump(broker))
    must(counted == [total], "DumpLogSegments counts as many records as consumers read", [counted, total])


main()
