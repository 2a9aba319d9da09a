//! The world: network, coordinator with its stored facts, groups, partitions, and the tasks that end
//! transactions.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use milena_coordinator::{
    AddPartitions, Effects, EndTransaction, FactChange, Reply, Ticket, TransactionConfig, Transactions,
};
use milena_protocol::messages::{EndTxnRequest, InitProducerIdRequest};
use milena_protocol::{ErrorCode, Str};

use super::check::{Seen, check};
use super::group::Offsets;
use super::log::{Log, Refusal};
use super::mutant::Mutant;
use super::producer::Producer;
use super::random::Random;

pub(crate) const PARTITIONS: usize = 3;
const NAMES: [usize; 2] = [0, 1];
const STEPS: usize = 400;
const TIMEOUT_MS: i32 = 60_000;
/// Behind the value's version and the producer id.
const EPOCH_IN_VALUE: usize = 2 + 8;
/// As long as an id may be unused, and longer.
const LONG_MS: i64 = 8 * 24 * 60 * 60 * 1000;
const MOST_SET_BACK_MS: i64 = 120_000;
const OFFSETS_TOPIC: &str = "__consumer_offsets";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    Init {
        goes_on: Option<(i64, i16)>,
    },
    Add {
        producer: (i64, i16),
        partition: usize,
    },
    AddOffsets {
        producer: (i64, i16),
    },
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
    offsets: Offsets,
    /// Who was given which producer id and epoch.
    given: BTreeMap<(i64, i16), usize>,
    /// By name, whoever initialised last: those before are fenced.
    newest: Vec<Option<usize>>,
    set_back_ms: i64,
    /// In the other lives fewer crash, and transactions follow each other for longer.
    is_rough: bool,
    pub(crate) crashes: usize,
    pub(crate) fenced: usize,
}

pub(crate) fn name(at: usize) -> Str {
    Str::from(format!("tx{at}"))
}

pub(crate) fn topic() -> Str {
    Str::from("topic")
}

pub(crate) fn put(rows: &mut BTreeMap<Bytes, Bytes>, facts: Vec<FactChange>) {
    for fact in facts {
        match fact.value {
            Some(value) => rows.insert(fact.key, value),
            None => rows.remove(&fact.key),
        };
    }
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let now_ms = 1_700_000_000_000;
        let mut world = Self {
            random: Random::new(seed),
            mutant,
            now_ms,
            transactions: Transactions::new(TransactionConfig::default()),
            stored: BTreeMap::new(),
            unstored: VecDeque::new(),
            loads: 0,
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            producers: Vec::new(),
            network: Vec::new(),
            asked: BTreeMap::new(),
            endings: Vec::new(),
            next_ticket: 0,
            next_producer_id: 1_000,
            next_value: 0,
            read: vec![Vec::new(); PARTITIONS],
            offsets: Offsets::new(mutant, NAMES.len(), now_ms),
            given: BTreeMap::new(),
            newest: vec![None; NAMES.len()],
            set_back_ms: 0,
            is_rough: seed.is_multiple_of(2),
            crashes: 0,
            fenced: 0,
        };
        world.load();
        for name in NAMES {
            world.start_producer(name);
        }
        if world.random.chance(30) {
            world.use_up_epochs();
        }
        world
    }

    pub(crate) fn commits(&self) -> usize {
        self.offsets.effective.iter().map(Vec::len).sum::<usize>()
            + self.read.iter().map(Vec::len).sum::<usize>()
    }

    fn load(&mut self) {
        self.loads += 1;
        self.unstored.clear();
        self.asked.clear();
        // The tasks of the load before may run on.
        if self.random.chance(50) {
            self.endings.clear();
        }
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
                self.offsets.end(task.producer_id, task.commit);
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
            offsets: self.offsets.effective.clone(),
        });
    }

    fn step(&mut self) {
        let is_rough = self.is_rough || self.random.chance(20);
        match self.random.between(0, 100) {
            78..92 if !self.endings.is_empty() => self.end_something(),
            60..92 if !self.unstored.is_empty() => self.store(),
            35..92 if !self.network.is_empty() => self.deliver(),
            0..92 => self.client(),
            92..94 if is_rough => self.crash(),
            94 if is_rough => {
                // Somebody starts the same producer again; the old one does not know.
                let name = *self.random.pick(&NAMES);
                self.start_producer(name);
            }
            92..95 => self.deliver(),
            95 => self.offset_beside(),
            _ => self.pass_time(),
        }
    }

    fn start_producer(&mut self, name: usize) {
        let bumps_epoch = self.random.chance(60);
        self.producers.push(Producer::new(name, bumps_epoch));
    }

    /// As if the ids had been used for long: few epochs are left.
    fn use_up_epochs(&mut self) {
        for at in NAMES {
            self.next_producer_id += 1;
            let request = init_request(at, None);
            let fresh = self.next_producer_id;
            let effects = self
                .transactions
                .init_producer_id(self.now_ms, Ticket(0), &request, fresh);
            let left = self.random.between(1, 12) as i16;
            for fact in effects.facts {
                let mut value = fact.value.unwrap().to_vec();
                value[EPOCH_IN_VALUE..EPOCH_IN_VALUE + 2].copy_from_slice(&(i16::MAX - left).to_be_bytes());
                self.stored.insert(fact.key, value.into());
            }
        }
        self.load();
    }

    /// Somebody commits or deletes a group's offset, with no transaction.
    fn offset_beside(&mut self) {
        let group = *self.random.pick(&NAMES);
        if self.random.chance(30) {
            return self.offsets.delete(group);
        }
        self.next_value += 1;
        self.offsets.commit(self.now_ms, group, self.next_value as i64);
    }

    fn pass_time(&mut self) {
        match self.random.between(0, 100) {
            0..3 => self.now_ms += LONG_MS,
            3..15 => {
                let back_ms = self.random.between(1, MOST_SET_BACK_MS);
                self.set_back_ms += back_ms;
                self.now_ms -= back_ms;
            }
            _ => self.now_ms += self.random.between(1, 15_000),
        }
        let effects = self.transactions.tick(self.now_ms);
        self.decide(effects);
        let is_ending = |at| {
            let described = self.transactions.describe(&name(at));
            described.transaction_state.starts_with("Prepare")
        };
        if self.mutant == Mutant::ExpiresTooEarly && NAMES.into_iter().any(is_ending) {
            self.stored.clear();
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.load();
        self.offsets.load(self.now_ms);
    }

    fn client(&mut self) {
        let name = *self.random.pick(&NAMES);
        let is_alive = |at: &usize| self.producers[*at].name == name && !self.producers[*at].is_dead();
        let alive: Vec<usize> = (0..self.producers.len()).filter(is_alive).collect();
        let Some(last) = alive.last() else {
            return self.start_producer(name);
        };
        let at = match self.random.chance(80) {
            true => *last,
            false => *self.random.pick(&alive),
        };
        let producer = &mut self.producers[at];
        // Whoever waits sends again now and then: its request or the reply may be lost.
        if producer.waiting && !self.random.chance(15) {
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
        let twice = if self.mutant == Mutant::OvertakenRequests {
            50
        } else {
            12
        };
        let sent = match self.random.chance(twice) {
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
        let bumps_epoch = self.producers[sent.from].bumps_epoch;
        let add = |producer: (i64, i16), partition, verify_only| AddPartitions {
            transactional_id: id.clone(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            partitions: vec![partition],
            verify_only,
            bumps_epoch,
        };
        match sent.request {
            Request::Init { goes_on } => {
                let mut request = init_request(sent.name, goes_on);
                let described = self.transactions.describe(&id);
                if self.mutant == Mutant::MissedFenceOfInit && goes_on.is_some() {
                    request.producer_id = described.producer_id;
                    request.producer_epoch = described.producer_epoch;
                }
                let is_old_id = self.mutant == Mutant::OldProducerId;
                self.ask(sent, |transactions, now_ms, ticket, fresh| {
                    let fresh = if is_old_id { 1_000 } else { fresh };
                    transactions.init_producer_id(now_ms, ticket, &request, fresh)
                });
            }
            Request::Add { producer, partition } => {
                let request = add(producer, (topic(), partition as i32), false);
                self.ask(sent, |transactions, now_ms, ticket, _| {
                    transactions.add_partitions(now_ms, ticket, &request)
                });
            }
            Request::AddOffsets { producer } => {
                let request = add(producer, (Str::from(OFFSETS_TOPIC), 0), false);
                self.ask(sent, |transactions, now_ms, ticket, _| {
                    transactions.add_partitions(now_ms, ticket, &request)
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
                    transactions.end(now_ms, ticket, if bumps_epoch { 5 } else { 4 }, &request, fresh)
                });
            }
            Request::Offset { producer, .. } => {
                let request = add(producer, (Str::from(OFFSETS_TOPIC), 0), !bumps_epoch);
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
                let request = add(producer, (topic(), partition as i32), !bumps_epoch);
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
        // What it sent before is read from its connection before what it sends next. Only an epoch for each
        // transaction (KIP-890) makes it safe to do without that.
        if !producer.bumps_epoch && self.mutant != Mutant::OvertakenRequests {
            self.network.retain(|other| other.from != sent.from);
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
        for at in NAMES {
            // Of an id that expired nothing is known: whoever had it may have it again.
            let is_of_id = |key: &Bytes| key.ends_with(name(at).as_bytes());
            if !self.stored.keys().any(is_of_id) {
                self.newest[at] = None;
            }
        }
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
            Reply::InitProducerId(given) => {
                self.given(sent, given.error_code, (given.producer_id, given.producer_epoch))
            }
            Reply::EndTxn(given) => {
                self.given(sent, given.error_code, (given.producer_id, given.producer_epoch))
            }
            Reply::AddPartitions(errors) => match (errors[0], sent.request) {
                (ErrorCode::None, Request::Produce { .. }) => return self.append(sent),
                (ErrorCode::None, Request::Offset { producer, offset }) => {
                    self.commit_offset(sent.name, producer, offset)
                }
                (ErrorCode::None, _) => Answer::Done,
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
        self.offsets.give(self.now_ms, name_at, producer, offset);
        Answer::Done
    }

    /// No two clients have the same epoch, and none that was fenced goes on.
    fn given(&mut self, sent: Sent, error_code: i16, producer: (i64, i16)) -> Answer {
        match ErrorCode::from_code(error_code) {
            ErrorCode::None => {}
            error => return of_error(error),
        }
        if matches!(sent.request, Request::Init { goes_on: None }) {
            self.newest[sent.name] = Some(sent.from);
        }
        let newest = *self.newest[sent.name].get_or_insert(sent.from);
        assert_eq!(newest, sent.from, "a fenced client goes on with {producer:?}");
        assert!(producer.1 < i16::MAX, "the last epoch is for fencing alone");
        let holder = *self.given.entry(producer).or_insert(sent.from);
        assert_eq!(holder, sent.from, "two clients have {producer:?}");
        Answer::Given(producer.0, producer.1)
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
        // What a load before this one began may take long.
        if self.endings[at].task.coordinator_epoch < self.loads && !self.random.chance(10) {
            return;
        }
        if self.mutant == Mutant::LateMarker && self.random.chance(30) {
            let task = self.endings[at].task.clone();
            let effects = self.transactions.ended(self.now_ms, &task);
            self.decide(effects);
        }
        let ending = &mut self.endings[at];
        if !ending.markers_left.is_empty() {
            let left = ending.markers_left.len() as i64;
            let next = self.random.between(0, left) as usize;
            let log = &mut self.logs[ending.markers_left[next]];
            if !log.end(self.mutant, producer, ending.task.coordinator_epoch, commit) {
                // Another load does it.
                self.endings.swap_remove(at);
            } else if !self.random.chance(15) {
                // Otherwise the answer is lost, and it is written again.
                ending.markers_left.swap_remove(next);
            }
        } else if ending.offsets_left {
            ending.offsets_left = self.random.chance(15);
            if self.transactions.is_to_be_ended(&ending.task) || self.mutant == Mutant::StaleOffsets {
                self.offsets.end(producer.0, commit);
            } else {
                self.endings.swap_remove(at);
            }
        } else {
            let task = self.endings.swap_remove(at).task;
            let effects = self.transactions.ended(self.now_ms, &task);
            self.decide(effects);
        }
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
            self.now_ms += i64::from(TIMEOUT_MS) + self.set_back_ms;
            let effects = self.transactions.tick(self.now_ms);
            self.decide(effects);
        }
        assert!(
            self.logs.iter().all(|log| !log.has_any_open()),
            "a transaction hangs: readers would wait for ever"
        );
        assert!(!self.offsets.has_pending(), "an offset stays pending");
    }
}

fn init_request(at: usize, goes_on: Option<(i64, i16)>) -> InitProducerIdRequest {
    let (producer_id, producer_epoch) = goes_on.unwrap_or((-1, -1));
    InitProducerIdRequest {
        transactional_id: Some(name(at)),
        transaction_timeout_ms: TIMEOUT_MS,
        producer_id,
        producer_epoch,
        ..InitProducerIdRequest::default()
    }
}

fn of_error(error: ErrorCode) -> Answer {
    match error {
        ErrorCode::ConcurrentTransactions => Answer::Again,
        ErrorCode::TransactionAbortable => Answer::Abort,
        _ => Answer::Fatal,
    }
}
