// franz-go in share groups: acknowledgement of every type, what is delivered again and how often, several consumers of one
// partition, a crash, and the administration of groups.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"milena.test/clients/checks"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	ctx   = context.Background()
	asker = client()
	admin = kadm.NewClient(asker)
)

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(checks.Bootstrap), kgo.MetadataMinAge(100 * time.Millisecond)}, options...)...)
	checks.NoError(err, "a client is made")
	return made
}

// create makes a topic of one partition, and a share group of the same name that begins with what is there.
func create(name string, settings map[string]string) {
	_, err := admin.CreateTopic(ctx, 1, 1, nil, name)
	checks.NoError(err, "a topic is created")
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, name
	set := func(key, value string) {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Value = key, kmsg.StringPtr(value)
		resource.Configs = append(resource.Configs, config)
	}
	set("share.auto.offset.reset", "earliest")
	set("share.assignment.interval.ms", "0")
	for key, value := range settings {
		set(key, value)
	}
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	answer, err := request.RequestWith(ctx, asker)
	checks.NoError(err, "a group's settings are changed")
	checks.NoError(kerr.ErrorForCode(answer.Resources[0].ErrorCode), "a group's settings are changed")
}

func values(first, last int) (all []string) {
	for number := first; number < last; number++ {
		all = append(all, fmt.Sprintf("v%04d", number))
	}
	return all
}

func fill(topic string, values ...string) {
	var records []*kgo.Record
	for _, value := range values {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(value)})
	}
	checks.NoError(asker.ProduceSync(ctx, records...).FirstErr(), "records are delivered")
}

// member is a consumer of the share group that has its topic's name.
type member struct {
	*kgo.Client
	mutex   sync.Mutex
	refused error
}

func join(name string, options ...kgo.Opt) *member {
	made := &member{}
	made.Client = client(append([]kgo.Opt{
		kgo.ShareGroup(name), kgo.ConsumeTopics(name),
		kgo.ShareAckCallback(func(_ *kgo.Client, results kgo.ShareAckResults) {
			made.mutex.Lock()
			defer made.mutex.Unlock()
			if err := results.Error(); err != nil {
				made.refused = err
			}
		}),
	}, options...)...)
	return made
}

func (m *member) poll() []*kgo.Record {
	limit, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	return m.PollFetches(limit).Records()
}

// take polls until so many records have come. Each poll accepts what the one before gave and nobody marked.
func (m *member) take(count int) (taken []*kgo.Record) {
	checks.WaitFor(fmt.Sprintf("%d records are read", count), func() bool {
		taken = append(taken, m.poll()...)
		return len(taken) >= count
	})
	return taken
}

// flush sends what was marked, and tells that nothing of it was refused.
func (m *member) flush() {
	limit, cancel := context.WithTimeout(ctx, checks.Deadline)
	defer cancel()
	checks.NoError(m.FlushAcks(limit), "acknowledgements are sent")
	m.mutex.Lock()
	defer m.mutex.Unlock()
	checks.NoError(m.refused, "acknowledgements are taken")
}

func texts(records []*kgo.Record) (all []string) {
	for _, record := range records {
		all = append(all, string(record.Value))
	}
	slices.Sort(all)
	return all
}

func acknowledging() {
	const name = "s-acknowledge"
	create(name, nil)
	fill(name, values(0, 10)...)
	one := join(name)
	records := one.take(10)
	checks.Must(slices.Equal(texts(records), values(0, 10)), "all records come", texts(records))
	for number, record := range records {
		checks.Require(record.DeliveryCount() == 1, "for the first time", record.DeliveryCount())
		status := kgo.AckAccept
		switch number {
		case 7:
			status = kgo.AckRenew
		case 8:
			status = kgo.AckRelease
		case 9:
			status = kgo.AckReject
		}
		record.Ack(status)
	}
	one.flush()
	records[7].Ack(kgo.AckAccept)
	one.flush()
	checks.Ok("records are accepted, renewed, released and rejected one by one, and a renewed one is accepted after")
	fill(name, "x-last")
	again := one.take(2)
	checks.Must(slices.Equal(texts(again), []string{"v0008", "x-last"}), "what was released comes again, and nothing else", texts(again))
	for _, record := range again {
		if string(record.Value) == "v0008" {
			checks.Must(record.DeliveryCount() == 2, "for the second time", record.DeliveryCount())
		}
	}
	one.MarkAcks(kgo.AckAccept)
	one.flush()
	checks.WaitFor("nothing is left", func() bool { return lag(name) == 0 })
	checks.Ok("the group has no lag left")
	one.Close()
}

// lag is how many records of its topic a group has not settled.
func lag(name string) int64 {
	described, err := admin.DescribeShareGroupOffsets(ctx, name)
	checks.NoError(err, "offsets are described")
	offset, found := described[name].Offsets.Lookup(name, 0)
	if !found || offset.Err != nil {
		return -1
	}
	return offset.Lag
}

func deliveryLimit() {
	const name = "s-limit"
	create(name, map[string]string{"share.delivery.count.limit": "3"})
	fill(name, "poison")
	one := join(name)
	var deliveries []int32
	ended := false
	step := func() {
		for _, record := range one.poll() {
			if string(record.Value) == "poison" {
				deliveries = append(deliveries, record.DeliveryCount())
				record.Ack(kgo.AckRelease)
			} else {
				ended = true
				record.Ack(kgo.AckAccept)
			}
		}
		one.flush()
	}
	checks.WaitFor("it is delivered three times", func() bool { step(); return len(deliveries) >= 3 })
	fill(name, "end")
	checks.WaitFor("the end is seen", func() bool { step(); return ended })
	checks.Must(slices.Equal(deliveries, []int32{1, 2, 3}), "a record that is released again and again is delivered up to share.delivery.count.limit", deliveries)
	one.Close()
}

func sharing() {
	const name, count = "s-shared", 2000
	create(name, nil)
	var mutex sync.Mutex
	parts := make([][]*kgo.Record, 3)
	stop, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	for number := range parts {
		one := join(name, kgo.ShareMaxRecords(10), kgo.ShareMaxRecordsStrict())
		group.Go(func() {
			for stop.Err() == nil {
				records := one.PollFetches(stop).Records()
				mutex.Lock()
				parts[number] = append(parts[number], records...)
				mutex.Unlock()
				one.MarkAcks(kgo.AckAccept)
				one.flush()
			}
			one.Close()
		})
	}
	all := func() (all []*kgo.Record) {
		mutex.Lock()
		defer mutex.Unlock()
		return slices.Concat(parts...)
	}
	// Else the first may have read all before the others are told to.
	checks.WaitFor("all have the partition", func() bool {
		described, err := admin.DescribeShareGroups(ctx, name)
		checks.NoError(err, "a share group is described")
		members := described[name].Members
		return len(members) == len(parts) && !slices.ContainsFunc(members, func(member kadm.ShareGroupMember) bool {
			return len(member.Assignment) == 0
		})
	})
	for first := 0; first < count; first += 20 {
		fill(name, values(first, first+20)...)
	}
	checks.WaitFor("all is read", func() bool { return len(all()) >= count })
	described, err := admin.DescribeShareGroups(ctx, name)
	checks.NoError(err, "a share group is described")
	checks.Must(described[name].GroupState == "Stable" && len(described[name].Members) == 3, "a share group is described with its members", described[name])
	listed, err := admin.ListGroupsByType(ctx, []string{"share"})
	checks.NoError(err, "groups are listed")
	checks.Must(slices.Contains(listed.Groups(), name), "and listed by its type", listed.Groups())
	cancel()
	group.Wait()
	checks.Must(slices.Equal(texts(all()), values(0, count)), "three consumers share one partition, each record is delivered once", len(all()))
	checks.Must(len(parts[0]) > 0 && len(parts[1]) > 0 && len(parts[2]) > 0, "and each of them has its share", len(parts[0]), len(parts[1]), len(parts[2]))
}

func crash() {
	const name = "s-crash"
	create(name, nil)
	fill(name, values(0, 10)...)
	other := exec.Command(os.Args[0], "hold", name)
	said, err := other.StdoutPipe()
	checks.NoError(err, "another process can be heard")
	checks.NoError(other.Start(), "another process starts")
	line := make([]byte, 5)
	_, err = said.Read(line)
	checks.NoError(err, "it says that it has the records")
	checks.NoError(other.Process.Kill(), "it is killed")
	_ = other.Wait()
	heir := join(name)
	records := heir.take(5)
	checks.Must(slices.Equal(texts(records), values(5, 10)), "what a crashed consumer had not acknowledged is delivered to another", texts(records))
	for _, record := range records {
		checks.Require(record.DeliveryCount() == 2, "for the second time", record.DeliveryCount())
	}
	heir.MarkAcks(kgo.AckAccept)
	heir.flush()
	heir.Close()
}

// hold is the other process: it accepts half of the records and holds the rest until it is killed.
func hold(name string) {
	one := join(name)
	records := one.take(10)
	one.MarkAcks(kgo.AckAccept, records[:5]...)
	one.flush()
	fmt.Println("holds")
	time.Sleep(2 * checks.Deadline)
}

func offsets() {
	const name = "s-offsets"
	create(name, nil)
	fill(name, values(0, 10)...)
	one := join(name)
	one.take(10)
	one.MarkAcks(kgo.AckAccept)
	one.flush()
	one.Close()
	to := kadm.Offsets{}
	to.AddOffset(name, 0, 6, -1)
	checks.WaitFor("the group is empty and its offset altered", func() bool {
		answer, err := admin.AlterShareGroupOffsets(ctx, name, to)
		return err == nil && answer.Ok()
	})
	two := join(name)
	records := two.take(4)
	checks.Must(slices.Equal(texts(records), values(6, 10)), "a group goes on where its offset was altered to", texts(records))
	two.MarkAcks(kgo.AckAccept)
	two.flush()
	two.Close()
	checks.WaitFor("the group is empty and deleted", func() bool {
		_, err := admin.DeleteGroup(ctx, name)
		return err == nil
	})
	listed, err := admin.ListGroupsByType(ctx, []string{"share"})
	checks.NoError(err, "groups are listed")
	checks.Must(!slices.Contains(listed.Groups(), name), "an empty group is deleted", listed.Groups())
}

func main() {
	if len(os.Args) == 3 {
		hold(os.Args[2])
		return
	}
	acknowledging()
	deliveryLimit()
	sharing()
	crash()
	offsets()
}
