//! Ends transactions that were decided: markers, offsets of groups, and the note that it is done. Tried
//! again until it is, as nobody else would do it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use milena_coordinator::EndTransaction;
use milena_log::{Appended, LogError};
use milena_protocol::ErrorCode;
use tokio::sync::mpsc;

use super::OFFSETS_TOPIC;
use crate::broker::Broker;
use crate::outcome::BoxFuture;
use crate::partitions::Partition;

/// The pause before what could not be done is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many are under way is bounded by the transactional ids that there are: each has one transaction.
pub(super) async fn run(broker: Weak<Broker>, mut tasks: mpsc::UnboundedReceiver<EndTransaction>) {
    while let Some(task) = tasks.recv().await {
        let Some(broker) = broker.upgrade() else {
            return;
        };
        tokio::spawn(end(broker, task));
    }
}

async fn end(broker: Arc<Broker>, task: EndTransaction) {
    let stopped = broker.stop.stopped();
    tokio::pin!(stopped);
    let mut pause = FIRST_PAUSE;
    while let Err(error) = try_end(&broker, &task).await {
        if error == ErrorCode::TransactionCoordinatorFenced {
            // As in Kafka, it is not complete by that: it stays decided, and the next load gives it again.
            tracing::warn!(
                transactional_id = %task.transactional_id, coordinator_epoch = task.coordinator_epoch,
                "the end of a transaction is left to another coordinator: a partition has a marker of its \
                 producer with a later coordinator epoch"
            );
            return;
        }
        tracing::warn!(
            transactional_id = %task.transactional_id, error = error.name(),
            "a transaction cannot be ended now; it is tried again"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped.as_mut() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn try_end(broker: &Arc<Broker>, task: &EndTransaction) -> Result<(), ErrorCode> {
    let mut markers = Vec::new();
    let mut has_offsets = false;
    for (topic, index) in &task.partitions {
        if &**topic == OFFSETS_TOPIC {
            has_offsets = true;
            continue;
        }
        // Of a partition that was deleted nothing is left to be decided.
        if let Some(partition) = broker
            .topics
            .get(topic)
            .and_then(|topic| topic.partition(*index).cloned())
        {
            let end = milena_log::EndTransaction {
                producer_id: task.producer_id,
                producer_epoch: task.producer_epoch,
                commit: task.commit,
                coordinator_epoch: task.coordinator_epoch,
                leader_epoch: partition.leader_epoch(),
                transaction_version: task.transaction_version,
                now_ms: broker.clock.now_ms(),
            };
            markers.push(write_marker(partition, end));
        }
    }
    // All are appended by now, so that they share their sync.
    for marker in markers {
        match marker.await {
            // Somebody went on with the producer, or the marker is there: nothing is open here.
            Ok(()) | Err(ErrorCode::InvalidProducerEpoch) => {}
            Err(ErrorCode::UnknownTopicOrPartition) => {}
            Err(error) => return Err(error),
        }
    }
    let shard = broker.transactions.shard(&task.transactional_id);
    if has_offsets {
        let _none_may_follow = broker
            .transactions
            .offset_lock(task.producer_id)
            .lock_owned()
            .await;
        // A load gives the same task again. If that was done meanwhile, what is pending now is of the
        // producer's next transaction.
        if !shard
            .read(|transactions| transactions.is_to_be_ended(task))
            .await?
        {
            return Ok(());
        }
        broker
            .groups
            .end_transaction(task.producer_id, task.commit)
            .await?;
    }
    let complete = shard.change(|transactions, now_ms| transactions.ended(now_ms, task));
    // It is decided; whoever is answered by it is answered when it is stored.
    broker.transactions.completed.notify_waiters();
    complete.await
}

/// Appends a marker at once; resolves when it is durable.
pub(crate) fn write_marker(
    partition: Arc<Partition>,
    end: milena_log::EndTransaction,
) -> BoxFuture<Result<(), ErrorCode>> {
    let appended = partition.log().end_transaction(end);
    Box::pin(async move {
        let Appended { last_offset, .. } = appended.await.map_err(|error: LogError| error.code())?;
        partition.reached(last_offset).await
    })
}
