"""The classic Kafka quick start, not a line of it changed, at the address that it names: localhost:9092.

The suite is run in a network namespace of its own (`unshare --net`), so that this port is always free and the broker runs
with its own default listener.
"""

import fcntl
import json
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import AGAINST_KAFKA, MILENA, Process, kafka_tool, milena_tool, must, ok, require, wait_for
from cluster import Broker

HERE = os.path.dirname(os.path.abspath(__file__))
TOPIC = ["--bootstrap-server", "localhost:9092", "--topic", "ml-events"]
CREATE = ["--create", *TOPIC, "--partitions", "6", "--replication-factor", "1"]


def bring_loopback_up():
    SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack("16sH", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH14x", name, 0))[:18])[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name, flags | IFF_UP))


class DefaultBroker(Broker):
    """Started as the quick start's reader starts it: with no setting but the place of the data."""

    def _command(self, ready):
        if AGAINST_KAFKA:
            return super()._command(ready)
        return [MILENA, "serve", "--override", f"log.dirs={self.data}", "--ready-file", ready]


def lines_of(name):
    return Process([sys.executable, os.path.join(HERE, "run_lines.py"), os.path.join(HERE, name)])


def produce_event():
    """Runs the producer and gives the partition and offset that its delivery callback prints."""
    producer = lines_of("producer.py")
    line = producer.line_with("Deliver")
    producer.child.wait(60)
    must(line.startswith("Delivered to ml-events ["), "the delivery callback prints topic, partition and offset", line)
    partition, offset = line.removeprefix("Delivered to ml-events [").split("] @ ")
    return int(partition), int(offset)


def consume_events(expected):
    """Runs the consumer until it has read, interrupts it as its reader does, and gives what it printed."""
    consumer = lines_of("consumer.py")
    wait_for("the consumer reads", lambda: len([l for l in consumer.lines if l.startswith("features of")]) >= expected)
    consumer.interrupt()
    errors = [line for line in consumer.lines if line.startswith("Consumer error")]
    require(not errors, "the consumer meets no error", errors)
    return [line for line in consumer.lines if line.startswith("User: ")]


def producing_and_consuming():
    output = milena_tool("kafka-topics", *CREATE)
    must("Created topic ml-events." in output, "kafka-topics creates the topic", output)
    described = kafka_tool("kafka-topics", "--describe", *TOPIC)
    must("PartitionCount: 6\tReplicationFactor: 1" in described, "Java's kafka-topics describes it with six partitions", described)

    partition, offset = produce_event()
    must(offset == 0, "the first event has offset 0", offset)
    read = consume_events(1)
    must(read == ["User: u123, Action: click"], "the consumer reads the event", read)

    again = produce_event()
    must(again == (partition, 1), "the same key goes to the same partition, at the next offset", again)
    read = consume_events(1)
    must(read == ["User: u123, Action: click"], "a restarted consumer goes on at its commit and reads only the new event", read)


def created_by_java():
    kafka_tool("kafka-topics", "--delete", *TOPIC)
    listed = lambda: "ml-events" in kafka_tool("kafka-topics", "--list", "--bootstrap-server", "localhost:9092").split()
    wait_for("the deleted topic disappears", lambda: not listed())
    output = kafka_tool("kafka-topics", *CREATE)
    must("Created topic ml-events." in output, "Java's kafka-topics creates the topic", output)
    _, offset = produce_event()
    must(offset == 0, "a topic created anew starts at offset 0", offset)
    read = consume_events(1)
    must(read == ["User: u123, Action: click"], "the group starts anew in the new topic", read)


def keys_keep_their_partitions():
    from confluent_kafka import Producer

    def partitions():
        found = {}
        producer = Producer({"bootstrap.servers": "localhost:9092"})
        for number in range(300):
            key = f"user-{number % 30}"

            def delivered(error, message, key=key):
                require(error is None, "an event is delivered", error)
                found.setdefault(key, set()).add(message.partition())

            producer.produce("ml-events", key=key, value=json.dumps({"item_id": f"old-{number}"}), callback=delivered)
        require(producer.flush(60) == 0, "all events are delivered")
        return found

    first = partitions()
    must(all(len(places) == 1 for places in first.values()), "events of one key lie in one partition", first)
    must(partitions() == first, "another producer puts the same keys into the same partitions")
    must(len(set.union(*first.values())) == 6, "thirty keys reach all six partitions", first)


def assignment(member):
    shown = [line for line in member.lines if line.startswith("assignment ")]
    return json.loads(shown[-1].removeprefix("assignment ")) if shown else []


def shared(members, sizes, within=60):
    """Waits until the members have so many partitions each, all six together and none twice."""
    def holds():
        parts = [assignment(member) for member in members]
        return sorted(len(part) for part in parts) == sizes and sorted(sum(parts, [])) == list(range(6))

    wait_for(f"the partitions are shared {sizes}, now {[assignment(member) for member in members]}", holds, within)


def scaling():
    from confluent_kafka import Producer

    member = lambda: Process([sys.executable, os.path.join(HERE, "member.py")])
    members = [member()]
    shared(members, [6])
    ok("one consumer of the group has all six partitions")

    producer = Producer({"bootstrap.servers": "localhost:9092"})
    sent = []

    def reads_something_new():
        sent.append(f"new-{len(sent)}")
        producer.produce("ml-events", key=sent[-1], value=json.dumps({"item_id": sent[-1]}))
        producer.flush(60)
        return any(line.startswith("read ") for line in members[0].lines)

    wait_for("the consumer reads what comes after it", reads_something_new)
    old = [line for line in members[0].lines if line.startswith("read old-")]
    must(not old, "auto.offset.reset=latest reads nothing that was there before", old)

    members.append(member())
    shared(members, [3, 3])
    ok("with a second consumer each has three partitions")
    members.append(member())
    shared(members, [2, 2, 2])
    ok("with a third each has two")
    victim = members.pop(0)
    victim.kill()
    # The session timeout of the quick start is 30 s; the rest is for the rebalance after it.
    shared(members, [3, 3], within=30 + 15)
    ok("a killed consumer's partitions move to the others when its session times out")
    members.pop().interrupt()
    shared(members, [6])
    ok("a consumer that leaves gives its partitions back at once")
    for rest in members:
        rest.interrupt()


def main():
    bring_loopback_up()
    broker = DefaultBroker("quick-start", listeners="PLAINTEXT://localhost:9092")
    broker.start()
    producing_and_consuming()
    created_by_java()
    keys_keep_their_partitions()
    scaling()
    must(broker.stop() == 0 or AGAINST_KAFKA, "the broker ends well when it is asked to")


main()
