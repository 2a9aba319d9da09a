"""Transactions with confluent-kafka (librdkafka) and Apache Kafka's own tools: commit, abort, fenced zombies,
consume-transform-produce with offsets, and readers of both isolation levels side by side."""

import os

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from checks import DEADLINE_S, kafka_tool, must, ok, require, wait_for

BOOTSTRAP = os.environ["BOOTSTRAP"]
PARTITIONS = 3


def producer(transactional_id, **more):
    made = Producer({
        "bootstrap.servers": BOOTSTRAP, "transactional.id": transactional_id, "transaction.timeout.ms": 30000, **more,
    })
    made.init_transactions(DEADLINE_S)
    return made


def write(made, topic, values, partitions=PARTITIONS):
    for number, value in enumerate(values):
        made.produce(topic, value=value, partition=number % partitions)


def consumer(isolation, group=None):
    return Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": group or f"transactions-{isolation}", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "isolation.level": isolation, "enable.partition.eof": True,
    })


def read_all(topic, isolation, partitions=PARTITIONS):
    """Everything that a reader sees before it stands at the end of every partition."""
    reader = consumer(isolation)
    reader.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    values, ended = [], set()

    def step():
        message = reader.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value().decode())
            ended.discard(message.partition())
        elif message is not None:
            require(message.error().code() == KafkaError._PARTITION_EOF, "no error but the end", message.error())
            ended.add(message.partition())
        return len(ended) == partitions

    wait_for(f"{topic} is read to its end", step, pause=0)
    reader.close()
    return sorted(values)


def isolation():
    topic = "tx-isolation"
    made = producer("isolation")
    made.begin_transaction()
    write(made, topic, [f"a{number}" for number in range(30)])
    require(made.flush(DEADLINE_S) == 0, "the records are there")
    must(read_all(topic, "read_committed") == [], "read_committed sees nothing of an open transaction")
    must(len(read_all(topic, "read_uncommitted")) == 30, "read_uncommitted sees it")
    made.commit_transaction(DEADLINE_S)
    committed = sorted(f"a{number}" for number in range(30))
    wait_for("the commit is seen", lambda: read_all(topic, "read_committed") == committed)
    ok("read_committed sees a transaction once it is committed")
    made.begin_transaction()
    write(made, topic, [f"b{number}" for number in range(30)])
    require(made.flush(DEADLINE_S) == 0, "the records are there")
    made.abort_transaction(DEADLINE_S)
    made.begin_transaction()
    write(made, topic, [f"c{number}" for number in range(30)])
    made.commit_transaction(DEADLINE_S)
    expected = sorted(committed + [f"c{number}" for number in range(30)])
    wait_for("the second commit is seen", lambda: len(read_all(topic, "read_committed")) == len(expected))
    must(read_all(topic, "read_committed") == expected, "an aborted transaction is never read by read_committed")
    must(len(read_all(topic, "read_uncommitted")) == 90, "read_uncommitted reads it still")


def fencing():
    topic = "tx-fencing"
    zombie = producer("fencing")
    zombie.begin_transaction()
    write(zombie, topic, ["lost"])
    require(zombie.flush(DEADLINE_S) == 0, "the record is there")
    successor = producer("fencing")
    try:
        zombie.commit_transaction(DEADLINE_S)
        must(False, "a fenced producer cannot commit")
    except KafkaException as error:
        must(error.args[0].code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH),
             "a fenced producer cannot commit", error)
    successor.begin_transaction()
    write(successor, topic, ["kept"])
    successor.commit_transaction(DEADLINE_S)
    wait_for("the successor's record is seen", lambda: read_all(topic, "read_committed") == ["kept"])
    ok("what a fenced producer left open is aborted, and its successor goes on")


def transform():
    source, target, group = "tx-source", "tx-target", "tx-transform"
    plain = Producer({"bootstrap.servers": BOOTSTRAP})
    for number in range(300):
        plain.produce(source, value=str(number), partition=number % PARTITIONS)
    require(plain.flush(DEADLINE_S) == 0, "the source is filled")
    reader = consumer("read_committed", group)
    reader.subscribe([source])
    made = producer("transform")
    taken, rounds = 0, 0
    while taken < 300:
        batch = [message for message in reader.consume(25, 1.0) if message.error() is None]
        if not batch:
            continue
        rounds += 1
        made.begin_transaction()
        for message in batch:
            made.produce(target, value=f"{message.value().decode()}!", partition=message.partition())
        made.send_offsets_to_transaction(reader.position(reader.assignment()), reader.consumer_group_metadata(), DEADLINE_S)
        if rounds % 3 == 0:
            made.abort_transaction(DEADLINE_S)
            # As a program does that starts again: it goes on at what is committed.
            for place in reader.committed(reader.assignment(), DEADLINE_S):
                reader.seek(TopicPartition(place.topic, place.partition, max(place.offset, 0)))
        else:
            made.commit_transaction(DEADLINE_S)
            taken += len(batch)
    expected = sorted(f"{number}!" for number in range(300))
    wait_for("all is seen", lambda: len(read_all(target, "read_committed")) >= 300)
    must(read_all(target, "read_committed") == expected, "consume-transform-produce: each record once, although every third transaction was aborted")
    committed = reader.committed([TopicPartition(source, partition) for partition in range(PARTITIONS)], DEADLINE_S)
    must(sum(place.offset for place in committed) == 300, "the group's offsets are those of the committed transactions", committed)
    reader.close()


def tools():
    made = producer("by-hand")
    made.begin_transaction()
    write(made, "tx-tools", ["hanging"], partitions=1)
    require(made.flush(DEADLINE_S) == 0, "the record is there")
    listed = kafka_tool("kafka-transactions", "--bootstrap-server", BOOTSTRAP, "list")
    row = next((line for line in listed.splitlines() if line.startswith("by-hand")), "")
    must("Ongoing" in row, "kafka-transactions list shows an open transaction", listed)
    described = kafka_tool("kafka-transactions", "--bootstrap-server", BOOTSTRAP, "describe", "--transactional-id", "by-hand")
    must("tx-tools-0" in described and "Ongoing" in described, "kafka-transactions describe shows its partitions", described)
    producers = kafka_tool("kafka-transactions", "--bootstrap-server", BOOTSTRAP, "describe-producers", "--topic", "tx-tools", "--partition", "0")
    fields = producers.splitlines()[-1].split()
    must(fields[-1] == "0", "kafka-transactions describe-producers shows where it began", producers)
    kafka_tool("kafka-transactions", "--bootstrap-server", BOOTSTRAP, "abort", "--topic", "tx-tools", "--partition", "0", "--start-offset", "0")
    must(read_all("tx-tools", "read_committed", 1) == [], "a transaction is aborted by hand, and readers go on")
    made.abort_transaction(DEADLINE_S)


def performance():
    out = kafka_tool(
        "kafka-producer-perf-test", "--topic", "tx-perf", "--num-records", "20000", "--record-size", "100", "--throughput", "-1",
        "--transaction-duration-ms", "100", "--transactional-id", "perf", "--producer-props", f"bootstrap.servers={BOOTSTRAP}", "linger.ms=5",
    )
    must("20000 records sent" in out, "kafka-producer-perf-test runs with transactions", out)
    wait_for("its last transaction is seen", lambda: len(read_all("tx-perf", "read_committed")) == 20000, pause=0.2)


def main():
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    names = ["tx-isolation", "tx-fencing", "tx-source", "tx-target", "tx-tools", "tx-perf"]
    for future in admin.create_topics([NewTopic(name, 1 if name == "tx-tools" else PARTITIONS, 1) for name in names]).values():
        future.result(DEADLINE_S)
    isolation()
    fencing()
    transform()
    tools()
    performance()


main()
