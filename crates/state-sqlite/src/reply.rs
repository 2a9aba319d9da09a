//! One answer, given once, awaited by one future: the way back from the writer's thread. A promise
//! that is dropped answers too, so nobody waits for ever.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use milena_state::StateError;

enum Slot<T> {
    Waiting(Option<Waker>),
    Given(Result<T, StateError>),
    Taken,
}

/// The writer's end.
pub(crate) struct Reply<T>(Option<Arc<Mutex<Slot<T>>>>);

/// The caller's end.
pub(crate) struct Answer<T>(Arc<Mutex<Slot<T>>>);

pub(crate) fn reply<T>() -> (Reply<T>, Answer<T>) {
    let slot = Arc::new(Mutex::new(Slot::Waiting(None)));
    (Reply(Some(Arc::clone(&slot))), Answer(slot))
}

impl<T> Reply<T> {
    pub(crate) fn give(mut self, answer: Result<T, StateError>) {
        self.put(answer);
    }

    fn put(&mut self, answer: Result<T, StateError>) {
        let Some(slot) = self.0.take() else { return };
        let before = std::mem::replace(
            &mut *slot.lock().unwrap_or_else(PoisonError::into_inner),
            Slot::Given(answer),
        );
        if let Slot::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.put(Err(StateError::Unavailable("the store is closed".to_owned())));
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, StateError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Given(answer) => Poll::Ready(answer),
            Slot::Waiting(_) => {
                *slot = Slot::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
            // Polled again after its answer, which no caller may do.
            Slot::Taken => Poll::Ready(Err(StateError::Unavailable("the answer was taken".to_owned()))),
        }
    }
}
