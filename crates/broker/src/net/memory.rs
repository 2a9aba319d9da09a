//! `queued.max.request.bytes`: how much memory the requests may take that have arrived whole or in
//! part and are not handled yet.
//!
//! A frame's first [`FREE_BYTES`] cost nothing: they are the buffer that a connection has anyway. A
//! larger frame waits for memory of its size before more of it is read, in the order of asking; its
//! peer meanwhile finds the socket full. A frame that is larger than all of the memory has it alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of a frame that is no larger nothing is counted.
pub(super) const FREE_BYTES: usize = 64 * 1024;
/// The limit where the setting gives none, which in Kafka lets memory grow without one.
const DEFAULT_BYTES: usize = 32 * 1024 * 1024;
/// What is counted: a permit per byte could not be said for large limits.
const UNIT_BYTES: usize = 1024;

#[derive(Debug)]
pub(super) struct RequestMemory {
    units: Arc<Semaphore>,
    all_units: u32,
    waiting: Arc<AtomicUsize>,
}

/// The right to read a large frame; dropping it gives the memory to others.
pub(super) type Grant = OwnedSemaphorePermit;

/// Resolves to the grant when there is memory.
pub(super) type Asked = Pin<Box<dyn Future<Output = Grant> + Send>>;

/// Counts a request for memory for as long as it waits.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RequestMemory {
    /// `bytes` as the setting has it: not positive means that it sets no limit.
    pub(super) fn new(bytes: i64) -> Self {
        let bytes = match usize::try_from(bytes) {
            Ok(bytes) if bytes > 0 => bytes,
            _ => DEFAULT_BYTES,
        };
        let all_units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        Self {
            units: Arc::new(Semaphore::new(all_units as usize)),
            all_units,
            waiting: Arc::default(),
        }
    }

    /// Asks for the memory of a frame of `bytes`.
    pub(super) fn ask(&self, bytes: usize) -> Asked {
        let wanted = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = Arc::clone(&self.units).acquire_many_owned(wanted.min(self.all_units));
        let waiting = Waiting::new(&self.waiting);
        Box::pin(async move {
            let granted = units.await;
            drop(waiting);
            match granted {
                Ok(grant) => grant,
                // Only a closed semaphore refuses, and this one is never closed.
                Err(_) => std::future::pending().await,
            }
        })
    }

    /// Whether somebody waits for what others have.
    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    /// The grant, if there is memory now.
    async fn now(asked: &mut Asked) -> Option<Grant> {
        poll_fn(|task| {
            Poll::Ready(match asked.as_mut().poll(task) {
                Poll::Ready(grant) => Some(grant),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn memory_is_given_in_the_order_of_asking_and_comes_back() {
        let memory = RequestMemory::new(1_000_000);
        let first = now(&mut memory.ask(700_000)).await.unwrap();
        let mut large = memory.ask(900_000);
        assert!(now(&mut large).await.is_none());
        assert!(memory.is_short());
        let mut small = memory.ask(200_000);
        assert!(now(&mut small).await.is_none(), "it came later");
        drop(first);
        let large = now(&mut large).await.unwrap();
        assert!(now(&mut small).await.is_none());
        drop(large);
        assert!(now(&mut small).await.is_some());
        assert!(!memory.is_short());
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_memory_has_it_alone() {
        let memory = RequestMemory::new(100_000);
        let small = now(&mut memory.ask(70_000)).await.unwrap();
        let mut huge = memory.ask(50_000_000);
        assert!(now(&mut huge).await.is_none());
        drop(small);
        let huge = now(&mut huge).await.unwrap();
        assert!(now(&mut memory.ask(1)).await.is_none());
        drop(huge);
        assert!(now(&mut memory.ask(1)).await.is_some());
    }

    #[tokio::test]
    async fn who_stops_waiting_is_not_waited_for() {
        let memory = RequestMemory::new(100_000);
        let _all = now(&mut memory.ask(100_000)).await.unwrap();
        let mut gone = memory.ask(1);
        assert!(now(&mut gone).await.is_none());
        drop(gone);
        assert!(!memory.is_short());
    }

    #[tokio::test]
    async fn without_a_limit_there_is_one() {
        let memory = RequestMemory::new(-1);
        let _most = now(&mut memory.ask(DEFAULT_BYTES)).await.unwrap();
        assert!(now(&mut memory.ask(1)).await.is_none());
    }
}
