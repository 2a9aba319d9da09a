"""Data directories of older versions, opened by this one.

Each `NAME.tar.gz` is a data directory as that version left it, one stopped and one killed, with `expected.json`: what clients
read from it then. `python suite.py make NAME`, with an older binary in MILENA, makes another such pair.
"""

import glob
import json
import os
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "clients", "python"))

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from checks import CODECS, must, require, wait_for
from cluster import Broker

WORK = os.environ["WORK"]
GROUP = "readers"
RECORDS = 40
# The directories grow old. Their records are kept by a setting in them.
KEPT = {"offsets.retention.minutes": 2147483647}
TOPICS = {
    "ml-events": (6, {}),
    "compact": (2, {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}),
    "settings": (1, {"retention.ms": "-1", "max.message.bytes": "2000000", "message.timestamp.type": "LogAppendTime"}),
    **{f"codec-{codec}": (1, {}) for codec in CODECS},
}


def produce(bootstrap, topic, numbers, **config):
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, **config})
    for number in numbers:
        partition = number % TOPICS[topic][0]
        producer.produce(topic, partition=partition, key=f"key-{number % 7}", value=f"value {number} " * 4, headers={"n": str(number)})
    require(producer.flush(30) == 0, f"records of {topic} are acknowledged")


def read(bootstrap, topic):
    """Everything of a topic: per partition, offsets with what is there."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.partition.eof": True, "auto.offset.reset": "earliest"})
    partitions = range(TOPICS[topic][0])
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    records = {str(partition): [] for partition in partitions}
    ended = set()

    def all_read():
        message = consumer.poll(1)
        if message is None:
            return False
        if message.error():
            ended.add(message.partition())
        else:
            headers = [[name, value.decode()] for name, value in message.headers() or []]
            record = [message.offset(), *message.timestamp(), message.key().decode(), message.value().decode(), headers]
            records[str(message.partition())].append(record)
        return len(ended) == len(partitions)

    wait_for(f"the end of {topic}", all_read, pause=0)
    consumer.close()
    return records


def group(bootstrap):
    return Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP, "enable.auto.commit": False})


def committed(bootstrap):
    consumer = group(bootstrap)
    asked = [TopicPartition("ml-events", partition) for partition in range(TOPICS["ml-events"][0])]
    offsets = {str(found.partition): found.offset for found in consumer.committed(asked, timeout=30)}
    consumer.close()
    return offsets


def configs(bootstrap):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in TOPICS] + [ConfigResource(ResourceType.BROKER, "1")]
    changed = {}
    for resource, answer in admin.describe_configs(resources).items():
        # Of a topic what it has of its own (source 1), of the broker what was changed while it ran (source 2).
        wanted = 1 if resource.restype == ResourceType.TOPIC else 2
        changed[resource.name] = {name: entry.value for name, entry in answer.result(30).items() if entry.source == wanted}
    return changed


def everything(bootstrap):
    return {
        "cluster": AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=30).cluster_id,
        "records": {topic: read(bootstrap, topic) for topic in TOPICS},
        "committed": committed(bootstrap),
        "configs": configs(bootstrap),
    }


def make(name):
    for ending in ("stopped", "killed"):
        broker = Broker(f"{name}-{ending}", KEPT)
        broker.start()
        bootstrap = broker.bootstrap()
        admin = AdminClient({"bootstrap.servers": bootstrap})
        news = [NewTopic(topic, partitions, 1, config=config) for topic, (partitions, config) in TOPICS.items()]
        for created in admin.create_topics(news).values():
            created.result(30)
        alter = ConfigResource(
            ResourceType.BROKER, "1",
            incremental_configs=[ConfigEntry("log.retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)],
        )
        for altered in admin.incremental_alter_configs([alter]).values():
            altered.result(30)
        for topic in TOPICS:
            codec = topic.removeprefix("codec-") if topic.startswith("codec-") else "none"
            produce(bootstrap, topic, range(RECORDS), **{"compression.type": codec})
        consumer = group(bootstrap)
        offsets = [TopicPartition("ml-events", partition, partition + 1) for partition in range(TOPICS["ml-events"][0])]
        consumer.commit(offsets=offsets, asynchronous=False)
        consumer.close()
        expected = everything(bootstrap)
        with open(os.path.join(broker.data, "expected.json"), "w", encoding="utf-8") as file:
            json.dump(expected, file)
        broker.stop() if ending == "stopped" else broker.kill()
        with tarfile.open(os.path.join(HERE, f"{name}-{ending}.tar.gz"), "w:gz") as archive:
            archive.add(broker.data, arcname="data")


def check(path):
    name = os.path.basename(path).removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(os.path.join(WORK, name), filter="data")
    broker = Broker(name, KEPT, data=os.path.join(WORK, name, "data"))
    with open(os.path.join(broker.data, "expected.json"), encoding="utf-8") as file:
        expected = json.load(file)
    os.remove(os.path.join(broker.data, "expected.json"))
    broker.start()
    found = everything(broker.bootstrap())
    for what, wanted in expected.items():
        must(found[what] == wanted, f"{name}: {what} as they were", f"{found[what]}\n   instead of {wanted}")
    produce(broker.bootstrap(), "ml-events", range(RECORDS, 2 * RECORDS))
    broker.kill()
    broker.start()
    after = read(broker.bootstrap(), "ml-events")
    for partition, before in expected["records"]["ml-events"].items():
        require(after[partition][: len(before)] == before, f"{name}: partition {partition} keeps what it had")
        offsets = [record[0] for record in after[partition]]
        require(offsets == list(range(len(offsets))), f"{name}: partition {partition} goes on with its offsets", offsets)
    must(sum(map(len, after.values())) == 2 * RECORDS, f"{name}: new records behind them outlast a kill")
    must(committed(broker.bootstrap()) == expected["committed"], f"{name}: and so do the group's offsets")
    require(broker.stop() == 0, f"{name}: the broker stops")


def main():
    if sys.argv[1:2] == ["make"]:
        return make(sys.argv[2])
    archives = sorted(glob.glob(os.path.join(HERE, "*.tar.gz")))
    require(archives, "there are directories of older versions")
    for path in archives:
        check(path)


if __name__ == "__main__":
    main()
