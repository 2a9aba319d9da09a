"""Share groups with librdkafka's ShareConsumer: implicit and explicit acknowledgement, what is delivered again and how often,
several consumers of one partition, crashes of consumers and kills of the broker."""

import multiprocessing
import threading

from confluent_kafka import AcknowledgeType, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from checks import AGAINST_KAFKA, DEADLINE_S, must, ok, require, wait_for
from cluster import FAST_SHARE_GROUPS, Broker

KILLS = 1 if AGAINST_KAFKA else 5
QUIET = {"log_level": 0, "reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 100}


def create(topic, values):
    for created in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        created.result()
    fill(topic, values)


def fill(topic, values):
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 5, "batch.num.messages": 10, **QUIET})
    for value in values:
        producer.produce(topic, value, partition=0)
    require(producer.flush(DEADLINE_S) == 0, "records are sent")


def group(name, **settings):
    entries = [
        ConfigEntry(f"share.{key.replace('_', '.')}", str(value), incremental_operation=AlterConfigOpType.SET)
        for key, value in {"auto_offset_reset": "earliest", **settings}.items()
    ]
    for changed in admin.incremental_alter_configs([ConfigResource(ResourceType.GROUP, name, incremental_configs=entries)]).values():
        changed.result()


def member(group_name, topic, bootstrap=None, **settings):
    consumer = ShareConsumer({"bootstrap.servers": bootstrap or BOOTSTRAP, "group.id": group_name, **QUIET, **settings})
    consumer.subscribe([topic])
    return consumer


EXPLICIT = {"share.acknowledgement.mode": "explicit"}


def values(name, first, last):
    return [f"{name}-{number}" for number in range(first, last)]


def text(message):
    require(message.error() is None, "a record comes without an error", message.error())
    return message.value().decode()


def some(consumer):
    return list(wait_for("records come", lambda: [message for message in consumer.poll(0.5) if message.error() is None], pause=0))


def take(consumer, count):
    taken = []

    def enough():
        taken.extend(text(message) for message in consumer.poll(0.5))
        return len(taken) >= count

    wait_for(f"{count} records are read", enough, pause=0)
    return taken


def committed(consumer):
    """Whether all that was marked is acknowledged."""
    return all(error is None for error in consumer.commit_sync(30).values())


def implicitly():
    create("implicit", values("i", 0, 50))
    group("implicit")
    first = member("implicit", "implicit")
    must(take(first, 50) == values("i", 0, 50), "all records come, in order")
    require(committed(first), "they are acknowledged")
    first.close()
    fill("implicit", ["after"])
    second = member("implicit", "implicit")
    must(take(second, 1) == ["after"], "what was acknowledged is not delivered to the next one")
    second.close()


def explicitly():
    create("explicit", values("e", 0, 10))
    group("explicit")
    consumer = member("explicit", "explicit", **EXPLICIT)
    for message in some(consumer):
        number = int(text(message).split("-")[1])
        kind = {8: AcknowledgeType.RELEASE, 9: AcknowledgeType.REJECT}.get(number, AcknowledgeType.ACCEPT)
        consumer.acknowledge(message, kind)
    must(committed(consumer), "records are accepted, released and rejected one by one")
    fill("explicit", ["last"])
    seen = []

    def last_is_seen():
        for message in consumer.poll(0.5):
            seen.append(text(message))
            consumer.acknowledge(message, AcknowledgeType.ACCEPT)
        return "last" in seen

    wait_for("the last is seen", last_is_seen, pause=0)
    must(sorted(seen) == ["e-8", "last"], "what was released comes again, what was accepted or rejected does not", seen)
    require(committed(consumer), "they are accepted")
    consumer.close()


def delivery_limit():
    create("limit", ["poison"])
    group("limit", delivery_count_limit=3)
    consumer = member("limit", "limit", **EXPLICIT)
    deliveries, seen = [], []

    def step():
        for message in consumer.poll(0.5):
            seen.append(text(message))
            if seen[-1] == "poison":
                deliveries.append(message.delivery_count())
            consumer.acknowledge(message, AcknowledgeType.RELEASE if seen[-1] == "poison" else AcknowledgeType.ACCEPT)
        return committed(consumer)

    wait_for("it is delivered three times", lambda: step() and len(deliveries) >= 3, pause=0)
    fill("limit", ["end"])
    wait_for("the end is seen", lambda: step() and "end" in seen, pause=0)
    must(deliveries == [1, 2, 3], "a record that is released again and again is delivered up to share.delivery.count.limit", deliveries)
    consumer.close()


def sharing():
    create("shared", [])
    group("shared")
    consumers = [member("shared", "shared", **{"max.poll.records": 10}) for _ in range(3)]
    parts, ending = [[] for _ in consumers], threading.Event()

    def run(consumer, part):
        while not ending.is_set():
            part.extend(text(message) for message in consumer.poll(0.2))
        consumer.close()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in zip(consumers, parts)]
    for thread in threads:
        thread.start()
    for first in range(0, 2000, 20):
        fill("shared", values("s", first, first + 20))
    wait_for("all is read", lambda: sum(map(len, parts)) >= 2000)
    ending.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    must(sorted(value for part in parts for value in part) == sorted(values("s", 0, 2000)), "three consumers share one partition, each record is delivered once", list(map(len, parts)))
    must(all(parts), "and each of them has its share", list(map(len, parts)))


def hold(bootstrap, group_name, topic, pipe):
    """In a process of its own: takes records, accepts half of them and holds the others until it is killed."""
    consumer = member(group_name, topic, bootstrap, **EXPLICIT)
    messages = []
    while len(messages) < 10:
        messages.extend(consumer.poll(0.5))
    for message in messages[:5]:
        consumer.acknowledge(message, AcknowledgeType.ACCEPT)
    pipe.send((committed(consumer), sorted(text(message) for message in messages)))
    pipe.recv()


def crash_of_a_consumer():
    create("crash", values("c", 0, 10))
    group("crash")
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(BOOTSTRAP, "crash", "crash", there), daemon=True)
    process.start()
    require(here.poll(DEADLINE_S), "it tells what it has")
    require(here.recv() == (True, values("c", 0, 10)), "it has all records, and accepted half of them")
    process.kill()
    heir = member("crash", "crash")
    must(sorted(take(heir, 5)) == values("c", 5, 10), "what a crashed consumer had not acknowledged is delivered to another")
    heir.close()


def kills_of_the_broker():
    total = 100 + KILLS * 60
    create("kill", values("b", 0, total))
    group("kill")
    consumer = member("kill", "kill", **EXPLICIT)
    certain, perhaps = set(), set()

    def step():
        messages = [message for message in consumer.poll(0.5) if message.error() is None]
        again = certain & {text(message) for message in messages}
        require(not again, "what was acknowledged is not delivered again", again)
        return messages

    def acknowledge(messages):
        for message in messages:
            consumer.acknowledge(message, AcknowledgeType.ACCEPT)
        (certain if committed(consumer) else perhaps).update(text(message) for message in messages)

    for round_number in range(KILLS):
        goal = 30 * (round_number + 1)

        def reached():
            acknowledge(step())
            return len(certain) >= goal or len(certain | perhaps) == total

        wait_for(f"{goal} are acknowledged", reached, within=120, pause=0)
        held = step()
        broker.kill()
        broker.start()
        acknowledge(held)
    fill("kill", ["last"])

    def whole():
        acknowledge(step())
        return len(certain | perhaps) == total + 1

    wait_for(f"all {total} are acknowledged", whole, within=120, pause=0)
    must(len(certain) > total // 3, f"over {KILLS} kills of the broker nothing is delivered again that was acknowledged, and nothing is left out", (len(certain), len(perhaps)))
    consumer.close()


if __name__ == "__main__":
    broker = Broker("share", FAST_SHARE_GROUPS)
    broker.start()
    BOOTSTRAP = broker.bootstrap()
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP, **QUIET})
    implicitly()
    explicitly()
    delivery_limit()
    sharing()
    crash_of_a_consumer()
    kills_of_the_broker()
    broker.stop()
