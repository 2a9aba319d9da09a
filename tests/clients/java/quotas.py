"""Quotas as kafka-configs sets them, and what Java's clients feel of them."""

import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import kafka_tool, must
from cluster import Broker

TOPIC = "limited"
RATE = 1_000_000
BYTES = 4_000_000
RECORD = 1_000


def main():
    # Two windows: what is above the quota has to wait after a second, not after ten.
    broker = Broker(overrides={"quota.window.num": 2})
    broker.start()
    server = ["--bootstrap-server", broker.bootstrap()]
    configs = lambda *arguments: kafka_tool("kafka-configs", *server, *arguments)
    kafka_tool("kafka-topics", *server, "--create", "--topic", TOPIC)

    def produce(client_id):
        """Bytes per second, and for how many milliseconds at most the broker had the producer wait."""
        printed = kafka_tool(
            "kafka-producer-perf-test", *server, "--topic", TOPIC, "--num-records", BYTES // RECORD, "--record-size", RECORD,
            "--throughput", "-1", "--print-metrics", "--command-property", f"client.id={client_id}", "acks=all",
        )
        held = float(re.search(r"produce-throttle-time-max:\S+\s*: ([\d.]+)", printed)[1])
        return float(re.findall(r"([\d.]+) records/sec", printed)[-1]) * RECORD, held

    def consume(client_id):
        begin = time.monotonic()
        kafka_tool(
            "kafka-consumer-perf-test", *server, "--topic", TOPIC, "--num-records", BYTES // RECORD, "--timeout", "60000",
            "--command-property", f"client.id={client_id}", "--group", f"group-{client_id}-{begin}",
        )
        return time.monotonic() - begin

    _, held = produce("free")
    must(held == 0, "without a quota a producer does not wait", held)
    configs("--alter", "--entity-type", "clients", "--entity-name", "slow", "--add-config", f"producer_byte_rate={RATE},consumer_byte_rate={RATE}")
    configs("--alter", "--entity-type", "users", "--entity-default", "--add-config", "request_percentage=1000")
    configs("--alter", "--entity-type", "users", "--entity-name", "alice", "--entity-type", "clients", "--entity-default", "--add-config", "controller_mutation_rate=3.5")
    configs("--alter", "--entity-type", "ips", "--entity-name", "127.0.0.9", "--add-config", "connection_creation_rate=7")
    described = configs("--describe", "--entity-type", "clients", "--entity-name", "slow")
    must(f"producer_byte_rate={float(RATE)}" in described and "consumer_byte_rate=" in described, "kafka-configs describes a client's quotas", described)
    described = configs("--describe", "--entity-type", "users", "--entity-name", "alice", "--entity-type", "clients")
    must("controller_mutation_rate=3.5" in described, "and those of a user's clients", described)
    described = configs("--describe", "--entity-type", "users", "--entity-default")
    must("request_percentage=1000.0" in described, "and those of all users", described)
    described = configs("--describe", "--entity-type", "ips")
    must("127.0.0.9" in described and "connection_creation_rate=7" in described, "and those of addresses", described)

    # The users' default comes before the client's own quotas, and sets no rate of bytes.
    slow, held = produce("slow")
    must(slow < 1.9 * RATE and held > 0, "with a quota it is as fast as that, and a second's burst", f"{slow} {held}")
    _, held = produce("free")
    must(held == 0, "others are not held", held)
    unlimited, limited = consume("free"), consume("slow")
    must(limited > unlimited + 1, "a consumer with a quota waits", f"{limited} {unlimited}")

    configs("--alter", "--entity-type", "clients", "--entity-name", "slow", "--delete-config", "producer_byte_rate,consumer_byte_rate")
    must("slow" not in configs("--describe", "--entity-type", "clients"), "a quota that is deleted is gone")
    _, held = produce("slow")
    must(held == 0, "and holds nobody", held)
    broker.stop()


if __name__ == "__main__":
    main()
