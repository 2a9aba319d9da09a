// sarama, which picks the version of every call from one configured version of Kafka: so the whole scenario for several.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"milena.test/clients/checks"

	"github.com/IBM/sarama"
)

var codecs = []sarama.CompressionCodec{
	sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
}

func config(version sarama.KafkaVersion) *sarama.Config {
	made := sarama.NewConfig()
	made.Version = version
	made.Producer.Return.Successes = true
	made.Producer.RequiredAcks = sarama.WaitForAll
	made.Consumer.Offsets.Initial = sarama.OffsetOldest
	made.Consumer.Offsets.AutoCommit.Enable = false
	return made
}

// reader consumes as a member of a group until it has seen enough, and commits what it has seen.
type reader struct {
	mutex sync.Mutex
	seen  *checks.Seen
	until int
	done  context.CancelFunc
}

func (*reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case <-session.Context().Done():
			return nil
		case message, open := <-claim.Messages():
			if !open || !r.take(session, message) {
				return nil
			}
		}
	}
}

func (r *reader) take(session sarama.ConsumerGroupSession, message *sarama.ConsumerMessage) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.seen.Count >= r.until {
		return false
	}
	r.seen.Add(message.Partition, message.Offset, string(message.Key), string(message.Value))
	session.MarkMessage(message, "read")
	if r.seen.Count == r.until {
		session.Commit()
		r.done()
	}
	return true
}

func consume(version sarama.KafkaVersion, group, topic string, seen *checks.Seen, until int) {
	ctx, cancel := context.WithTimeout(context.Background(), checks.Deadline)
	defer cancel()
	member, err := sarama.NewConsumerGroup([]string{checks.Bootstrap}, group, config(version))
	checks.NoError(err, "a group's member is made")
	handler := &reader{seen: seen, until: until, done: cancel}
	for ctx.Err() == nil {
		err := member.Consume(ctx, []string{topic}, handler)
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, sarama.ErrClosedConsumerGroup) {
			checks.NoError(err, "the member consumes")
		}
	}
	checks.NoError(member.Close(), "the member leaves")
	checks.Require(seen.Count == until, "records are read in time", seen.Count, until)
}

func produce(version sarama.KafkaVersion, topic, codec string, compression sarama.CompressionCodec) {
	settings := config(version)
	settings.Producer.Compression = compression
	if version.IsAtLeast(sarama.V0_11_0_0) && codec == "none" {
		settings.Producer.Idempotent = true
		settings.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewSyncProducer([]string{checks.Bootstrap}, settings)
	checks.NoError(err, "a producer is made")
	var messages []*sarama.ProducerMessage
	for number := range checks.RecordsPerCodec {
		messages = append(messages, &sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder(checks.Key(number)), Value: sarama.StringEncoder(checks.Value(codec, number)),
		})
	}
	checks.NoError(producer.SendMessages(messages), "records are delivered with "+codec)
	checks.NoError(producer.Close(), "the producer ends")
}

func scenario(version sarama.KafkaVersion) {
	name := version.String()
	topic := "sarama-" + name
	admin, err := sarama.NewClusterAdmin([]string{checks.Bootstrap}, config(version))
	checks.NoError(err, "an admin client is made")
	checks.NoError(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: checks.Partitions, ReplicationFactor: 1}, false), "a topic is created")
	for number, codec := range checks.Codecs {
		produce(version, topic, codec, codecs[number])
	}
	checks.Ok("produces with every compression as of " + name)
	seen := checks.NewSeen()
	consume(version, topic+"-group", topic, seen, checks.Total/2)
	consume(version, topic+"-group", topic, seen, checks.Total)
	seen.EverythingOnce()
	offsets, err := admin.ListConsumerGroupOffsets(topic+"-group", map[string][]int32{topic: {0, 1, 2, 3, 4, 5}})
	checks.NoError(err, "committed offsets are listed")
	sum := int64(0)
	for _, block := range offsets.Blocks[topic] {
		if block.Offset > 0 {
			sum += block.Offset
			checks.Require(block.Metadata == "read", "commit metadata comes back", block.Metadata)
		}
	}
	checks.Must(sum == int64(checks.Total), "the committed offsets are those of the end, as of "+name, fmt.Sprint(sum))
	checks.NoError(admin.DeleteTopic(topic), "a topic is deleted")
	checks.NoError(admin.Close(), "the admin client ends")
}

func main() {
	// Apache Kafka 4 serves clients from 2.1 on (KIP-896).
	for _, version := range []sarama.KafkaVersion{
		sarama.V2_1_0_0, sarama.V2_4_0_0, sarama.V2_8_0_0, sarama.V3_3_0_0, sarama.V3_6_0_0, sarama.V4_0_0_0, sarama.MaxVersion,
	} {
		scenario(version)
	}
}
