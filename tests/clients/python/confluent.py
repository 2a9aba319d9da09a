"""confluent-kafka (librdkafka): every compression, groups with each kind of assignor, commits, idempotence, timestamps."""

import os

from confluent_kafka import Consumer, Producer, TopicPartition, OFFSET_BEGINNING, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType

from checks import CODECS, DEADLINE_S, PARTITIONS, RECORDS_PER_CODEC, Seen, expected_values, key_of, must, ok, require, value_of, wait_for

BOOTSTRAP = os.environ["BOOTSTRAP"]


def admin_does(futures):
    for future in futures.values():
        future.result(DEADLINE_S)


def produce(topic, codec, idempotent):
    offsets = []

    def delivered(error, message):
        require(error is None, f"a {codec} record is delivered", error)
        offsets.append((message.partition(), message.offset()))

    producer = Producer({
        "bootstrap.servers": BOOTSTRAP, "compression.type": codec, "linger.ms": 20, "enable.idempotence": idempotent,
    })
    for number in range(RECORDS_PER_CODEC):
        producer.produce(topic, key=key_of(number), value=value_of(codec, number), headers=[("codec", codec.encode())], callback=delivered)
    require(producer.flush(DEADLINE_S) == 0, f"all {codec} records are delivered")
    require(len(set(offsets)) == RECORDS_PER_CODEC, "each record has an offset of its own")


def consumer(group, **more):
    return Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "session.timeout.ms": 10000, **more,
    })


def read(reader, seen, count):
    def step():
        message = reader.poll(0.2)
        if message is not None:
            require(message.error() is None, "a message without an error", message.error())
            codec = message.value().decode().split("-")[0]
            require(dict(message.headers()) == {"codec": codec.encode()}, "headers come through", message.headers())
            seen.add(message.partition(), message.offset(), message.key(), message.value().decode())
        return len(seen.values) >= count
    wait_for(f"{count} records are read", step, pause=0)


def group_scenario(topic):
    total = len(CODECS) * RECORDS_PER_CODEC
    seen = Seen()
    first = consumer("confluent-group")
    first.subscribe([topic])
    read(first, seen, total // 2)
    first.commit(asynchronous=False)
    first.close()
    ok("a consumer of a group reads half and commits")
    second = consumer("confluent-group")
    second.subscribe([topic])
    read(second, seen, total)
    second.commit(asynchronous=False)
    must(set(seen.values) == expected_values() and len(seen.values) == total, "the next goes on at the commits: everything once")
    must(seen.order_holds(), "records of a key come in the order in which they were sent")
    committed = second.committed([TopicPartition(topic, partition) for partition in range(PARTITIONS)], timeout=DEADLINE_S)
    must(sum(place.offset for place in committed if place.offset > 0) == total, "the committed offsets are those of the end", committed)
    second.close()


def sharing(topic, strategy):
    members = [consumer(f"confluent-{strategy}", **{"partition.assignment.strategy": strategy}) for _ in range(2)]
    for member in members:
        member.subscribe([topic])

    def shared():
        for member in members:
            member.poll(0.05)
        return sorted(len(member.assignment()) for member in members) == [3, 3]

    wait_for(f"two members share by {strategy}", shared)
    parts = [place.partition for member in members for place in member.assignment()]
    must(sorted(parts) == list(range(PARTITIONS)), f"two members share six partitions, none twice, with {strategy}", parts)
    for member in members:
        member.close()


def static_membership(topic):
    static = lambda: consumer("confluent-static", **{"group.instance.id": "one"})

    def assigned(member):
        member.subscribe([topic])
        wait_for("a static member is assigned", lambda: member.poll(0.1) is None and len(member.assignment()) == PARTITIONS or len(member.assignment()) == PARTITIONS)

    first = static()
    assigned(first)
    first.close()
    second = static()
    assigned(second)
    second.close()
    ok("a static member comes back under its instance id")


def offsets_by_time(topic):
    reader = consumer("confluent-times")
    producer = Producer({"bootstrap.servers": BOOTSTRAP})
    base = 1_700_000_000_000
    for number in range(10):
        producer.produce(topic, partition=0, value=str(number), timestamp=base + number * 1000)
    require(producer.flush(DEADLINE_S) == 0, "timed records are delivered")
    at = lambda time: reader.offsets_for_times([TopicPartition(topic, 0, time)], timeout=DEADLINE_S)[0].offset
    must([at(base), at(base + 1), at(base + 9000)] == [0, 1, 9], "offsets_for_times gives the first record not older")
    must(at(base + 9001) == -1, "and the end when there is none", at(base + 9001))
    must(reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=DEADLINE_S) == (0, 10), "the watermarks are those of the log")
    reader.close()


def administration(admin):
    topic = "confluent-admin"
    admin_does(admin.create_topics([NewTopic(topic, 2, 1, config={"retention.ms": "3600000"})]))
    # The controller tells before the broker knows it; a client sees a topic a moment later.
    metadata = lambda: admin.list_topics(topic, timeout=DEADLINE_S).topics[topic]
    wait_for("a created topic is in the metadata", lambda: len(metadata().partitions) == 2)
    admin_does(admin.create_partitions([NewPartitions(topic, 5)]))
    wait_for("added partitions are in the metadata", lambda: len(metadata().partitions) == 5)
    ok("create_topics and create_partitions")
    resource = ConfigResource(ResourceType.TOPIC, topic)
    configs = next(iter(admin.describe_configs([resource]).values())).result(DEADLINE_S)
    must(configs["retention.ms"].value == "3600000" and not configs["retention.ms"].is_default, "describe_configs shows the topic's own value")
    must(configs["cleanup.policy"].value == "delete" and configs["cleanup.policy"].is_default, "and the defaults")
    try:
        admin_does(admin.create_topics([NewTopic(topic, 2, 1)]))
        must(False, "a topic that exists is refused")
    except KafkaException as error:
        must(error.args[0].name() == "TOPIC_ALREADY_EXISTS", "a topic that exists is refused by name", error)
    admin_does(admin.delete_topics([topic], operation_timeout=DEADLINE_S))
    wait_for("a deleted topic is gone", lambda: topic not in admin.list_topics(timeout=DEADLINE_S).topics)
    ok("delete_topics")


def auto_creation():
    producer = Producer({"bootstrap.servers": BOOTSTRAP})
    results = []
    producer.produce("confluent-auto", value="first", callback=lambda error, message: results.append(error or message.offset()))
    require(producer.flush(DEADLINE_S) == 0, "the record is delivered")
    must(results == [0], "producing to a topic that is not there creates it", results)


def main():
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    admin_does(admin.create_topics([NewTopic("confluent", PARTITIONS, 1), NewTopic("confluent-times", 1, 1, config={"retention.ms": "-1"})]))
    for number, codec in enumerate(CODECS):
        produce("confluent", codec, idempotent=number % 2 == 0)
        ok(f"produces with {codec}")
    group_scenario("confluent")
    for strategy in ["range", "roundrobin", "cooperative-sticky"]:
        sharing("confluent", strategy)
    static_membership("confluent")
    offsets_by_time("confluent-times")
    administration(admin)
    auto_creation()
    replay = consumer("confluent-replay")
    replay.assign([TopicPartition("confluent", partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    again = Seen()
    read(replay, again, len(CODECS) * RECORDS_PER_CODEC)
    replay.close()
    must(set(again.values) == expected_values(), "a consumer without a group reads everything from the beginning")


main()
