//! A client: one instance of a transactional producer, which does one thing after the other, sends it
//! again when it hears nothing, and gives up when it is fenced.

use super::random::Random;
use super::world::{Answer, PARTITIONS, Request};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It never heard how it ended.
    Unknown,
    Committed,
    Aborted,
}

/// A transaction as its client knows it.
#[derive(Debug, Clone)]
pub(crate) struct History {
    /// Values whose records were acknowledged, and those that were sent.
    pub(crate) acknowledged: Vec<u64>,
    pub(crate) sent: Vec<u64>,
    /// The offset that goes with it, and whether it was acknowledged.
    pub(crate) offset: Option<(i64, bool)>,
    pub(crate) told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Init,
    /// With the id and epoch it has (KIP-360).
    GoOn,
    Add(usize),
    AddOffsets(i64),
    Produce {
        partition: usize,
        value: u64,
    },
    Offset(i64),
    End {
        commit: bool,
    },
    Dead,
}

#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) name: usize,
    /// Whether it has an epoch for each transaction and leaves partitions to the broker (KIP-890).
    /// Otherwise it adds partitions itself, and keeps its epoch.
    pub(crate) bumps_epoch: bool,
    step: Step,
    left: usize,
    id: i64,
    epoch: i16,
    sequences: [i32; PARTITIONS],
    added: [bool; PARTITIONS],
    current: History,
    pub(crate) done: Vec<History>,
    /// Answers to earlier tries are not looked at.
    pub(crate) attempt: u64,
    pub(crate) waiting: bool,
}

fn new_history() -> History {
    History {
        acknowledged: Vec::new(),
        sent: Vec::new(),
        offset: None,
        told: Told::Unknown,
    }
}

fn new_value(next_value: &mut u64) -> u64 {
    *next_value += 1;
    *next_value
}

impl Producer {
    pub(crate) fn new(name: usize, bumps_epoch: bool) -> Self {
        Self {
            name,
            bumps_epoch,
            step: Step::Init,
            left: 0,
            id: -1,
            epoch: -1,
            sequences: [0; PARTITIONS],
            added: [false; PARTITIONS],
            current: new_history(),
            done: Vec::new(),
            attempt: 0,
            waiting: false,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.step == Step::Dead
    }

    /// What it asks now, for the first time or again.
    pub(crate) fn request(&mut self) -> Request {
        self.attempt += 1;
        self.waiting = true;
        let producer = (self.id, self.epoch);
        match self.step {
            Step::Init => Request::Init { goes_on: None },
            Step::GoOn => Request::Init {
                goes_on: Some(producer),
            },
            Step::Add(partition) => Request::Add { producer, partition },
            Step::AddOffsets(_) => Request::AddOffsets { producer },
            Step::Produce { partition, value } => {
                if !self.current.sent.contains(&value) {
                    self.current.sent.push(value);
                }
                let sequence = self.sequences[partition];
                Request::Produce {
                    producer,
                    partition,
                    sequence,
                    value,
                }
            }
            Step::Offset(offset) => {
                self.current.offset = Some((offset, false));
                Request::Offset { producer, offset }
            }
            Step::End { commit } => Request::End { producer, commit },
            Step::Dead => unreachable!("a dead producer asks nothing"),
        }
    }

    /// True if it was fenced.
    pub(crate) fn hear(&mut self, answer: Answer, random: &mut Random, next_value: &mut u64) -> bool {
        self.waiting = false;
        match (answer, self.step) {
            (Answer::Again, _) => {}
            (Answer::Given(id, epoch), Step::Init) => self.begin(id, epoch, random, next_value),
            (Answer::Given(id, epoch), Step::GoOn) => {
                // It has not asked for a commit.
                self.current.told = Told::Aborted;
                self.finish();
                self.begin(id, epoch, random, next_value);
            }
            (Answer::Given(id, epoch), Step::End { commit }) => {
                self.current.told = if commit { Told::Committed } else { Told::Aborted };
                self.finish();
                if self.bumps_epoch {
                    self.begin(id, epoch, random, next_value);
                } else {
                    self.begin_again(random, next_value);
                }
            }
            (Answer::Done, Step::Add(partition)) => {
                self.added[partition] = true;
                let value = new_value(next_value);
                self.step = Step::Produce { partition, value };
            }
            (Answer::Done, Step::AddOffsets(offset)) => self.step = Step::Offset(offset),
            (Answer::Done, Step::Produce { partition, value }) => {
                self.sequences[partition] += 1;
                self.current.acknowledged.push(value);
                self.go_on(random, next_value);
            }
            (Answer::Done, Step::Offset(offset)) => {
                self.current.offset = Some((offset, true));
                self.go_on(random, next_value);
            }
            // A client that is told to abort does that; one that keeps its epoch needs a new one then, as
            // it does not know which sequences are used.
            (Answer::Abort, Step::Produce { .. } | Step::Offset(_)) if self.bumps_epoch => {
                self.step = Step::End { commit: false };
            }
            (Answer::Abort, Step::Produce { .. } | Step::Offset(_) | Step::Add(_) | Step::AddOffsets(_)) => {
                self.step = Step::GoOn;
            }
            // Its transaction may only have timed out.
            (Answer::Fatal, Step::Produce { .. } | Step::Offset(_) | Step::Add(_) | Step::AddOffsets(_))
                if random.chance(50) =>
            {
                self.step = Step::GoOn
            }
            _ => {
                self.finish();
                self.step = Step::Dead;
                return true;
            }
        }
        false
    }

    fn begin(&mut self, id: i64, epoch: i16, random: &mut Random, next_value: &mut u64) {
        (self.id, self.epoch) = (id, epoch);
        self.sequences = [0; PARTITIONS];
        self.begin_again(random, next_value);
    }

    /// The next transaction.
    fn begin_again(&mut self, random: &mut Random, next_value: &mut u64) {
        self.added = [false; PARTITIONS];
        self.left = random.between(1, 5) as usize;
        self.go_on(random, next_value);
    }

    fn go_on(&mut self, random: &mut Random, next_value: &mut u64) {
        if self.left == 0 {
            self.step = Step::End {
                commit: random.chance(75),
            };
            return;
        }
        if random.chance(3) {
            // The application gives this transaction up.
            self.step = Step::GoOn;
            return;
        }
        self.left -= 1;
        self.step = if self.left == 0 && random.chance(60) {
            let offset = new_value(next_value) as i64;
            match self.bumps_epoch {
                true => Step::Offset(offset),
                false => Step::AddOffsets(offset),
            }
        } else {
            let partition = random.between(0, PARTITIONS as i64) as usize;
            if self.bumps_epoch || self.added[partition] {
                let value = new_value(next_value);
                Step::Produce { partition, value }
            } else {
                Step::Add(partition)
            }
        };
    }

    /// Its transaction is history.
    pub(crate) fn finish(&mut self) {
        self.done
            .push(std::mem::replace(&mut self.current, new_history()));
    }
}
