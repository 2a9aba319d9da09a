// franz-go: every compression, idempotent and plain, a group that commits and resumes, two members with each balancer.
package main

import (
	"context"
	"fmt"
	"time"

	"milena.test/clients/checks"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const topic = "franz"

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(checks.Bootstrap)}, options...)...)
	checks.NoError(err, "a client is made")
	return made
}

func produce(ctx context.Context, codec string, compression kgo.CompressionCodec, idempotent bool) {
	options := []kgo.Opt{kgo.ProducerBatchCompression(compression), kgo.ProducerLinger(10 * time.Millisecond)}
	if !idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	producer := client(options...)
	defer producer.Close()
	var records []*kgo.Record
	for number := range checks.RecordsPerCodec {
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(checks.Key(number)), Value: []byte(checks.Value(codec, number))})
	}
	checks.NoError(producer.ProduceSync(ctx, records...).FirstErr(), "records are delivered with "+codec)
	checks.Ok("produces with " + codec)
}

func member(group string, balancers ...kgo.GroupBalancer) *kgo.Client {
	options := []kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
	if len(balancers) > 0 {
		options = append(options, kgo.Balancers(balancers...))
	}
	return client(options...)
}

func read(ctx context.Context, consumer *kgo.Client, seen *checks.Seen, count int) {
	for seen.Count < count {
		fetches := consumer.PollRecords(ctx, min(50, count-seen.Count))
		checks.Require(len(fetches.Errors()) == 0, "a fetch has no error", fetches.Errors())
		fetches.EachRecord(func(record *kgo.Record) {
			seen.Add(record.Partition, record.Offset, string(record.Key), string(record.Value))
		})
	}
	checks.NoError(consumer.CommitUncommittedOffsets(ctx), "offsets are committed")
}

func sharing(ctx context.Context, admin *kadm.Client, balancer kgo.GroupBalancer) {
	group := "franz-" + balancer.ProtocolName()
	first, second := member(group, balancer), member(group, balancer)
	poll := func(consumer *kgo.Client) {
		for ctx.Err() == nil {
			if consumer.PollFetches(ctx).IsClientClosed() {
				return
			}
		}
	}
	go poll(first)
	go poll(second)
	checks.WaitFor("two members share with "+balancer.ProtocolName(), func() bool {
		described, err := admin.DescribeGroups(ctx, group)
		checks.NoError(err, "a group is described")
		owned := map[int32]int{}
		for _, member := range described[group].Members {
			assigned, ok := member.Assigned.AsConsumer()
			if !ok {
				return false
			}
			count := 0
			for _, part := range assigned.Topics {
				for _, partition := range part.Partitions {
					owned[partition]++
					count++
				}
			}
			if count != 3 {
				return false
			}
		}
		return len(described[group].Members) == 2 && len(owned) == checks.Partitions && described[group].State == "Stable"
	})
	checks.Ok("two members share six partitions, none twice, with " + balancer.ProtocolName())
	first.Close()
	second.Close()
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*checks.Deadline)
	defer cancel()
	admin := kadm.NewClient(client())
	defer admin.Close()
	_, err := admin.CreateTopic(ctx, checks.Partitions, 1, nil, topic)
	checks.NoError(err, "a topic is created")
	for number, codec := range []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	} {
		produce(ctx, checks.Codecs[number], codec, number%2 == 0)
	}
	seen := checks.NewSeen()
	first := member("franz-group")
	read(ctx, first, seen, checks.Total/2)
	first.Close()
	checks.Ok("a consumer of a group reads half and commits")
	second := member("franz-group")
	read(ctx, second, seen, checks.Total)
	seen.EverythingOnce()
	second.Close()
	lags, err := admin.Lag(ctx, "franz-group")
	checks.NoError(err, "the lag is told")
	checks.Must(lags["franz-group"].Lag.Total() == 0, "the group has no lag left", lags["franz-group"].Lag.Total())
	for _, balancer := range []kgo.GroupBalancer{kgo.RangeBalancer(), kgo.RoundRobinBalancer(), kgo.StickyBalancer(), kgo.CooperativeStickyBalancer()} {
		sharing(ctx, admin, balancer)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	checks.NoError(err, "end offsets are listed")
	sum := int64(0)
	ends.Each(func(offset kadm.ListedOffset) { sum += offset.Offset })
	checks.Must(sum == int64(checks.Total), "the end offsets count the records", fmt.Sprint(sum))
	_, err = admin.DeleteTopics(ctx, topic)
	checks.NoError(err, "a topic is deleted")
	checks.Ok("deletes a topic")
}
