//! What a handler gives back.

use std::future::Future;
use std::pin::Pin;

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// The answer to one request. Handlers of a connection run one after the other, in the order of its
/// requests, and answers leave in that order too.
pub(crate) enum Outcome<R> {
    Now(R),
    /// What the request does has been ordered already (appended, given to the coordinator); only
    /// the answer has to wait. The connection's next request may be handled meanwhile.
    Later(BoxFuture<R>),
    /// `acks=0`: the client expects no answer.
    Nothing,
    /// The connection is closed; the sentence goes to the log.
    Close(String),
}
