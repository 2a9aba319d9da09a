"""Clients push their metrics by themselves (KIP-714): Java's and librdkafka's, and a consumer reads them."""

import os

from confluent_kafka import Consumer, Producer

from checks import Process, kafka_tool, must, require, wait_for

BOOTSTRAP = os.environ["BOOTSTRAP"]
KAFKA_BIN = os.environ["KAFKA_BIN"]
TOPIC = "measured"
NAME = "all-producers"


def metrics_tool(*arguments):
    return kafka_tool("kafka-client-metrics", "--bootstrap-server", BOOTSTRAP, *arguments)


def main():
    kafka_tool("kafka-topics", "--bootstrap-server", BOOTSTRAP, "--create", "--topic", TOPIC)
    metrics_tool("--alter", "--name", NAME, "--metrics", "org.apache.kafka.producer.", "--interval", "200")
    must(NAME in metrics_tool("--list").split(), "kafka-client-metrics lists the subscription")
    described = metrics_tool("--describe", "--name", NAME)
    must("interval.ms=200" in described and "org.apache.kafka.producer." in described, "and describes it", described)

    java = Process([
        f"{KAFKA_BIN}/kafka-producer-perf-test", "--bootstrap-server", BOOTSTRAP, "--topic", TOPIC, "--num-records", "1000000",
        "--record-size", "10", "--throughput", "100", "--command-property", "client.id=java-producer",
    ])
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "client.id": "librdkafka-producer"})
    consumer = Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": "collector", "auto.offset.reset": "earliest",
        # The topic is made by the first push.
        "topic.metadata.refresh.interval.ms": 500,
    })
    consumer.subscribe(["__client_metrics"])
    pushed = {}

    def everybody_has_pushed():
        producer.produce(TOPIC, b"x")
        producer.poll(0)
        message = consumer.poll(0.2)
        if message is not None and not message.error():
            headers = {name: value.decode() for name, value in message.headers()}
            if b"org.apache.kafka.producer." in message.value():
                require(message.key().decode() == headers["client_instance_id"], f"{headers['client_id']} has one id")
                pushed[headers["client_id"]] = headers["client_software_name"]
        return len(pushed) == 2

    wait_for("metrics of both producers", everybody_has_pushed, pause=0)
    must(
        pushed == {"java-producer": "apache-kafka-java", "librdkafka-producer": "confluent-kafka-python"},
        "a consumer reads whose they are", pushed,
    )
    java.kill()
    producer.flush(10)
    consumer.close()
    metrics_tool("--delete", "--name", NAME)
    must(NAME not in metrics_tool("--list").split(), "kafka-client-metrics deletes the subscription")


if __name__ == "__main__":
    main()
