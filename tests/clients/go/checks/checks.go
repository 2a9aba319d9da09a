// Package checks is what the Go suites share: results that xtask can count, the records, and what must hold of them.
package checks

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	Partitions      = 6
	RecordsPerCodec = 200
	Deadline        = 60 * time.Second
)

var (
	Codecs    = []string{"none", "gzip", "snappy", "lz4", "zstd"}
	Bootstrap = os.Getenv("BOOTSTRAP")
	Total     = len(Codecs) * RecordsPerCodec
)

// Ok shows a sentence to be true.
func Ok(sentence string) { fmt.Println("ok " + sentence) }

// Must shows a sentence to be true, or ends the suite.
func Must(condition bool, sentence string, detail ...any) {
	Require(condition, sentence, detail...)
	Ok(sentence)
}

// Require is a condition on the way, too small to be counted.
func Require(condition bool, sentence string, detail ...any) {
	if !condition {
		fmt.Println("not ok " + sentence)
		fmt.Println(append([]any{"  "}, detail...)...)
		os.Exit(1)
	}
}

// NoError ends the suite on an error.
func NoError(err error, what string) { Require(err == nil, what, err) }

// WaitFor asks until the condition holds; it ends the suite at the deadline.
func WaitFor(what string, condition func() bool) {
	deadline := time.Now().Add(Deadline)
	for !condition() {
		Require(time.Now().Before(deadline), what+" in time")
		time.Sleep(20 * time.Millisecond)
	}
}

func Value(codec string, number int) string {
	return fmt.Sprintf("%s-%05d-%s", codec, number, strings.Repeat("the same words compress well ", 4))
}

func Key(number int) string { return fmt.Sprintf("key-%d", number%20) }

// Seen is what a group of consumers has read.
type Seen struct {
	offsets       map[int32]int64
	partitionOf   map[string]int32
	lastOfKey     map[string]int
	values        map[string]bool
	Count         int
	orderIsFaulty bool
}

func NewSeen() *Seen {
	return &Seen{map[int32]int64{}, map[string]int32{}, map[string]int{}, map[string]bool{}, 0, false}
}

func (s *Seen) Add(partition int32, offset int64, key, value string) {
	if last, known := s.offsets[partition]; known {
		Require(offset > last, "offsets only go up", partition, offset, last)
	}
	s.offsets[partition] = offset
	if first, known := s.partitionOf[key]; known {
		Require(first == partition, "a key stays in one partition", key, first, partition)
	}
	s.partitionOf[key] = partition
	parts := strings.SplitN(value, "-", 3)
	number, err := strconv.Atoi(parts[1])
	NoError(err, "the value is one that was sent")
	Require(value == Value(parts[0], number), "the value is one that was sent", value)
	order := parts[0] + key
	if last, known := s.lastOfKey[order]; known && last >= number {
		s.orderIsFaulty = true
	}
	s.lastOfKey[order] = number
	s.values[value] = true
	s.Count++
}

// EverythingOnce shows what a group must have read in the end.
func (s *Seen) EverythingOnce() {
	Must(s.Count == Total && len(s.values) == Total, "the next goes on at the commits: everything once", s.Count, len(s.values))
	Must(!s.orderIsFaulty, "records of a key come in the order in which they were sent")
}
