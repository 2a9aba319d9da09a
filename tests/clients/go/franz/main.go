// franz-go: every compression, idempotent and plain, a group that commits and resumes, two members with each balancer,
// transactions.
package main

import (
	"context"
	"fmt"
	"slices"
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

// readCommitted gives the values of a topic as a committed reader sees them, up to the last stable offsets.
func readCommitted(ctx context.Context, admin *kadm.Client, from string) []string {
	ends, err := admin.ListCommittedOffsets(ctx, from)
	checks.NoError(err, "stable offsets are listed")
	left := int64(0)
	ends.Each(func(offset kadm.ListedOffset) { left += offset.Offset })
	reader := client(kgo.ConsumeTopics(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer reader.Close()
	var values []string
	reached := map[int32]int64{}
	sum := func() (all int64) {
		for _, offset := range reached {
			all += offset
		}
		return all
	}
	for sum() < left {
		fetches := reader.PollFetches(ctx)
		checks.Require(len(fetches.Errors()) == 0, "a fetch has no error", fetches.Errors())
		fetches.EachRecord(func(record *kgo.Record) {
			reached[record.Partition] = record.Offset + 1
			if !record.Attrs.IsControl() {
				values = append(values, string(record.Value))
			}
		})
	}
	slices.Sort(values)
	return values
}

func transactions(ctx context.Context, admin *kadm.Client) {
	const source, target = "franz-source", "franz-target"
	_, err := admin.CreateTopics(ctx, 1, 1, nil, source, target)
	checks.NoError(err, "topics are created")
	plain := client()
	defer plain.Close()
	for number := range 100 {
		record := &kgo.Record{Topic: source, Value: []byte(fmt.Sprintf("%03d", number))}
		checks.NoError(plain.ProduceSync(ctx, record).FirstErr(), "the source is filled")
	}
	// Consume, transform, produce; every third round is aborted, and what it read comes again.
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(checks.Bootstrap), kgo.TransactionalID("franz-eos"), kgo.ConsumerGroup("franz-eos"), kgo.ConsumeTopics(source),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RequireStableFetchOffsets(),
	)
	checks.NoError(err, "a session is made")
	taken := 0
	for round := 1; taken < 100; round++ {
		fetches := session.PollRecords(ctx, 15)
		checks.Require(len(fetches.Errors()) == 0, "a fetch has no error", fetches.Errors())
		if fetches.NumRecords() == 0 {
			continue
		}
		checks.NoError(session.Begin(), "a transaction begins")
		fetches.EachRecord(func(record *kgo.Record) {
			session.Produce(ctx, &kgo.Record{Topic: target, Value: append([]byte("t"), record.Value...)}, nil)
		})
		committed, err := session.End(ctx, kgo.TransactionEndTry(round%3 != 0))
		checks.NoError(err, "a transaction ends")
		if committed {
			taken += fetches.NumRecords()
		}
	}
	session.Close()
	var expected []string
	for number := range 100 {
		expected = append(expected, fmt.Sprintf("t%03d", number))
	}
	checks.WaitFor("all is seen", func() bool { return len(readCommitted(ctx, admin, target)) >= 100 })
	values := readCommitted(ctx, admin, target)
	checks.Must(slices.Equal(values, expected), "consume-transform-produce: each record once, although transactions were aborted", len(values))
	offsets, err := admin.FetchOffsets(ctx, "franz-eos")
	checks.NoError(err, "offsets are told")
	at, _ := offsets.Lookup(source, 0)
	checks.Must(at.At == 100, "the group's offset is that of the committed transactions", at.At)

	zombie := client(kgo.TransactionalID("franz-fenced"))
	defer zombie.Close()
	checks.NoError(zombie.BeginTransaction(), "a transaction begins")
	checks.NoError(zombie.ProduceSync(ctx, &kgo.Record{Topic: target, Value: []byte("lost")}).FirstErr(), "a record is sent")
	successor := client(kgo.TransactionalID("franz-fenced"))
	defer successor.Close()
	checks.NoError(successor.BeginTransaction(), "a transaction begins")
	checks.NoError(successor.ProduceSync(ctx, &kgo.Record{Topic: target, Value: []byte("u-kept")}).FirstErr(), "a record is sent")
	checks.NoError(successor.EndTransaction(ctx, kgo.TryCommit), "the successor commits")
	checks.Must(zombie.EndTransaction(ctx, kgo.TryCommit) != nil, "a fenced producer cannot commit")
	checks.WaitFor("the successor's record is seen", func() bool {
		values := readCommitted(ctx, admin, target)
		return len(values) == 101 && values[100] == "u-kept"
	})
	_, err = admin.DeleteTopics(ctx, source, target)
	checks.NoError(err, "topics are deleted")
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
	transactions(ctx, admin)
	ends, err := admin.ListEndOffsets(ctx, topic)
	checks.NoError(err, "end offsets are listed")
	sum := int64(0)
	ends.Each(func(offset kadm.ListedOffset) { sum += offset.Offset })
	checks.Must(sum == int64(checks.Total), "the end offsets count the records", fmt.Sprint(sum))
	_, err = admin.DeleteTopics(ctx, topic)
	checks.NoError(err, "a topic is deleted")
	checks.Ok("deletes a topic")
}
