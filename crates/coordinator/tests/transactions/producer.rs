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
    Produce { partition: usize, value: u64 },
    Offset(i64),
    End { commit: bool },
    Dead,
}

#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) name: usize,
    step: Step,
    left: usize,
    id: i64,
    epoch: i16,
    sequences: [i32; PARTITIONS],
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

impl Producer {
    pub(crate) fn new(name: usize) -> Self {
        Self {
            name,
            step: Step::Init,
            left: 0,
            id: -1,
            epoch: -1,
            sequences: [0; PARTITIONS],
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
            Step::Init => Request::Init,
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
            (Answer::Given(id, epoch), Step::End { commit }) => {
                self.current.told = if commit { Told::Committed } else { Told::Aborted };
                self.finish();
                self.begin(id, epoch, random, next_value);
            }
            (Answer::Done, Step::Produce { partition, value }) => {
                self.sequences[partition] += 1;
                self.current.acknowledged.push(value);
                self.go_on(random, next_value);
            }
            (Answer::Done, Step::Offset(offset)) => {
                self.current.offset = Some((offset, true));
                self.go_on(random, next_value);
            }
            // A client that is told to abort does that.
            (Answer::Abort, Step::Produce { .. } | Step::Offset(_)) => {
                self.step = Step::End { commit: false }
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
        self.left -= 1;
        *next_value += 1;
        let value = *next_value;
        self.step = if self.left == 0 && random.chance(60) {
            Step::Offset(value as i64)
        } else {
            let partition = random.between(0, PARTITIONS as i64) as usize;
            Step::Produce { partition, value }
        };
    }

    /// Its transaction is history.
    pub(crate) fn finish(&mut self) {
        self.done
            .push(std::mem::replace(&mut self.current, new_history()));
    }
}
