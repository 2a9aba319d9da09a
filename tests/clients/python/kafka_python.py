"""kafka-python: every compression, a group that commits and resumes, two members, seek."""

import os
import threading

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from checks import CODECS, DEADLINE_S, PARTITIONS, RECORDS_PER_CODEC, Seen, expected_values, key_of, must, ok, require, value_of, wait_for

# A poll that ends in the middle of a rebalance begins it anew: it must be long enough for a busy machine.
POLL_MS = 5000

BOOTSTRAP = os.environ["BOOTSTRAP"]
TOPIC = "kafka-python"


def produce(codec):
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type=None if codec == "none" else codec, acks="all", linger_ms=20)
    futures = [
        producer.send(TOPIC, key=key_of(number).encode(), value=value_of(codec, number).encode())
        for number in range(RECORDS_PER_CODEC)
    ]
    places = {(future.get(DEADLINE_S).partition, future.get(DEADLINE_S).offset) for future in futures}
    producer.close()
    must(len(places) == RECORDS_PER_CODEC, f"produces with {codec}")


def consumer(group):
    return KafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False, max_poll_records=50,
    )


def read(reader, seen, count):
    def step():
        for records in reader.poll(timeout_ms=POLL_MS).values():
            for record in records:
                seen.add(record.partition, record.offset, record.key, record.value.decode())
        return len(seen.values) >= count
    wait_for(f"{count} records are read", step, pause=0)


def assignments(readers, share):
    """Polls each consumer in a thread of its own, as members of a group do, until each has its share."""
    latest = [set() for _ in readers]
    done = threading.Event()
    failures = []

    def member(at, reader):
        try:
            while not done.is_set():
                reader.poll(timeout_ms=POLL_MS, max_records=1)
                latest[at] = reader.assignment()
        except Exception as error:  # the main thread tells it
            failures.append(error)

    threads = [threading.Thread(target=member, args=each, daemon=True) for each in enumerate(readers)]
    for thread in threads:
        thread.start()
    wait_for("the members share", lambda: failures or all(len(assigned) == share for assigned in latest))
    done.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    require(not failures, "members poll without an error", failures)
    return latest


def main():
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    admin.create_topics([NewTopic(name=TOPIC, num_partitions=PARTITIONS, replication_factor=1)])
    for codec in CODECS:
        produce(codec)
    total = len(CODECS) * RECORDS_PER_CODEC
    seen = Seen()
    first = consumer("kafka-python-group")
    first.subscribe([TOPIC])
    read(first, seen, total // 2)
    first.commit()
    first.close()
    ok("a consumer of a group reads half and commits")
    second = consumer("kafka-python-group")
    second.subscribe([TOPIC])
    read(second, seen, total)
    must(set(seen.values) == expected_values() and len(seen.values) == total, "the next goes on at the commits: everything once")
    must(seen.order_holds(), "records of a key come in the order in which they were sent")
    second.commit()
    places = [TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)]
    committed = [second.committed(place) or 0 for place in places]
    must(sum(committed) == total, "the committed offsets are those of the end", committed)
    third = consumer("kafka-python-group")
    third.subscribe([TOPIC])
    shares = assignments([second, third], PARTITIONS // 2)
    must(shares[0] | shares[1] == set(places), "two members share six partitions, none twice")
    second.close()
    third.close()
    ends = KafkaConsumer(bootstrap_servers=BOOTSTRAP)
    require(sum(ends.end_offsets(places).values()) == total, "the end offsets count the records")
    must(all(offset == 0 for offset in ends.beginning_offsets(places).values()), "beginning and end offsets are those of the log")
    ends.close()
    admin.delete_topics([TOPIC])
    wait_for("the deleted topic is gone", lambda: TOPIC not in admin.list_topics())
    ok("deletes a topic")
    admin.close()


main()
