// segmentio/kafka-go: every compression, a group that commits and resumes, two readers.
package main

import (
	"context"
	"net"
	"strconv"
	"time"

	"milena.test/clients/checks"

	"github.com/segmentio/kafka-go"
)

const topic = "kafka-go"

func createTopic() {
	connection, err := kafka.Dial("tcp", checks.Bootstrap)
	checks.NoError(err, "the broker is reached")
	defer connection.Close()
	controller, err := connection.Controller()
	checks.NoError(err, "the controller is named")
	admin, err := kafka.Dial("tcp", net.JoinHostPort(controller.Host, strconv.Itoa(controller.Port)))
	checks.NoError(err, "the controller is reached")
	defer admin.Close()
	checks.NoError(admin.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: checks.Partitions, ReplicationFactor: 1}), "a topic is created")
}

func produce(ctx context.Context, codec string, compression kafka.Compression) {
	writer := &kafka.Writer{
		Addr: kafka.TCP(checks.Bootstrap), Topic: topic, Balancer: &kafka.Hash{}, Compression: compression,
		RequiredAcks: kafka.RequireAll, BatchTimeout: 10 * time.Millisecond,
	}
	var messages []kafka.Message
	for number := range checks.RecordsPerCodec {
		messages = append(messages, kafka.Message{Key: []byte(checks.Key(number)), Value: []byte(checks.Value(codec, number))})
	}
	checks.WaitFor("records are delivered with "+codec, func() bool {
		err := writer.WriteMessages(ctx, messages...)
		// kafka-go does not wait for a topic to be known to all; nothing has been written then.
		return err == nil
	})
	checks.NoError(writer.Close(), "the writer ends")
	checks.Ok("produces with " + codec)
}

func reader() *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{checks.Bootstrap}, GroupID: "kafka-go-group", Topic: topic, StartOffset: kafka.FirstOffset,
		MaxWait: 100 * time.Millisecond,
	})
}

func read(ctx context.Context, consumer *kafka.Reader, seen *checks.Seen, count int) {
	for seen.Count < count {
		message, err := consumer.FetchMessage(ctx)
		checks.NoError(err, "a message is fetched")
		seen.Add(int32(message.Partition), message.Offset, string(message.Key), string(message.Value))
		checks.NoError(consumer.CommitMessages(ctx, message), "an offset is committed")
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*checks.Deadline)
	defer cancel()
	createTopic()
	for number, compression := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		produce(ctx, checks.Codecs[number], compression)
	}
	seen := checks.NewSeen()
	first := reader()
	read(ctx, first, seen, checks.Total/2)
	checks.NoError(first.Close(), "the reader leaves")
	checks.Ok("a consumer of a group reads half and commits")
	second := reader()
	read(ctx, second, seen, checks.Total)
	seen.EverythingOnce()
	checks.NoError(second.Close(), "the reader leaves")
}
