use milena_protocol::messages::{EndTxnRequest, InitProducerIdRequest};

use super::*;
use crate::{EndTransaction, Reply, Ticket};

const NOW_MS: i64 = 1_700_000_000_000;
/// Of EndTxn: before and with KIP-890.
const OLD: i16 = 4;
const NEW: i16 = 5;

/// A shard with what is stored of it.
struct Shard {
    machine: Transactions,
    stored: BTreeMap<Bytes, Bytes>,
    tasks: Vec<EndTransaction>,
    now_ms: i64,
    next_producer_id: i64,
    loads: i32,
}

type Given = Result<(i64, i16), ErrorCode>;

impl Shard {
    fn new() -> Self {
        let mut shard = Self {
            machine: Transactions::new(TransactionConfig::default()),
            stored: BTreeMap::new(),
            tasks: Vec::new(),
            now_ms: NOW_MS,
            next_producer_id: 1_000,
            loads: 0,
        };
        shard.restart();
        shard
    }

    fn restart(&mut self) {
        self.loads += 1;
        self.tasks.clear();
        let rows: Vec<_> = self.stored.clone().into_iter().collect();
        let effects = self.machine.load(self.now_ms, self.loads, rows).unwrap();
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) -> Option<Reply> {
        for fact in effects.facts {
            match fact.value {
                Some(value) => self.stored.insert(fact.key, value),
                None => self.stored.remove(&fact.key),
            };
        }
        self.tasks.extend(effects.tasks);
        self.machine.check_invariants();
        effects.replies.into_iter().next().map(|(_, reply)| reply)
    }

    fn init_as(&mut self, id: &str, producer: (i64, i16), timeout_ms: i32) -> Given {
        self.next_producer_id += 1;
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(id.to_owned())),
            transaction_timeout_ms: timeout_ms,
            producer_id: producer.0,
            producer_epoch: producer.1,
            ..InitProducerIdRequest::default()
        };
        let fresh = self.next_producer_id;
        let effects = self
            .machine
            .init_producer_id(self.now_ms, Ticket(0), &request, fresh);
        match self.carry_out(effects) {
            Some(Reply::InitProducerId(response)) => match ErrorCode::from_code(response.error_code) {
                ErrorCode::None => Ok((response.producer_id, response.producer_epoch)),
                error => Err(error),
            },
            other => panic!("{other:?}"),
        }
    }

    fn init(&mut self) -> Given {
        self.init_as("tx", (-1, -1), 60_000)
    }

    fn add_with(
        &mut self,
        producer: (i64, i16),
        partition: i32,
        verify_only: bool,
        bumps_epoch: bool,
    ) -> ErrorCode {
        let request = AddPartitions {
            transactional_id: Str::from("tx"),
            producer_id: producer.0,
            producer_epoch: producer.1,
            partitions: vec![(Str::from("topic"), partition)],
            verify_only,
            bumps_epoch,
        };
        let effects = self.machine.add_partitions(self.now_ms, Ticket(0), &request);
        match self.carry_out(effects) {
            Some(Reply::AddPartitions(errors)) => errors[0],
            other => panic!("{other:?}"),
        }
    }

    fn add(&mut self, producer: (i64, i16), partition: i32) -> ErrorCode {
        self.add_with(producer, partition, false, true)
    }

    fn end(&mut self, version: i16, producer: (i64, i16), committed: bool) -> Given {
        self.next_producer_id += 1;
        let request = EndTxnRequest {
            transactional_id: Str::from("tx"),
            producer_id: producer.0,
            producer_epoch: producer.1,
            committed,
            ..EndTxnRequest::default()
        };
        let effects = self
            .machine
            .end(self.now_ms, Ticket(0), version, &request, self.next_producer_id);
        match self.carry_out(effects) {
            Some(Reply::EndTxn(response)) => match ErrorCode::from_code(response.error_code) {
                ErrorCode::None => Ok((response.producer_id, response.producer_epoch)),
                error => Err(error),
            },
            other => panic!("{other:?}"),
        }
    }

    fn finish(&mut self) {
        for task in std::mem::take(&mut self.tasks) {
            let effects = self.machine.ended(self.now_ms, &task);
            self.carry_out(effects);
        }
    }

    fn tick(&mut self) {
        let effects = self.machine.tick(self.now_ms);
        self.carry_out(effects);
    }

    fn state(&self) -> String {
        let described = self.machine.describe(&Str::from("tx"));
        described.transaction_state.to_string()
    }
}

#[test]
fn each_initialisation_fences_the_producer_before() {
    let mut shard = Shard::new();
    let first = shard.init().unwrap();
    assert_eq!(first.1, 0);
    let second = shard.init().unwrap();
    assert_eq!(second, (first.0, 1));
    assert_eq!(shard.add(first, 0), ErrorCode::ProducerFenced);
    assert_eq!(shard.end(NEW, first, true), Err(ErrorCode::ProducerFenced));
    assert_eq!(shard.add(second, 0), ErrorCode::None);
}

#[test]
fn what_the_fenced_producer_left_open_is_aborted_first() {
    for restart in [false, true] {
        let mut shard = Shard::new();
        let zombie = shard.init().unwrap();
        shard.add(zombie, 0);
        assert_eq!(shard.init(), Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(
            shard.init(),
            Err(ErrorCode::ConcurrentTransactions),
            "until it is ended"
        );
        if restart {
            shard.restart();
        }
        assert_eq!(shard.tasks.len(), 1);
        assert!(!shard.tasks[0].commit);
        assert!(
            shard.tasks[0].producer_epoch > zombie.1,
            "the marker fences it in its partitions"
        );
        shard.finish();
        let next = shard.init().unwrap();
        assert!(next.1 > shard.stored.len() as i16 && next.0 == zombie.0);
        assert_eq!(shard.end(NEW, zombie, true), Err(ErrorCode::ProducerFenced));
    }
}

#[test]
fn a_commit_is_decided_once_and_complete_when_every_partition_knows() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    shard.add(producer, 0);
    shard.add(producer, 1);
    let next = shard.end(NEW, producer, true).unwrap();
    assert_eq!(
        next,
        (producer.0, producer.1 + 1),
        "each transaction has its epoch"
    );
    assert_eq!(shard.state(), "PrepareCommit");
    let task = shard.tasks[0].clone();
    assert_eq!(task.partitions.len(), 2);
    assert_eq!(
        (task.commit, task.producer_epoch, task.transaction_version),
        (true, next.1, 2)
    );
    // The same again, whose answer was lost: it waits, and gets the same answer.
    assert_eq!(
        shard.end(NEW, producer, true),
        Err(ErrorCode::ConcurrentTransactions)
    );
    assert_eq!(shard.end(NEW, producer, false), Err(ErrorCode::InvalidTxnState));
    assert_eq!(shard.add(next, 0), ErrorCode::ConcurrentTransactions);
    let next_end = shard.end(NEW, next, false);
    assert_eq!(
        next_end,
        Err(ErrorCode::ConcurrentTransactions),
        "the next one waits"
    );
    shard.finish();
    assert_eq!(shard.state(), "CompleteCommit");
    assert_eq!(shard.end(NEW, producer, true), Ok(next));
    assert_eq!(shard.end(NEW, producer, false), Err(ErrorCode::InvalidTxnState));
}

/// Trap 14.
#[test]
fn an_end_that_comes_late_does_not_end_the_next_transaction() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    shard.add(producer, 0);
    let next = shard.end(NEW, producer, true).unwrap();
    shard.finish();
    shard.add(next, 0);
    for committed in [true, false] {
        assert_eq!(
            shard.end(NEW, producer, committed),
            Err(ErrorCode::ProducerFenced)
        );
    }
    assert_eq!(shard.state(), "Ongoing");
}

#[test]
fn a_client_that_keeps_its_epoch_is_answered_by_the_state_alone() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    assert_eq!(shard.end(OLD, producer, true), Err(ErrorCode::InvalidTxnState));
    assert_eq!(shard.add_with(producer, 0, false, false), ErrorCode::None);
    assert_eq!(shard.end(OLD, producer, false), Ok(producer));
    assert_eq!(
        shard.end(OLD, producer, false),
        Err(ErrorCode::ConcurrentTransactions)
    );
    shard.finish();
    assert_eq!(shard.end(OLD, producer, false), Ok(producer));
    assert_eq!(shard.end(OLD, producer, true), Err(ErrorCode::InvalidTxnState));
    assert_eq!(shard.add_with(producer, 1, false, false), ErrorCode::None);
    assert_eq!(shard.state(), "Ongoing");
}

#[test]
fn an_abort_without_partitions_gives_the_producer_a_new_epoch() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    let next = shard.end(NEW, producer, false).unwrap();
    assert_eq!(next.1, producer.1 + 1);
    shard.finish();
    assert_eq!(shard.state(), "CompleteAbort");
    assert_eq!(shard.end(NEW, next, true), Err(ErrorCode::InvalidTxnState));
}

#[test]
fn a_transaction_that_is_open_for_too_long_is_aborted_and_its_producer_fenced() {
    for restart in [false, true] {
        let mut shard = Shard::new();
        let producer = shard.init_as("tx", (-1, -1), 5_000).unwrap();
        shard.add(producer, 0);
        assert_eq!(shard.machine.next_deadline_ms(), Some(NOW_MS + 5_000));
        if restart {
            shard.restart();
        }
        shard.now_ms += 4_999;
        shard.tick();
        assert_eq!(shard.state(), "Ongoing");
        shard.now_ms += 1;
        shard.tick();
        assert_eq!(shard.state(), "PrepareAbort");
        assert_eq!(shard.tasks.len(), 1);
        shard.finish();
        assert_eq!(shard.end(OLD, producer, true), Err(ErrorCode::ProducerFenced));
        assert_eq!(shard.end(NEW, producer, true), Err(ErrorCode::InvalidTxnState));
        assert_eq!(shard.add(producer, 0), ErrorCode::ProducerFenced);
        // An abort is what has happened; with the epoch that it is told it may go on.
        assert_eq!(shard.end(NEW, producer, false), Ok((producer.0, producer.1 + 1)));
        assert_eq!(shard.init().unwrap(), (producer.0, producer.1 + 2));
    }
}

#[test]
fn a_producer_that_met_an_error_goes_on_with_the_next_epoch_however_often_it_asks() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    let next = shard.init_as("tx", producer, 60_000).unwrap();
    assert_eq!(next, (producer.0, producer.1 + 1));
    assert_eq!(
        shard.init_as("tx", producer, 60_000),
        Ok(next),
        "the answer was lost"
    );
    shard.init().unwrap();
    assert_eq!(shard.init_as("tx", next, 60_000), Err(ErrorCode::ProducerFenced));
    assert_eq!(
        shard.init_as("tx", (77, 0), 60_000),
        Err(ErrorCode::ProducerFenced)
    );
}

#[test]
fn a_producer_without_epochs_left_gets_a_new_id() {
    let mut shard = Shard::new();
    let first = shard.init().unwrap();
    let id = Str::from("tx");
    shard.machine.transactions.get_mut(&id).unwrap().producer_epoch = i16::MAX - 1;
    let last = (first.0, i16::MAX - 1);
    shard.add(last, 0);
    let next = shard.end(NEW, last, true).unwrap();
    assert!(next.0 != first.0 && next.1 == 0);
    assert_eq!(shard.tasks[0].producer_epoch, i16::MAX);
    shard.finish();
    assert_eq!(shard.end(NEW, last, true), Ok(next), "sent again");
    assert_eq!(shard.add(next, 0), ErrorCode::None);
    shard.machine.transactions.get_mut(&id).unwrap().producer_epoch = i16::MAX - 1;
    shard.end(NEW, (next.0, i16::MAX - 1), false).unwrap();
    shard.finish();
    shard.machine.transactions.get_mut(&id).unwrap().producer_epoch = i16::MAX - 1;
    let third = shard.init().unwrap();
    assert!(third.0 != next.0 && third.1 == 0);
}

/// A producer whose open transaction timed out in its last epoch but one: the last one has fenced it.
fn timed_out_without_epochs() -> (Shard, (i64, i16)) {
    let mut shard = Shard::new();
    let (producer_id, _) = shard.init().unwrap();
    let id = Str::from("tx");
    shard.machine.transactions.get_mut(&id).unwrap().producer_epoch = i16::MAX - 1;
    let last = (producer_id, i16::MAX - 1);
    assert_eq!(shard.add(last, 0), ErrorCode::None);
    shard.now_ms += 1_000_000;
    shard.tick();
    shard.finish();
    assert_eq!(shard.machine.describe(&id).producer_epoch, i16::MAX);
    (shard, last)
}

#[test]
fn the_last_epoch_is_given_to_nobody_who_goes_on_after_a_timeout() {
    let (mut shard, last) = timed_out_without_epochs();
    let next = shard.init_as("tx", last, 60_000).unwrap();
    assert_ne!(next.0, last.0);
    assert_eq!(next.1, 0);
    assert_eq!(shard.init_as("tx", last, 60_000), Ok(next), "asked again");
}

#[test]
fn the_last_epoch_is_given_to_nobody_who_aborts_after_a_timeout() {
    let (mut shard, last) = timed_out_without_epochs();
    let next = shard.end(NEW, last, false).unwrap();
    assert_ne!(next.0, last.0);
    assert_eq!(next.1, 0);
    assert_eq!(shard.end(NEW, last, false), Ok(next), "asked again");
}

#[test]
fn a_producer_without_epochs_is_not_given_the_transaction_of_the_old_client_that_took_over() {
    let mut shard = Shard::new();
    let (producer_id, _) = shard.init().unwrap();
    let id = Str::from("tx");
    shard.machine.transactions.get_mut(&id).unwrap().producer_epoch = i16::MAX - 1;
    let zombie = (producer_id, i16::MAX - 1);
    let newer = shard.init().unwrap();
    assert_eq!(newer.1, 0);
    assert_eq!(shard.add_with(newer, 0, false, false), ErrorCode::None);
    shard.end(OLD, newer, true).unwrap();
    shard.finish();
    assert_eq!(
        shard.end(NEW, zombie, true),
        Err(ErrorCode::InvalidProducerIdMapping)
    );
}

#[test]
fn only_partitions_of_the_open_transaction_are_verified() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    shard.add(producer, 0);
    assert_eq!(shard.add_with(producer, 0, true, true), ErrorCode::None);
    assert_eq!(
        shard.add_with(producer, 1, true, true),
        ErrorCode::TransactionAbortable
    );
    let next = shard.end(NEW, producer, true).unwrap();
    assert_eq!(
        shard.add_with(next, 0, true, true),
        ErrorCode::ConcurrentTransactions
    );
    shard.finish();
    assert_eq!(
        shard.add_with(next, 0, true, true),
        ErrorCode::TransactionAbortable
    );
    assert_eq!(
        shard.add_with((5, 0), 0, true, true),
        ErrorCode::InvalidProducerIdMapping
    );
}

/// Trap 6: a timeout above the maximum is refused.
#[test]
fn a_timeout_must_be_positive_and_at_most_the_maximum() {
    let mut shard = Shard::new();
    for timeout_ms in [0, -1, 900_001] {
        assert_eq!(
            shard.init_as("tx", (-1, -1), timeout_ms),
            Err(ErrorCode::InvalidTransactionTimeout)
        );
    }
    assert_eq!(shard.init_as("", (-1, -1), 1), Err(ErrorCode::InvalidRequest));
    assert!(shard.init_as("tx", (-1, -1), 900_000).is_ok());
}

#[test]
fn an_id_that_nobody_uses_expires_and_one_that_is_open_does_not() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    shard.now_ms += TransactionConfig::default().id_expiration_ms;
    shard.tick();
    assert!(shard.stored.is_empty());
    assert_eq!(shard.add(producer, 0), ErrorCode::InvalidProducerIdMapping);
}

#[test]
fn what_is_listed_can_be_filtered() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    shard.init_as("other", (-1, -1), 60_000).unwrap();
    shard.add(producer, 3);
    shard.now_ms += 10_000;
    let list = |filter: TransactionFilter| -> Vec<String> {
        let listed = shard.machine.list(shard.now_ms, &filter);
        listed.iter().map(|it| it.transactional_id.to_string()).collect()
    };
    let all = || TransactionFilter {
        duration_ms: -1,
        ..TransactionFilter::default()
    };
    assert_eq!(list(all()), ["other", "tx"]);
    assert_eq!(
        list(TransactionFilter {
            states: vec![Str::from("Ongoing"), Str::from("Strange")],
            ..all()
        }),
        ["tx"]
    );
    assert_eq!(
        list(TransactionFilter {
            producer_ids: vec![producer.0],
            ..all()
        }),
        ["tx"]
    );
    assert_eq!(
        list(TransactionFilter {
            pattern: Some(whole_match("o.*r").unwrap()),
            ..all()
        }),
        ["other"]
    );
    assert_eq!(
        list(TransactionFilter {
            duration_ms: 10_000,
            states: vec![Str::from("Ongoing")],
            ..all()
        }),
        Vec::<String>::new()
    );
    assert_eq!(whole_match("(").unwrap_err(), ErrorCode::InvalidRegularExpression);
    let described = shard.machine.describe(&Str::from("tx"));
    assert_eq!(described.transaction_start_time_ms, NOW_MS);
    assert_eq!(described.topics[0].partitions, [3]);
    let unknown = shard.machine.describe(&Str::from("nobody"));
    assert_eq!(unknown.error_code, ErrorCode::TransactionalIdNotFound.code());
}

#[test]
fn what_an_earlier_load_gave_as_a_task_does_not_complete_the_next_transaction() {
    let mut shard = Shard::new();
    let producer = shard.init().unwrap();
    // An older client: its transactions are alike to the last field.
    shard.add_with(producer, 0, false, false);
    shard.end(OLD, producer, true).unwrap();
    let before = shard.tasks[0].clone();
    assert!(shard.machine.is_to_be_ended(&before));
    shard.restart();
    assert!(!shard.machine.is_to_be_ended(&before), "the load gives it again");
    shard.finish();
    shard.add_with(producer, 0, false, false);
    assert!(!shard.machine.is_to_be_ended(&before));
    shard.end(OLD, producer, true).unwrap();
    let effects = shard.machine.ended(shard.now_ms, &before);
    shard.carry_out(effects);
    assert_eq!(shard.state(), "PrepareCommit", "its markers are not written");
    shard.finish();
    assert_eq!(shard.state(), "CompleteCommit");
}
