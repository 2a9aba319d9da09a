"""One instance of the quick start's scaling consumer: its configuration, unchanged; tells what it is assigned and reads."""

import json
import os
import runpy
import sys

from confluent_kafka import Consumer

directory = os.path.dirname(os.path.abspath(__file__))
consumer = Consumer(runpy.run_path(os.path.join(directory, "scaling.py"))["consumer_config"])
mine = set()


def show():
    print(f"assignment {sorted(mine)}", flush=True)


def on_assign(_, partitions):
    mine.update(partition.partition for partition in partitions)
    show()


def on_revoke(_, partitions):
    mine.difference_update(partition.partition for partition in partitions)
    show()


consumer.subscribe(["ml-events"], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)
try:
    while True:
        message = consumer.poll(timeout=1.0)
        if message is None:
            continue
        if message.error():
            print(f"Consumer error: {message.error()}", flush=True)
            continue
        print(f"read {json.loads(message.value())['item_id']} [{message.partition()}] @ {message.offset()}", flush=True)
except KeyboardInterrupt:
    pass
finally:
    consumer.close()
    sys.exit(0)
