"""Kafka Connect on Milena: files through a topic and back, standalone; exactly once, distributed."""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from checks import AGAINST_KAFKA, must, require, wait_for
from cluster import Broker
from worker import WORK, Worker, properties

LINES = 300
KILLS = 2 if AGAINST_KAFKA else 6
SEED = int(os.environ.get("SEED", "7"))


class Lines:
    """A file that grows, a numbered line at a time."""

    def __init__(self, name):
        self.path = os.path.join(WORK, f"{name}.txt")
        self.count = 0
        self.more(0)

    def more(self, count):
        with open(self.path, "a", encoding="utf-8") as file:
            for _ in range(count):
                file.write(f"line {self.count}\n")
                self.count += 1

    def expected(self):
        return [f"line {number}" for number in range(self.count)]


def content(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def distinct(lines):
    return list(dict.fromkeys(lines))


def standalone(broker):
    lines = Lines("standalone-in")
    sink = os.path.join(WORK, "standalone-out.txt")
    source_config = properties("file-source", {
        "name": "file-source", "connector.class": "FileStreamSource", "tasks.max": 1, "file": lines.path, "topic": "standalone",
    })
    sink_config = properties("file-sink", {
        "name": "file-sink", "connector.class": "FileStreamSink", "tasks.max": 1, "file": sink, "topics": "standalone",
        "errors.retry.timeout": -1,
    })
    offsets = os.path.join(WORK, "standalone.offsets")
    worker = Worker("standalone", broker.bootstrap(), {"offset.storage.file.filename": offsets}, [source_config, sink_config])
    lines.more(LINES)
    worker.start()
    wait_for("the lines in the sink", lambda: len(content(sink)) >= LINES)
    must(content(sink) == lines.expected(), "standalone: a file goes through a topic into another, line by line")
    worker.stop()
    lines.more(LINES)
    worker.start()
    wait_for("the lines after a restart", lambda: len(content(sink)) >= lines.count)
    must(content(sink) == lines.expected(), "a worker that was stopped goes on where it was")
    broker.kill()
    lines.more(LINES)
    broker.start()
    wait_for("the lines after a kill of the broker", lambda: set(lines.expected()) <= set(content(sink)))
    must(distinct(content(sink)) == lines.expected(), "a worker outlasts a kill of the broker, and nothing is lost")
    worker.stop()


def committed(broker, topic):
    consumer = Consumer({
        "bootstrap.servers": broker.bootstrap(), "group.id": "none", "isolation.level": "read_committed", "enable.partition.eof": True,
    })
    consumer.assign([TopicPartition(topic, 0, 0)])
    values = []

    def ended():
        message = consumer.poll(1)
        if message is None:
            return False
        if message.error():
            return True
        values.append(message.value().decode())
        return False

    wait_for(f"the end of {topic}", ended, pause=0)
    consumer.close()
    return values


def exactly_once(broker):
    random.seed(SEED)
    lines = Lines("exactly-once-in")
    settings = {
        "group.id": "connect", "exactly.once.source.support": "enabled",
        **{f"{kind}.storage.topic": f"connect-{kind}" for kind in ("config", "offset", "status")},
        **{f"{kind}.storage.replication.factor": 1 for kind in ("config", "offset", "status")},
        "offset.storage.partitions": 3, "status.storage.partitions": 2,
        # A member that was killed is missed soon.
        "session.timeout.ms": 6000, "heartbeat.interval.ms": 1000, "scheduled.rebalance.max.delay.ms": 0,
        "producer.transaction.timeout.ms": 10000,
    }
    admin = AdminClient({"bootstrap.servers": broker.bootstrap()})
    admin.create_topics([NewTopic("exactly-once", 1, 1)])["exactly-once"].result(30)
    worker = Worker("distributed", broker.bootstrap(), settings)
    worker.start()
    config = {
        "connector.class": "FileStreamSource", "tasks.max": "1", "file": lines.path, "topic": "exactly-once",
        "exactly.once.support": "required", "transaction.boundary": "poll",
    }
    wait_for("the connector to be taken", lambda: worker.answer("PUT", "/connectors/source/config", config))
    wait_for("the connector to run", lambda: worker.runs("source"))

    # The file grows while it is read, so that there are many transactions.
    def has_come(count, goal):
        lines.more(min(20, goal - lines.count))
        return len(committed(broker, "exactly-once")) >= count

    for number in range(KILLS):
        goal = lines.count + LINES
        wanted = random.randrange(lines.count, goal)
        worker.wait_for("some of the lines", lambda: has_come(wanted, goal))
        if number % 2:
            worker.kill()
            worker.start()
        else:
            broker.kill()
            broker.start()
    goal = lines.count + LINES
    worker.wait_for("all lines", lambda: has_come(goal, goal))
    found = committed(broker, "exactly-once")
    must(found == lines.expected(), f"distributed: after {KILLS} kills of broker and worker each line is there once", f"{len(found)} of {lines.count}")
    state = worker.answer("GET", "/connectors")
    require(state == ["source"], "the connectors are those that were made", state)
    worker.stop()


def main():
    broker = Broker()
    broker.start()
    standalone(broker)
    exactly_once(broker)
    broker.stop()


if __name__ == "__main__":
    main()
