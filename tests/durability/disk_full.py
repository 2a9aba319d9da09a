"""A full disk: the broker refuses what it cannot store, and stays up for reads, deletes and administration.

Run in a mount namespace of its own (`unshare --mount`), where a small tmpfs is the disk. (Apache Kafka ends when its only
log directory fails; this suite is for Milena.)
"""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from checks import must, ok, require, wait_for
from cluster import Broker

DISK_MIB = 32
RECORD = "y" * 8000
WORK = os.environ["WORK"]


def mount_small_disk():
    disk = os.path.join(WORK, "disk")
    os.makedirs(disk)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "small-disk", disk], capture_output=True, text=True)
    require(done.returncode == 0, "a small disk can be mounted", done.stderr)
    return disk


def free_bytes(disk):
    state = os.statvfs(disk)
    return state.f_bavail * state.f_frsize


class Sender:
    """Sends one record at a time and tells what became of it."""

    def __init__(self, bootstrap):
        # Short enough that a refusal which the client keeps retrying is seen as one.
        self.producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 2000, "retries": 1, "acks": "all"})

    def send(self, topic, value=RECORD):
        results = []
        self.producer.produce(topic, partition=0, value=value, callback=lambda error, message: results.append(error or message.offset()))
        require(self.producer.flush(30) == 0, "every record gets an answer")
        return results[0]


def fill(sender, disk, topic):
    """Produces until the broker refuses; gives how many records were acknowledged."""
    acknowledged = 0
    for _ in range(2 * DISK_MIB * 1024 * 1024 // len(RECORD)):
        answer = sender.send(topic)
        if isinstance(answer, KafkaError):
            print(f"refused with {answer.name()}, {free_bytes(disk)} bytes free", flush=True)
            allowed = (KafkaError.KAFKA_STORAGE_ERROR, KafkaError._MSG_TIMED_OUT)
            must(answer.code() in allowed, "a full disk is answered with KAFKA_STORAGE_ERROR, which clients retry", answer)
            return acknowledged
        require(answer == acknowledged, "offsets have no gap", answer)
        acknowledged += 1
    require(False, "the disk fills")
    return 0


def read(bootstrap, topic, expected, what):
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    reader.assign([TopicPartition(topic, 0, 0)])
    found = []

    def step():
        for message in reader.consume(500, 0.1):
            require(message.error() is None, "reading works", message.error())
            found.append(message.offset())
        return len(found) >= expected

    wait_for(what, step, pause=0)
    end = reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1]
    reader.close()
    require(found == list(range(len(found))), "offsets are read without a gap", found[:5])
    require(end == expected, "no record but the acknowledged is there", f"end {end}, acknowledged {expected}")
    ok(what)


def administer(bootstrap, what):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = admin.list_topics(timeout=30).topics
    require({"big", "small"} <= set(topics), "topics are listed", topics)
    admin.list_consumer_groups(request_timeout=30).result(30)
    ok(what)
    return admin


def main():
    disk = mount_small_disk()
    broker = Broker("disk-full", {"log.segment.bytes": 1024 * 1024, "log.segment.delete.delay.ms": 50}, data=os.path.join(disk, "data"))
    broker.start()
    bootstrap = broker.bootstrap()
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic("big", 1, 1), NewTopic("small", 1, 1)]).values():
        future.result(30)
    sender = Sender(bootstrap)
    for number in range(3):
        require(sender.send("small", f"small {number}") == number, "records are stored while there is room")
    acknowledged = fill(sender, disk, "big")
    require(acknowledged > 100, "the disk took a good part", acknowledged)
    must(broker.process.child.poll() is None, "the broker stays up")
    read(bootstrap, "big", acknowledged, "every acknowledged record can be read from the full disk")
    administer(bootstrap, "administration works on the full disk")

    broker.kill()
    broker.start()
    ok("the broker starts on a full disk")
    read(bootstrap, "big", acknowledged, "and every acknowledged record is there")
    admin = administer(bootstrap, "and administration works")

    for future in admin.delete_topics(["big"], operation_timeout=30).values():
        future.result(30)
    ok("a topic can be deleted on the full disk")
    wait_for("the deleted topic's room is free", lambda: free_bytes(disk) > DISK_MIB * 1024 * 1024 // 4)
    sender = Sender(bootstrap)
    wait_for("records are stored again", lambda: sender.send("small", "after") == 3, pause=0.2)
    ok("with room again records are stored, without a restart")
    read(bootstrap, "small", 4, "and what was there before the disk was full is still there")
    require(broker.stop() == 0, "the broker ends well")


main()
