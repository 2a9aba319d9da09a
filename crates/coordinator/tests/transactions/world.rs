//! The world: network, coordinator with its stored facts, groups, partitions, and the tasks that end
//! transactions.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use milena_coordinator::{
    AddPartitions, Effects, EndTransaction, FactChange, GroupConfig, Groups, Reply, Ticket,
    TransactionConfig, Transactions,
};
use milena_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use milena_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use milena_protocol::messages::{EndTxnRequest, InitProducerIdRequest};
use milena_protocol::{ErrorCode, Str, Uuid};

use super::check::{Seen, check};
use super::log::{Log, Refusal};
use super::producer::Producer;
use super::random::Random;

pub(crate) const PARTITIONS: usize = 3;
const NAMES: [usize; 2] = [0, 1];
const STEPS: usize = 400;
const TIMEOUT_MS: i32 = 60_000;
const END_TXN_VERSION: i16 = 5;
const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// A bug that is planted, to show that it would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    /// The transaction counts as complete before its markers are written.
    LateMarker,
    /// Partitions take what a fenced producer sends.
    MissedFence,
    LastStableTooHigh,
    /// Offsets take effect before the decision is stored.
    OffsetsBeforeMarkers,
}

impl Mutant {
    pub(crate) const ALL: [Self; 4] = [
        Self::LateMarker,
        Self::MissedFence,
        Self::LastStableTooHigh,
        Self::OffsetsBeforeMarkers,
    ];
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    Init,
    Produce {
        producer: (i64, i16),
        partition: usize,
        sequence: i32,
        value: u64,
    },
    Offset {
        producer: (i64, i16),
        offset: i64,
    },
    End {
        producer: (i64, i16),
        commit: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Done,
    Given(i64, i16),
    /// To be tried again.
    Again,
    /// The transaction is to be aborted.
    Abort,
    Fatal,
}

/// On its way to the broker; or, once asked, what goes on when the coordinator answers.
#[derive(Debug, Clone, Copy)]
struct Sent {
    from: usize,
    attempt: u64,
    name: usize,
    request: Request,
    guard: Option<u64>,
}

/// A decision that is not stored yet.
struct Unstored {
    facts: Vec<FactChange>,
    replies: Vec<(Ticket, Reply)>,
    tasks: Vec<EndTransaction>,
}

/// How far the end of a transaction is.
struct Ending {
    task: EndTransaction,
    markers_left: Vec<usize>,
    offsets_left: bool,
}

pub(crate) struct World {
    random: Random,
    mutant: Mutant,
    now_ms: i64,
    transactions: Transactions,
    stored: BTreeMap<Bytes, Bytes>,
    unstored: VecDeque<Unstored>,
    loads: i32,
    groups: Groups,
    group_facts: BTreeMap<Bytes, Bytes>,
    logs: Vec<Log>,
    producers: Vec<Producer>,
    network: Vec<Sent>,
    asked: BTreeMap<Ticket, Sent>,
    endings: Vec<Ending>,
    next_ticket: u64,
    next_producer_id: i64,
    next_value: u64,
    /// What committed readers have read so far, by partition.
    read: Vec<Vec<u64>>,
    offsets: Vec<Vec<i64>>,
    pub(crate) crashes: usize,
    pub(crate) fenced: usize,
}

fn name(at: usize) -> Str {
    Str::from(format!("tx{at}"))
}

fn topic() -> Str {
    Str::from("topic")
}

fn put(rows: &mut BTreeMap<Bytes, Bytes>, facts: Vec<FactChange>) {
    for fact in facts {
        match fact.value {
            Some(value) => rows.insert(fact.key, value),
            None => rows.remove(&fact.key),
        };
    }
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            mutant,
            now_ms: 1_700_000_000_000,
            transactions: Transactions::new(TransactionConfig::default()),
            stored: BTreeMap::new(),
            unstored: VecDeque::new(),
            loads: 0,
            groups: Groups::new(GroupConfig::default(), || Uuid::ZERO),
            group_facts: BTreeMap::new(),
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            producers: NAMES.into_iter().map(Producer::new).collect(),
            network: Vec::new(),
            asked: BTreeMap::new(),
            endings: Vec::new(),
            next_ticket: 0,
            next_producer_id: 1_000,
            next_value: 0,
            read: vec![Vec::new(); PARTITIONS],
            offsets: vec![Vec::new(); NAMES.len()],
            crashes: 0,
            fenced: 0,
        };
        world.load();
        world.groups.load(world.now_ms, Vec::new()).unwrap();
        world
    }

    pub(crate) fn commits(&self) -> usize {
        self.offsets.iter().map(Vec::len).sum::<usize>() + self.read.iter().map(Vec::len).sum::<usize>()
    }

    fn load(&mut self) {
        self.loads += 1;
        self.unstored.clear();
        self.asked.clear();
        self.endings.clear();
        let rows: Vec<_> = self.stored.clone().into_iter().collect();
        let effects = self.transactions.load(self.now_ms, self.loads, rows).unwrap();
        self.decide(effects);
    }

    fn decide(&mut self, effects: Effects) {
        self.transactions.check_invariants();
        let Effects {
            facts,
            replies,
            tasks,
        } = effects;
        if self.mutant == Mutant::OffsetsBeforeMarkers {
            for task in &tasks {
                self.end_offsets(task.producer_id, task.commit);
            }
        }
        self.unstored.push_back(Unstored {
            facts,
            replies,
            tasks,
        });
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.read_on();
        }
        self.settle();
        self.read_on();
        let transactions = self
            .producers
            .iter()
            .flat_map(|producer| &producer.done)
            .collect();
        check(&Seen {
            transactions,
            records: self.read.clone(),
            offsets: self.offsets.clone(),
        });
    }

    fn step(&mut self) {
        match self.random.between(0, 100) {
            0..35 => self.client(),
            35..60 => self.deliver(),
            60..78 => self.store(),
            78..92 => self.end_something(),
            92..94 => self.crash(),
            94..96 => {
                // Somebody starts the same producer again; the old one does not know.
                let name = *self.random.pick(&NAMES);
                self.producers.push(Producer::new(name));
            }
            _ => self.pass_time(),
        }
    }

    fn pass_time(&mut self) {
        self.now_ms += self.random.between(1, 15_000);
        let effects = self.transactions.tick(self.now_ms);
        self.decide(effects);
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.load();
        let rows: Vec<_> = self.group_facts.clone().into_iter().collect();
        self.groups.load(self.now_ms, rows).unwrap();
    }

    fn client(&mut self) {
        let at = self.random.between(0, self.producers.len() as i64) as usize;
        let producer = &mut self.producers[at];
        // Whoever waits sends again now and then: its request or the reply may be lost.
        if producer.is_dead() || (producer.waiting && !self.random.chance(15)) {
            return;
        }
        let request = producer.request();
        self.network.push(Sent {
            from: at,
            attempt: producer.attempt,
            name: producer.name,
            request,
            guard: None,
        });
    }

    /// Some request arrives: lost, in its turn, too late, or for the second time.
    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.random.between(0, self.network.len() as i64) as usize;
        let sent = match self.random.chance(12) {
            true => self.network[at],
            false => self.network.swap_remove(at),
        };
        if !self.random.chance(6) {
            self.handle(sent);
        }
    }

    fn ask(&mut self, sent: Sent, ask: impl FnOnce(&mut Transactions, i64, Ticket, i64) -> Effects) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.next_producer_id += 1;
        self.asked.insert(ticket, sent);
        let effects = ask(&mut self.transactions, self.now_ms, ticket, self.next_producer_id);
        self.decide(effects);
    }

    fn handle(&mut self, mut sent: Sent) {
        let id = name(sent.name);
        let add = |producer: (i64, i16), partition| AddPartitions {
            transactional_id: id.clone(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            partitions: vec![partition],
            verify_only: false,
            bumps_epoch: true,
        };
        match sent.request {
            Request::Init => {
                let request = InitProducerIdRequest {
                    transactional_id: Some(id),
                    transaction_timeout_ms: TIMEOUT_MS,
                    ..InitProducerIdRequest::default()
                };
                self.ask(sent, |transactions, now_ms, ticket, fresh| {
                    transactions.init_producer_id(now_ms, ticket, &request, fresh)
                });
            }
            Request::End { producer, commit } => {
                let request = EndTxnRequest {
                    transactional_id: id,
                    producer_id: producer.0,
                    producer_epoch: producer.1,
                    committed: commit,
                    ..EndTxnRequest::default()
                };
                self.ask(sent, |transactions, now_ms, ticket, fresh| {
                    transactions.end(now_ms, ticket, END_TXN_VERSION, &request, fresh)
                });
            }
            Request::Offset { producer, .. } => {
                let request = add(producer, (Str::from(OFFSETS_TOPIC), 0));
                self.ask(sent, |transactions, now_ms, ticket, _| {
                    transactions.add_partitions(now_ms, ticket, &request)
                });
            }
            Request::Produce {
                producer, partition, ..
            } => {
                let log = &mut self.logs[partition];
                if log.has_open(self.mutant, producer.0, producer.1) {
                    return self.append(sent);
                }
                sent.guard = Some(log.guard(producer.0));
                let request = add(producer, (topic(), partition as i32));
                self.ask(sent, |transactions, now_ms, ticket, _| {
                    transactions.add_partitions(now_ms, ticket, &request)
                });
            }
        }
    }

    fn append(&mut self, sent: Sent) {
        let Request::Produce {
            producer,
            partition,
            sequence,
            value,
        } = sent.request
        else {
            unreachable!("only batches are appended");
        };
        let appended = self.logs[partition].append(self.mutant, producer, sequence, value, sent.guard);
        let answer = match appended {
            Ok(_) => Answer::Done,
            Err(Refusal::Fenced) => Answer::Fatal,
            Err(Refusal::NotVerified | Refusal::OutOfOrder) => Answer::Abort,
        };
        self.answer(sent, answer);
    }

    fn answer(&mut self, sent: Sent, answer: Answer) {
        let producer = &mut self.producers[sent.from];
        let is_lost = self.random.chance(8);
        // A client looks at the answer to its last try only.
        if is_lost || producer.attempt != sent.attempt || !producer.waiting {
            return;
        }
        if producer.hear(answer, &mut self.random, &mut self.next_value) {
            self.fenced += 1;
        }
    }

    /// The oldest decision is stored: its replies leave, its tasks begin.
    fn store(&mut self) {
        let Some(Unstored {
            facts,
            replies,
            tasks,
        }) = self.unstored.pop_front()
        else {
            return;
        };
        put(&mut self.stored, facts);
        for task in tasks {
            let of_topic = |(name, _): &&(Str, i32)| **name == *"topic";
            let markers = task.partitions.iter().filter(of_topic);
            self.endings.push(Ending {
                markers_left: markers.map(|(_, partition)| *partition as usize).collect(),
                offsets_left: task.partitions.iter().any(|(name, _)| **name == *OFFSETS_TOPIC),
                task,
            });
        }
        for (ticket, reply) in replies {
            if let Some(sent) = self.asked.remove(&ticket) {
                self.replied(sent, reply);
            }
        }
    }

    fn replied(&mut self, sent: Sent, reply: Reply) {
        let answer = match reply {
            Reply::InitProducerId(given) => match ErrorCode::from_code(given.error_code) {
                ErrorCode::None => Answer::Given(given.producer_id, given.producer_epoch),
                error => of_error(error),
            },
            Reply::EndTxn(given) => match ErrorCode::from_code(given.error_code) {
                ErrorCode::None => Answer::Given(given.producer_id, given.producer_epoch),
                error => of_error(error),
            },
            Reply::AddPartitions(errors) => match (errors[0], sent.request) {
                (ErrorCode::None, Request::Produce { .. }) => return self.append(sent),
                (ErrorCode::None, Request::Offset { producer, offset }) => {
                    self.commit_offset(sent.name, producer, offset)
                }
                (error, _) => of_error(error),
            },
            other => unreachable!("{other:?}"),
        };
        self.answer(sent, answer);
    }

    fn commit_offset(&mut self, name_at: usize, producer: (i64, i16), offset: i64) -> Answer {
        // As the broker's lock of the producer sees to: the transaction is open still.
        let described = self.transactions.describe(&name(name_at));
        let is_open = &*described.transaction_state == "Ongoing"
            && (described.producer_id, described.producer_epoch) == producer;
        if !is_open {
            return Answer::Abort;
        }
        let request = TxnOffsetCommitRequest {
            transactional_id: name(name_at),
            group_id: name(name_at),
            producer_id: producer.0,
            producer_epoch: producer.1,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: topic(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
                ..TxnOffsetCommitRequestTopic::default()
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let effects = self
            .groups
            .commit_transactional_offsets(self.now_ms, Ticket(0), &request);
        put(&mut self.group_facts, effects.facts);
        Answer::Done
    }

    /// One marker is written, or the offsets take effect, or it is noted that all is done.
    fn end_something(&mut self) {
        if self.endings.is_empty() {
            return;
        }
        let at = self.random.between(0, self.endings.len() as i64) as usize;
        let producer = (
            self.endings[at].task.producer_id,
            self.endings[at].task.producer_epoch,
        );
        let commit = self.endings[at].task.commit;
        if self.mutant == Mutant::LateMarker && self.random.chance(30) {
            let task = self.endings[at].task.clone();
            let effects = self.transactions.ended(self.now_ms, &task);
            self.decide(effects);
        }
        if !self.endings[at].markers_left.is_empty() {
            let left = self.endings[at].markers_left.len() as i64;
            let next = self.random.between(0, left) as usize;
            let partition = self.endings[at].markers_left[next];
            self.logs[partition].end(producer, commit);
            // The answer may be lost: then it is written again.
            if !self.random.chance(15) {
                self.endings[at].markers_left.swap_remove(next);
            }
        } else if self.endings[at].offsets_left {
            self.endings[at].offsets_left = self.random.chance(15);
            self.end_offsets(producer.0, commit);
        } else {
            let task = self.endings.swap_remove(at).task;
            let effects = self.transactions.ended(self.now_ms, &task);
            self.decide(effects);
        }
    }

    fn end_offsets(&mut self, producer_id: i64, commit: bool) {
        let before: Vec<i64> = NAMES.into_iter().map(|at| self.committed(at)).collect();
        let effects = self.groups.end_transaction(producer_id, commit);
        put(&mut self.group_facts, effects.facts);
        for (at, before) in before.into_iter().enumerate() {
            let after = self.committed(at);
            if after != before {
                self.offsets[at].push(after);
            }
        }
    }

    fn committed(&self, at: usize) -> i64 {
        let request = OffsetFetchRequestGroup {
            group_id: name(at),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        };
        let fetched = self.groups.fetch_offsets(&request, false);
        fetched
            .topics
            .first()
            .map_or(-1, |topic| topic.partitions[0].committed_offset)
    }

    /// A committed reader goes on: what it has read once stays read.
    fn read_on(&mut self) {
        for (log, read) in self.logs.iter().zip(&mut self.read) {
            let now = log.read_committed(log.last_stable(self.mutant));
            assert!(
                now.starts_with(read),
                "what was read has changed: {read:?} to {now:?}"
            );
            *read = now;
        }
    }

    /// The faults stop, clients too; what is open times out, and everything ends.
    fn settle(&mut self) {
        self.network.clear();
        for producer in self.producers.iter_mut().filter(|producer| !producer.is_dead()) {
            producer.finish();
        }
        for _ in 0..2 {
            while !self.unstored.is_empty() || !self.endings.is_empty() {
                self.store();
                self.end_something();
            }
            self.now_ms += i64::from(TIMEOUT_MS);
            let effects = self.transactions.tick(self.now_ms);
            self.decide(effects);
        }
        assert!(
            self.logs.iter().all(|log| !log.has_any_open()),
            "a transaction hangs: readers would wait for ever"
        );
    }
}

fn of_error(error: ErrorCode) -> Answer {
    match error {
        ErrorCode::ConcurrentTransactions => Answer::Again,
        ErrorCode::TransactionAbortable => Answer::Abort,
        _ => Answer::Fatal,
    }
}
