//! Ids for idempotent producers: each is given once, for ever.
//!
//! Ids come from blocks of [`BLOCK_SIZE`], and a block is stored as taken before its first id is
//! given, so a crash can only lose ids, never give one twice. As in Kafka, where the controller
//! hands out such blocks.

use bytes::Bytes;
use milena_protocol::ErrorCode;
use milena_state::{Change, Lease, Shard, StateError, StateStore};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Ids per stored change (Kafka's `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub(crate) const BLOCK_SIZE: i64 = 1000;

const SHARD: &str = "producer-ids";
/// Its value is the first id of the next block, in decimal.
const NEXT_KEY: &[u8] = b"next-block";

#[derive(Debug)]
struct Block {
    lease: Lease,
    next: i64,
    end: i64,
}

#[derive(Debug)]
pub(crate) struct ProducerIds {
    facts: Arc<dyn StateStore>,
    /// `None`: the shard has to be acquired (again) first.
    block: Mutex<Option<Block>>,
}

impl ProducerIds {
    /// Nothing is read or stored before the first producer asks.
    pub(crate) fn new(facts: Arc<dyn StateStore>) -> Self {
        Self {
            facts,
            block: Mutex::new(None),
        }
    }

    /// A producer id that nobody had before.
    pub(crate) async fn generate(&self) -> Result<i64, ErrorCode> {
        let mut held = self.block.lock().await;
        let mut block = match held.take() {
            Some(block) => block,
            None => self.acquire().await.map_err(unavailable)?,
        };
        if block.next == block.end {
            self.take_block(&mut block).await.map_err(unavailable)?;
        }
        let id = block.next;
        block.next += 1;
        *held = Some(block);
        Ok(id)
    }

    async fn acquire(&self) -> Result<Block, StateError> {
        let shard = Shard(SHARD.to_owned());
        let lease = self.facts.acquire(shard.clone()).await?;
        let rows = self.facts.scan(shard, Bytes::from_static(NEXT_KEY)).await?;
        let next = match rows.first() {
            None => 0,
            Some((_, value)) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .ok_or_else(|| {
                    StateError::Unavailable("the stored producer id block is not a number".to_owned())
                })?,
        };
        Ok(Block {
            lease,
            next,
            end: next,
        })
    }

    async fn take_block(&self, block: &mut Block) -> Result<(), StateError> {
        let end = block
            .end
            .checked_add(BLOCK_SIZE)
            .ok_or_else(|| StateError::Unavailable("all producer ids were given".to_owned()))?;
        let change = Change {
            key: Bytes::from_static(NEXT_KEY),
            value: Some(Bytes::from(end.to_string())),
        };
        self.facts.commit(&block.lease, vec![change]).await?;
        block.end = end;
        Ok(())
    }
}

/// The producer tries again: Kafka answers the same while its controller cannot be reached.
fn unavailable(error: StateError) -> ErrorCode {
    tracing::warn!(%error, "no producer id can be given now");
    ErrorCode::CoordinatorLoadInProgress
}
