// franz-go in consumer groups of KIP-848: members join, leave, crash and come back as static members, follow a pattern that
// the broker resolves, and take a group of the classic protocol over while it is in use.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
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
	options = append([]kgo.Opt{kgo.SeedBrokers(checks.Bootstrap), kgo.MetadataMinAge(100 * time.Millisecond)}, options...)
	made, err := kgo.NewClient(append(options, kgo.MetadataMaxAge(time.Second))...)
	checks.NoError(err, "a client is made")
	return made
}

func create(topic string, partitions int32) {
	_, err := admin.CreateTopic(ctx, partitions, 1, nil, topic)
	checks.NoError(err, "a topic is created")
}

// fast makes a group notice within seconds who crashed.
func fast(group string) { configure(group, "5000") }

func configure(group, session string) {
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	for name, value := range map[string]string{
		"consumer.session.timeout.ms": session, "consumer.heartbeat.interval.ms": "300", "consumer.assignment.interval.ms": "100",
	} {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Value = name, kmsg.StringPtr(value)
		resource.Configs = append(resource.Configs, config)
	}
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	answer, err := request.RequestWith(ctx, asker)
	checks.NoError(err, "a group's settings are changed")
	checks.NoError(kerr.ErrorForCode(answer.Resources[0].ErrorCode), "a group's settings are changed")
}

func fill(topic string, first, last int) {
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	var records []*kgo.Record
	for number := first; number < last; number++ {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(number % checks.Partitions), Value: fmt.Append(nil, number)})
	}
	checks.NoError(producer.ProduceSync(ctx, records...).FirstErr(), "records are delivered")
}

// member is a consumer that polls in the background and tells what it owns and has read.
type member struct {
	client *kgo.Client
	mutex  sync.Mutex
	owned  map[string]bool
	read   []string
	lost   int
	// How often it was given or lost something.
	changes int
}

func join(group string, options ...kgo.Opt) *member {
	made := &member{owned: map[string]bool{}}
	change := func(owns bool, partitions map[string][]int32) {
		made.mutex.Lock()
		defer made.mutex.Unlock()
		for topic, numbers := range partitions {
			made.changes += len(numbers)
			for _, number := range numbers {
				if name := fmt.Sprintf("%s-%d", topic, number); owns {
					made.owned[name] = true
				} else {
					delete(made.owned, name)
				}
			}
		}
	}
	made.client = client(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(300 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) { change(true, partitions) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, partitions map[string][]int32) {
			// What is given up was read and is committed, so that the next owner goes on behind it.
			checks.NoError(client.CommitUncommittedOffsets(ctx), "offsets are committed")
			change(false, partitions)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			made.lost++
			change(false, partitions)
		}),
		// A rebalance waits until what was polled is taken note of.
		kgo.BlockRebalanceOnPoll(), kgo.DisableAutoCommit(),
	}, options...)...)
	go made.poll()
	return made
}

func (m *member) poll() {
	for {
		limit, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		fetches := m.client.PollFetches(limit)
		cancel()
		if fetches.IsClientClosed() {
			return
		}
		m.mutex.Lock()
		fetches.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				fmt.Println("a member is told:", err)
			}
		})
		fetches.EachRecord(func(record *kgo.Record) { m.read = append(m.read, string(record.Value)) })
		m.mutex.Unlock()
		m.client.AllowRebalance()
	}
}

func newProtocol() []kgo.Opt {
	return []kgo.Opt{kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())}
}

func (m *member) owns() []string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return slices.Sorted(maps.Keys(m.owned))
}

func (m *member) changed() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.changes
}

func (m *member) has() []string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return slices.Clone(m.read)
}

func (m *member) leave() { m.client.CloseAllowingRebalance() }

func everything(topic string) (all []string) {
	for number := range checks.Partitions {
		all = append(all, fmt.Sprintf("%s-%d", topic, number))
	}
	return all
}

// waitBalanced waits until every partition has one owner, and nobody has two more than another.
func waitBalanced(topic string, members ...*member) {
	checks.WaitFor(fmt.Sprintf("%d members share %s", len(members), topic), func() bool {
		var all []string
		fewest, most := checks.Partitions, 0
		for _, one := range members {
			owned := one.owns()
			all = append(all, owned...)
			fewest, most = min(fewest, len(owned)), max(most, len(owned))
		}
		slices.Sort(all)
		return slices.Equal(all, everything(topic)) && most-fewest <= 1
	})
}

func waitRead(count int, members ...*member) {
	checks.WaitFor(fmt.Sprintf("%d records are read", count), func() bool { return len(allRead(members...)) >= count })
}

func allRead(members ...*member) (all []string) {
	for _, one := range members {
		all = append(all, one.has()...)
	}
	return all
}

func onceEach(count int, members ...*member) bool {
	read := allRead(members...)
	distinct := map[string]bool{}
	for _, value := range read {
		distinct[value] = true
	}
	return len(read) == count && len(distinct) == count
}

func joiningAndLeaving() {
	create("g-join", checks.Partitions)
	fast("g-join")
	fill("g-join", 0, 600)
	options := append(newProtocol(), kgo.ConsumeTopics("g-join"))
	first := join("g-join", options...)
	waitRead(600, first)
	second, third := join("g-join", options...), join("g-join", options...)
	waitBalanced("g-join", first, second, third)
	checks.WaitFor("the group is described", func() bool {
		described, err := admin.DescribeConsumerGroups(ctx, "g-join")
		checks.NoError(err, "a group is described")
		group := described["g-join"]
		return group.State == "Stable" && group.AssignorName == "uniform" && len(group.Members) == 3
	})
	checks.Ok("three members share six partitions, and are described")
	fill("g-join", 600, 1200)
	waitRead(1200, first, second, third)
	first.leave()
	waitBalanced("g-join", second, third)
	fill("g-join", 1200, 1800)
	waitRead(1800, first, second, third)
	checks.Must(onceEach(1800, first, second, third), "over joins and a leave every record is read once", len(allRead(first, second, third)))
	second.leave()
	third.leave()
}

// crashing has a member in a process of its own, which is killed.
func crashing() {
	create("g-crash", checks.Partitions)
	fast("g-crash")
	stays := join("g-crash", append(newProtocol(), kgo.ConsumeTopics("g-crash"))...)
	waitBalanced("g-crash", stays)
	other := exec.Command(os.Args[0], "member", "g-crash")
	other.Stdout, other.Stderr = os.Stdout, os.Stderr
	checks.NoError(other.Start(), "another process starts")
	defer other.Process.Kill()
	checks.WaitFor("they share", func() bool { return len(stays.owns()) == checks.Partitions/2 })
	checks.NoError(other.Process.Kill(), "it is killed")
	waitBalanced("g-crash", stays)
	fill("g-crash", 0, 60)
	waitRead(60, stays)
	checks.Must(onceEach(60, stays), "who crashed is gone after its session's time, and the other takes over from it")
	stays.leave()
}

func patterns() {
	fast("g-pattern")
	create("g-pattern-a", checks.Partitions)
	create("g-other", checks.Partitions)
	follower := join("g-pattern", append(newProtocol(), kgo.ConsumeRegex(), kgo.ConsumeTopics("^g-pattern-.*"))...)
	waitBalanced("g-pattern-a", follower)
	create("g-pattern-b", checks.Partitions)
	both := append(everything("g-pattern-a"), everything("g-pattern-b")...)
	checks.WaitFor("both topics are owned", func() bool { return slices.Equal(follower.owns(), both) })
	checks.Ok("a pattern, which the broker resolves, finds a topic that is created later, and no other")
	follower.leave()
}

// leaveForAWhile is how a static member goes that will come back. franz-go 1.22 sends its leave (epoch -2) without the instance
// id, which is refused; the member would be in the group until its session's time is over. So what the client no longer can do
// is done for it: it is closed, so that no heartbeat of its own brings it back.
func (m *member) leaveForAWhile(group, instance string) {
	id, _ := m.client.GroupMetadata()
	err := m.client.LeaveGroupContext(ctx)
	m.leave()
	if errors.Is(err, kerr.InvalidRequest) {
		request := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		request.Group, request.MemberID, request.MemberEpoch, request.InstanceID = group, id, -2, &instance
		answer, asked := request.RequestWith(ctx, asker)
		checks.NoError(asked, "a static member leaves")
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	checks.NoError(err, "a static member leaves")
}

// described is what the broker says of a group.
func described(group string) kmsg.ConsumerGroupDescribeResponseGroup {
	request := kmsg.NewPtrConsumerGroupDescribeRequest()
	request.Groups = []string{group}
	answer, err := request.RequestWith(ctx, asker)
	checks.NoError(err, "a group is described")
	return answer.Groups[0]
}

func staticMembers() {
	create("g-static", checks.Partitions)
	// Who is away for a moment shall not be taken for gone, however busy the machine is.
	configure("g-static", "60000")
	options := func(name string) []kgo.Opt {
		return append(newProtocol(), kgo.ConsumeTopics("g-static"), kgo.InstanceID(name))
	}
	one, two := join("g-static", options("one")...), join("g-static", options("two")...)
	waitBalanced("g-static", one, two)
	checks.WaitFor("the group is at rest", func() bool { return described("g-static").State == "Stable" })
	had, others, before := one.owns(), two.owns(), described("g-static")
	changes := two.changed()
	id, _ := one.client.GroupMetadata()
	one.leaveForAWhile("g-static", "one")
	away := slices.ContainsFunc(described("g-static").Members, func(member kmsg.ConsumerGroupDescribeResponseGroupMember) bool {
		return member.MemberID == id && member.MemberEpoch == -2
	})
	checks.Must(away, "a static member that leaves stays in the group, away")
	again := join("g-static", options("one")...)
	checks.WaitFor(fmt.Sprintf("it has what it had, %v", had), func() bool { return slices.Equal(again.owns(), had) })
	after := described("g-static")
	same := after.State == "Stable" && after.Epoch == before.Epoch && after.AssignmentEpoch == before.AssignmentEpoch
	checks.Must(same && two.changed() == changes && slices.Equal(two.owns(), others),
		"under its instance id it comes back to its partitions, and nobody else is bothered", after.State, before.Epoch, after.Epoch)
	again.leave()
	two.leave()
}

func upgrade() {
	create("g-upgrade", checks.Partitions)
	fast("g-upgrade")
	classic := []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ConsumeTopics("g-upgrade")}
	members := []*member{join("g-upgrade", classic...), join("g-upgrade", classic...)}
	waitBalanced("g-upgrade", members...)
	fill("g-upgrade", 0, 300)
	waitRead(300, members...)
	everyone := slices.Clone(members)
	for range 2 {
		entering := join("g-upgrade", append(newProtocol(), kgo.ConsumeTopics("g-upgrade"))...)
		everyone = append(everyone, entering)
		members = append(members, entering)
		waitBalanced("g-upgrade", members...)
		members[0].leave()
		members = members[1:]
		waitBalanced("g-upgrade", members...)
	}
	listed, err := admin.ListGroupsByType(ctx, []string{"consumer"})
	checks.NoError(err, "groups are listed")
	checks.Must(slices.Contains(listed.Groups(), "g-upgrade"), "classic members are replaced one by one, and the group is a consumer group", strings.Join(listed.Groups(), " "))
	fill("g-upgrade", 300, 600)
	waitRead(600, everyone...)
	checks.Must(onceEach(600, everyone...), "over the change every record is read once", len(allRead(everyone...)))
	for _, one := range members {
		one.leave()
	}
}

func main() {
	if len(os.Args) == 3 {
		// The other process: a member until it is killed, and not for longer than the suite.
		join(os.Args[2], append(newProtocol(), kgo.ConsumeTopics(os.Args[2]))...)
		time.Sleep(2 * checks.Deadline)
		return
	}
	joiningAndLeaving()
	crashing()
	patterns()
	staticMembers()
	upgrade()
}
