"""Exactly once under kill -9: two competing workers consume, transform and produce in transactions, while the broker is
killed again and again and a worker now and then. At the end every record of the source is in the target once, read
committed, and the offsets of the group stand at the end of the source."""

import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from checks import AGAINST_KAFKA, must, ok, require, wait_for
from cluster import Broker

KILLS = int(os.environ.get("KILLS", "2" if AGAINST_KAFKA else "100"))
SEED = int(os.environ.get("SEED", "7"))
PARTITIONS = 4
SOURCE, TARGET, GROUP = "eos-source", "eos-target", "eos-group"
SOON = {
    "reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 40, "retry.backoff.ms": 5, "retry.backoff.max.ms": 40,
    "metadata.recovery.strategy": "none", "log_level": 0,
}


class Restart(Exception):
    """The worker begins anew, as a process does that is started again."""


class Worker(threading.Thread):
    def __init__(self, name, bootstrap, seed):
        super().__init__(daemon=True)
        self.id = name
        self.bootstrap = bootstrap
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.committed = 0
        self.lives = 0
        self.errors = {}

    def run(self):
        while not self.stopping.is_set():
            self.lives += 1
            try:
                self.live()
            except (KafkaException, Restart) as why:
                name = why.args[0].name() if isinstance(why, KafkaException) else "RESTART"
                self.errors[name] = self.errors.get(name, 0) + 1
                time.sleep(0.01)

    def live(self):
        producer = Producer({
            "bootstrap.servers": self.bootstrap, "transactional.id": self.id, "transaction.timeout.ms": 10000, "linger.ms": 1, **SOON,
        })
        reader = Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "isolation.level": "read_committed", "session.timeout.ms": 6000, "heartbeat.interval.ms": 500, **SOON,
        })
        try:
            producer.init_transactions(30)
            reader.subscribe([SOURCE])
            while not self.stopping.is_set():
                batch = [message for message in reader.consume(20, 0.2) if message.error() is None]
                if batch:
                    self.transform(producer, reader, batch)
        finally:
            reader.close()

    def transform(self, producer, reader, batch):
        producer.begin_transaction()
        for message in batch:
            producer.produce(TARGET, value=message.value(), partition=message.partition())
        ends = {}
        for message in batch:
            ends[message.partition()] = message.offset() + 1
        places = [TopicPartition(SOURCE, partition, offset) for partition, offset in ends.items()]
        try:
            producer.send_offsets_to_transaction(places, reader.consumer_group_metadata(), 30)
            if self.random.random() < 0.03:
                # It dies in the middle, and leaves the transaction open.
                raise Restart
            while True:
                try:
                    producer.commit_transaction(30)
                    break
                except KafkaException as error:
                    if not error.args[0].retriable():
                        raise
            self.committed += len(batch)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                producer.abort_transaction(30)
            # What was read and not committed is read again.
            raise


class Source(threading.Thread):
    """Writes numbers until it is stopped; retries until each is there, once."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2, "message.timeout.ms": 0, **SOON})
        self.sent = 0
        self.faults = []
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            for _ in range(5):
                self.producer.produce(SOURCE, value=str(self.sent), partition=self.sent % PARTITIONS, callback=self._told)
                self.sent += 1
            self.producer.poll(0)
            self.stopping.wait(0.01)
        if self.producer.flush(60):
            self.faults.append("not everything was sent")

    def _told(self, error, _message):
        if error is not None:
            self.faults.append(str(error))


def read_target(bootstrap, count):
    reader = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "eos-check", "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "isolation.level": "read_committed",
    })
    reader.assign([TopicPartition(TARGET, partition, 0) for partition in range(PARTITIONS)])
    values = []

    def step():
        values.extend(int(message.value()) for message in reader.consume(1000, 0.5) if message.error() is None)
        return len(values) >= count

    wait_for(f"{count} records in the target", step, within=120, pause=0)
    # Whatever is there twice comes as well.
    for _ in range(4):
        values.extend(int(message.value()) for message in reader.consume(1000, 0.25) if message.error() is None)
    reader.close()
    return values


def main():
    chance = random.Random(SEED)
    broker = Broker(overrides={"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 2, "transaction.state.log.num.partitions": 2} if AGAINST_KAFKA else {"group.initial.rebalance.delay.ms": 0})
    broker.start()
    bootstrap = broker.bootstrap()
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in (SOURCE, TARGET)]).values():
        future.result(30)
    source = Source(bootstrap)
    workers = [Worker(f"worker-{number}", bootstrap, SEED + number) for number in range(2)]
    for thread in (source, *workers):
        thread.start()
    done = lambda: sum(worker.committed for worker in workers)
    for round_number in range(KILLS):
        before = done()
        wait_for(f"the workers commit something in round {round_number}", lambda before=before: done() > before, within=120, pause=0.01)
        time.sleep(chance.random() * 0.4)
        broker.kill()
        broker.start()
    ok(f"{KILLS} kills of the broker, and the workers go on after each")
    source.stopping.set()
    source.join(120)
    require(not source.faults, "the source is whole", source.faults[:3])
    wait_for("the workers come to the end of the source", lambda: offsets_of(bootstrap) == source.sent, within=180, pause=0.2)
    for worker in workers:
        worker.stopping.set()
    for worker in workers:
        worker.join(60)
    values = read_target(bootstrap, source.sent)
    missing = sorted(set(range(source.sent)) - set(values))
    must(not missing, "nothing is lost", missing[:10])
    must(len(values) == len(set(values)), "nothing is there twice", len(values) - len(set(values)))
    must(all(worker.lives > 1 for worker in workers), "workers died in the middle of transactions, too", [worker.errors for worker in workers])
    print({worker.id: (worker.lives, worker.errors) for worker in workers}, source.sent, flush=True)
    broker.stop()


def offsets_of(bootstrap):
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP, "enable.auto.commit": False})
    try:
        places = reader.committed([TopicPartition(SOURCE, partition) for partition in range(PARTITIONS)], 30)
        return sum(max(place.offset, 0) for place in places)
    except KafkaException:
        return -1
    finally:
        reader.close()


main()
