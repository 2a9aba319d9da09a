//! A share partition, its log, its members, and the oracle that knows what must hold.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use milena_coordinator::{
    AcknowledgementBatch, Acquire, AcquiredRecords, Effects, FetchStart, LogBatch, LogView, Reply,
    SharePartitionConfig, SharePartitionKey, SharePartitions, Ticket, TopicImage, TopicInfo,
};
use milena_protocol::messages::initialize_share_group_state_request as initialize;
use milena_protocol::{Str, Uuid};

use crate::mutant::Mutant;
use crate::random::Random;

const STEPS: usize = 250;
const MEMBERS: [&str; 4] = ["m0", "m1", "m2", "m3"];
const LIMIT: i16 = 4;
const LOCK_MS: i64 = 30_000;

/// A fetch that has read, and has not acquired yet.
struct Pending {
    member: &'static str,
    ask: Acquire,
}

pub(crate) struct World {
    random: Random,
    mutant: Mutant,
    machine: SharePartitions,
    stored: BTreeMap<Bytes, Bytes>,
    key: SharePartitionKey,
    now_ms: i64,
    next_ticket: u64,
    log: Vec<LogBatch>,
    log_start: i64,
    log_end: i64,
    aborted: BTreeSet<i64>,
    /// What members know that they have.
    held: BTreeMap<&'static str, BTreeSet<i64>>,
    /// Who has acquired what, and until when.
    owners: BTreeMap<i64, (&'static str, i64)>,
    done: BTreeSet<i64>,
    delivered: BTreeSet<i64>,
    pending: Vec<Pending>,
    start: i64,
    pub(crate) crashes: usize,
    pub(crate) timeouts: usize,
    pub(crate) last_deliveries: usize,
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let key = SharePartitionKey {
            group: Str::from("g/%"),
            topic_id: Uuid::from_bytes([7; 16]),
            partition: 3,
        };
        let mut world = Self {
            random: Random::new(seed),
            mutant,
            machine: SharePartitions::new(),
            stored: BTreeMap::new(),
            key,
            now_ms: 1_000_000,
            next_ticket: 0,
            log: Vec::new(),
            log_start: 0,
            log_end: 0,
            aborted: BTreeSet::new(),
            held: BTreeMap::new(),
            owners: BTreeMap::new(),
            done: BTreeSet::new(),
            delivered: BTreeSet::new(),
            pending: Vec::new(),
            start: 0,
            crashes: 0,
            timeouts: 0,
            last_deliveries: 0,
        };
        world.initialize();
        world
    }

    fn initialize(&mut self) {
        let mut topics = TopicImage::default();
        topics.put(TopicInfo {
            id: self.key.topic_id,
            name: Str::from("t"),
            partitions: 4,
            is_internal: false,
        });
        let partition = initialize::PartitionData {
            partition: self.key.partition,
            state_epoch: 1,
            start_offset: -1,
            ..initialize::PartitionData::default()
        };
        let request = initialize::InitializeShareGroupStateRequest {
            group_id: self.key.group.clone(),
            topics: vec![initialize::InitializeStateData {
                topic_id: self.key.topic_id,
                partitions: vec![partition],
                ..initialize::InitializeStateData::default()
            }],
            ..initialize::InitializeShareGroupStateRequest::default()
        };
        let ticket = self.ticket();
        let effects = self.machine.initialize(self.now_ms, ticket, &topics, &request);
        self.store(&effects);
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn config(&self) -> SharePartitionConfig {
        SharePartitionConfig {
            partition_max_record_locks: 60,
            delivery_count_limit: LIMIT + i16::from(self.mutant == Mutant::WrongLimit),
            record_lock_duration_ms: i32::try_from(LOCK_MS).unwrap(),
            renewals_enabled: true,
        }
    }

    fn store(&mut self, effects: &Effects) {
        for fact in &effects.facts {
            match &fact.value {
                Some(value) => self.stored.insert(fact.key.clone(), value.clone()),
                None => self.stored.remove(&fact.key),
            };
        }
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.come_to_rest();
    }

    fn step(&mut self) {
        match self.random.between(0, 100) {
            0..18 => self.append(),
            18..40 => self.begin_fetch(),
            40..60 => self.finish_fetch(),
            60..82 => self.acknowledge(),
            82..88 => self.pass_time(),
            88..91 => self.leave(),
            91..94 => self.lose_beginning(),
            94..96 => self.compact(),
            96..97 if self.mutant == Mutant::ForgetsLocks => self.reload(),
            _ => self.crash(),
        }
    }

    fn append(&mut self) {
        let size = self.random.between(1, 12);
        let batch = LogBatch {
            base: self.log_end,
            last: self.log_end + size - 1,
        };
        if self.random.chance(15) {
            self.aborted.extend(batch.base..=batch.last);
        }
        self.log_end += size;
        self.log.push(batch);
    }

    /// Batches go from the middle of the log.
    fn compact(&mut self) {
        if self.log.len() > 3 {
            let at = usize::try_from(self.random.between(0, self.log.len() as i64 - 1)).unwrap();
            self.log.remove(at);
        }
    }

    fn lose_beginning(&mut self) {
        self.log_start = self
            .log_start
            .max(self.random.between(self.log_start, self.log_end + 1));
        let log_start = self.log_start;
        self.log.retain(|batch| batch.last >= log_start);
    }

    fn fetch_start(&mut self) -> Option<i64> {
        let view = LogView {
            start: self.log_start,
            leader_epoch: 0,
        };
        let mut reset = None;
        loop {
            let (key, config, ticket) = (self.key.clone(), self.config(), self.ticket());
            let effects = self
                .machine
                .fetch_start(self.now_ms, ticket, &key, &config, view, reset);
            self.store(&effects);
            match effects.replies.first() {
                Some((_, Reply::ShareFetchStart(Ok(FetchStart::At(offset))))) => return Some(*offset),
                Some((_, Reply::ShareFetchStart(Ok(FetchStart::Full)))) => return None,
                Some((_, Reply::ShareFetchStart(Ok(FetchStart::Reset)))) => reset = Some(0),
                other => panic!("{other:?}"),
            }
        }
    }

    fn begin_fetch(&mut self) {
        let member = *self.random.pick(&MEMBERS);
        let Some(offset) = self.fetch_start() else {
            return;
        };
        let wanted = self.random.between(1, 6);
        let mut batches: Vec<LogBatch> = self
            .log
            .iter()
            .filter(|batch| batch.last >= offset.max(self.log_start))
            .take(usize::try_from(wanted).unwrap())
            .copied()
            .collect();
        if self.mutant == Mutant::SkipsABatch && batches.len() > 1 {
            batches.remove(0);
        }
        let aborted = batches.iter().filter(|batch| self.aborted.contains(&batch.base));
        let aborted = match self.mutant {
            Mutant::MissesAborts => Vec::new(),
            _ => aborted.copied().collect(),
        };
        let ask = Acquire {
            member: Str::from(member),
            strictly_limited: self.random.chance(30),
            batch_size: i32::try_from(self.random.between(1, 20)).unwrap(),
            max_records: i32::try_from(self.random.between(1, 30)).unwrap(),
            fetch_offset: offset,
            batches,
            aborted,
        };
        self.pending.push(Pending { member, ask });
    }

    fn finish_fetch(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let at = usize::try_from(self.random.between(0, self.pending.len() as i64)).unwrap();
        let Pending { member, ask } = self.pending.remove(at);
        let arrives = !self.random.chance(10);
        self.acquire(member, &ask, arrives);
    }

    fn acquire(&mut self, member: &'static str, ask: &Acquire, arrives: bool) -> usize {
        let (key, config, ticket) = (self.key.clone(), self.config(), self.ticket());
        let effects = self.machine.acquire(self.now_ms, ticket, &key, &config, ask);
        self.store(&effects);
        let Some((_, Reply::ShareAcquire(acquired))) = effects.replies.into_iter().next() else {
            panic!("no reply");
        };
        let count: i64 = acquired
            .iter()
            .map(|records| records.last - records.first + 1)
            .sum();
        if ask.strictly_limited {
            assert!(count <= i64::from(ask.max_records), "{count} of {ask:?}");
        }
        for records in &acquired {
            self.acquired(member, *records, arrives);
        }
        acquired.len()
    }

    fn acquired(&mut self, member: &'static str, records: AcquiredRecords, arrives: bool) {
        assert!((1..=LIMIT).contains(&records.delivery_count), "{records:?}");
        self.last_deliveries += usize::from(records.delivery_count == LIMIT);
        for offset in records.first..=records.last {
            assert!(
                !self.done.contains(&offset),
                "{offset} was acknowledged, and came again"
            );
            if self
                .log
                .iter()
                .any(|batch| (batch.base..=batch.last).contains(&offset))
            {
                assert!(!self.aborted.contains(&offset), "{offset} was aborted");
            }
            let until_ms = self.now_ms + LOCK_MS;
            if let Some((owner, until_ms)) = self.owners.insert(offset, (member, until_ms)) {
                panic!("{offset} is {owner}'s until {until_ms} and {member}'s");
            }
            if arrives {
                self.held.entry(member).or_default().insert(offset);
            }
            // A record whose deliveries are all lost on their way is used up.
            if arrives || records.delivery_count == LIMIT {
                self.delivered.insert(offset);
            }
        }
    }

    fn acknowledge(&mut self) {
        let member = *self.random.pick(&MEMBERS);
        let held: Vec<i64> = self.held.get(member).into_iter().flatten().copied().collect();
        if held.is_empty() {
            return;
        }
        let from = usize::try_from(self.random.between(0, held.len() as i64)).unwrap();
        let count = usize::try_from(self.random.between(1, 12)).unwrap();
        let offsets: Vec<i64> = held.into_iter().skip(from).take(count).collect();
        let kinds = [0_i8, 1, 1, 1, 2, 2, 3, 4];
        let one = *self.random.pick(&kinds);
        let (first, mut last) = (offsets[0], offsets[0]);
        for offset in &offsets[1..] {
            if *offset == last + 1 {
                last = *offset;
            }
        }
        let count = usize::try_from(last - first + 1).unwrap();
        let types: Vec<i8> = match self.random.chance(50) {
            true => vec![one],
            false => (0..count).map(|_| *self.random.pick(&kinds)).collect(),
        };
        let batch = AcknowledgementBatch { first, last, types };
        self.acknowledge_as(member, &batch);
        if self.random.chance(10) {
            // The reply was lost, and the member says it once more.
            self.acknowledge_as(member, &batch);
        }
    }

    fn acknowledge_as(&mut self, member: &'static str, batch: &AcknowledgementBatch) {
        let (key, config, ticket) = (self.key.clone(), self.config(), self.ticket());
        let start = self.machine.start_offset(&key).unwrap();
        let batches = std::slice::from_ref(batch);
        let effects = self
            .machine
            .acknowledge(self.now_ms, ticket, &key, &config, member, batches);
        let crashes = self.random.chance(3);
        let is_lost = match self.mutant {
            Mutant::ForgetsAcknowledgements => true,
            Mutant::AnswersTooEarly => crashes,
            _ => false,
        };
        if !is_lost && !crashes {
            self.store(&effects);
        }
        let done = matches!(
            effects.replies.first(),
            Some((_, Reply::ShareAcknowledge(Ok(()))))
        );
        if done && (!crashes || is_lost) {
            for offset in batch.first..=batch.last {
                let index = usize::try_from(offset - batch.first).unwrap();
                let kind = batch.types.get(index).or(batch.types.first()).copied().unwrap();
                self.acknowledged(member, offset, kind, offset < start);
            }
        }
        if crashes {
            self.crash();
        }
    }

    fn acknowledged(&mut self, member: &'static str, offset: i64, kind: i8, was_gone: bool) {
        if was_gone {
            self.held.entry(member).or_default().remove(&offset);
            return;
        }
        match self.owners.get_mut(&offset) {
            Some((owner, until_ms)) if *owner == member => {
                *until_ms = self.now_ms + LOCK_MS;
            }
            // What the log does not hold any more is in no batch after a crash, and is acknowledged with its neighbours.
            None if !self
                .log
                .iter()
                .any(|batch| (batch.base..=batch.last).contains(&offset)) => {}
            other => panic!("{member} acknowledged {offset} of {other:?}"),
        }
        if kind == 4 {
            return;
        }
        self.owners.remove(&offset);
        self.held.entry(member).or_default().remove(&offset);
        if kind != 2 {
            self.done.insert(offset);
        }
    }

    fn pass_time(&mut self) {
        self.now_ms += self.random.between(1, LOCK_MS);
        if self.mutant == Mutant::NoTimeouts {
            return;
        }
        let effects = self.machine.tick(self.now_ms);
        self.store(&effects);
        let (before, now_ms) = (self.owners.len(), self.now_ms);
        self.owners.retain(|_, (_, until_ms)| *until_ms > now_ms);
        self.timeouts += before - self.owners.len();
        assert!(self.machine.next_deadline_ms().is_none_or(|at_ms| at_ms > now_ms));
    }

    /// A member's session ends.
    fn leave(&mut self) {
        let member = *self.random.pick(&MEMBERS);
        let keys = [self.key.clone()];
        let effects = self.machine.release_member(self.now_ms, &keys, member);
        self.store(&effects);
        self.owners.retain(|_, (owner, _)| *owner != member);
        self.held.remove(member);
    }

    fn crash(&mut self) {
        self.reload();
        self.owners.clear();
        self.crashes += 1;
        self.start = 0;
    }

    fn reload(&mut self) {
        self.machine = SharePartitions::new();
        self.machine.load(self.stored.clone()).unwrap();
    }

    fn check(&mut self) {
        self.machine.check_invariants();
        let start = self.machine.start_offset(&self.key).unwrap();
        assert!(start >= self.start || start == -1, "the start offset went back");
        self.start = start;
    }

    /// Every member is gone but one, which accepts all that it is given.
    fn come_to_rest(&mut self) {
        self.pending.clear();
        for _ in 0..2_000 {
            self.now_ms += LOCK_MS + 1;
            if self.mutant != Mutant::NoTimeouts {
                let effects = self.machine.tick(self.now_ms);
                self.store(&effects);
                self.owners.clear();
            }
            let Some(offset) = self.fetch_start() else {
                continue;
            };
            let first = offset.max(self.log_start);
            let mut batches: Vec<LogBatch> = self
                .log
                .iter()
                .filter(|batch| batch.last >= first)
                .take(3)
                .copied()
                .collect();
            if self.mutant == Mutant::SkipsABatch && batches.len() > 1 {
                batches.remove(0);
            }
            if batches.is_empty() {
                break;
            }
            let aborted = batches
                .iter()
                .filter(|batch| self.aborted.contains(&batch.base))
                .copied();
            let ask = Acquire {
                member: Str::from("m0"),
                strictly_limited: false,
                batch_size: 10,
                max_records: 20,
                fetch_offset: offset,
                aborted: aborted.collect(),
                batches,
            };
            self.held.clear();
            self.acquire("m0", &ask, true);
            self.check();
            let held: Vec<i64> = self.held.get("m0").into_iter().flatten().copied().collect();
            for offset in held {
                let batch = AcknowledgementBatch {
                    first: offset,
                    last: offset,
                    types: vec![1],
                };
                self.acknowledge_as("m0", &batch);
            }
        }
        self.all_was_delivered();
    }

    fn all_was_delivered(&mut self) {
        let next = self.fetch_start();
        assert_eq!(
            next.map(|next| next >= self.log.last().map_or(0, |batch| batch.last + 1)),
            Some(true),
            "not everything was fetched: {next:?} of {}",
            self.log_end
        );
        for batch in &self.log {
            for offset in batch.base.max(self.log_start)..=batch.last {
                assert!(
                    self.delivered.contains(&offset) || self.aborted.contains(&offset),
                    "{offset} was never delivered"
                );
            }
        }
    }
}
