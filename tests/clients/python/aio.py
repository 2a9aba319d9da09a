"""aiokafka: every compression, a group that commits and resumes, two members, an idempotent producer."""

import asyncio
import os

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from checks import CODECS, DEADLINE_S, PARTITIONS, RECORDS_PER_CODEC, Seen, expected_values, key_of, must, ok, require, value_of

BOOTSTRAP = os.environ["BOOTSTRAP"]
TOPIC = "aiokafka"


async def produce(codec):
    producer = AIOKafkaProducer(
        bootstrap_servers=BOOTSTRAP, compression_type=None if codec == "none" else codec, acks="all",
        enable_idempotence=codec in ("none", "zstd"), linger_ms=20,
    )
    await producer.start()
    futures = [
        await producer.send(TOPIC, key=key_of(number).encode(), value=value_of(codec, number).encode())
        for number in range(RECORDS_PER_CODEC)
    ]
    places = {(place.partition, place.offset) for place in await asyncio.gather(*futures)}
    await producer.stop()
    must(len(places) == RECORDS_PER_CODEC, f"produces with {codec}")


async def consumer():
    made = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=BOOTSTRAP, group_id="aiokafka-group", auto_offset_reset="earliest", enable_auto_commit=False,
    )
    await made.start()
    return made


async def read(reader, seen, count):
    while len(seen.values) < count:
        for records in (await reader.getmany(timeout_ms=200, max_records=50)).values():
            for record in records:
                seen.add(record.partition, record.offset, record.key, record.value.decode())


async def until(what, condition):
    for _ in range(DEADLINE_S * 20):
        if condition():
            return
        await asyncio.sleep(0.05)
    require(False, what)


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
    for codec in CODECS:
        await produce(codec)
    total = len(CODECS) * RECORDS_PER_CODEC
    seen = Seen()
    first = await consumer()
    await asyncio.wait_for(read(first, seen, total // 2), DEADLINE_S)
    await first.commit()
    await first.stop()
    ok("a consumer of a group reads half and commits")
    second = await consumer()
    await asyncio.wait_for(read(second, seen, total), DEADLINE_S)
    must(set(seen.values) == expected_values() and len(seen.values) == total, "the next goes on at the commits: everything once")
    must(seen.order_holds(), "records of a key come in the order in which they were sent")
    await second.commit()
    committed = [await second.committed(TopicPartition(TOPIC, partition)) or 0 for partition in range(PARTITIONS)]
    must(sum(committed) == total, "the committed offsets are those of the end", committed)
    third = await consumer()
    await until("two members share", lambda: [len(second.assignment()), len(third.assignment())] == [3, 3])
    must(len(second.assignment() | third.assignment()) == PARTITIONS, "two members share six partitions, none twice")
    await second.stop()
    await third.stop()
    await admin.close()


asyncio.run(main())
