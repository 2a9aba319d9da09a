//! What being above a quota does to a request: the answer tells, and the connection waits (KIP-219).

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use milena_protocol::Message;

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::outcome::Outcome;

/// What a future gives, and how long it kept its thread; waiting is no work.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let mut future = pin!(future);
    let mut worked = Duration::ZERO;
    let output = std::future::poll_fn(|task| {
        let begin = Instant::now();
        let polled: Poll<T> = future.as_mut().poll(task);
        worked += begin.elapsed();
        polled
    })
    .await;
    (output, worked)
}

/// Counts the request's time, and has the client wait for that or for what the handler found, whichever is longer.
pub(crate) fn apply<R: Message + Send + 'static>(
    broker: &Arc<Broker>,
    context: &RequestContext,
    outcome: Outcome<R>,
    worked: Duration,
) -> Outcome<R> {
    let throttle_ms = broker.quotas.worked(context, worked, broker.clock.now_ms());
    match outcome {
        Outcome::Now(response) => Outcome::Now(told(context, response, throttle_ms)),
        Outcome::Later(answer) => {
            let context = context.clone();
            Outcome::Later(Box::pin(async move { told(&context, answer.await, throttle_ms) }))
        }
        Outcome::Nothing => {
            context.connection.mute.for_ms(throttle_ms);
            Outcome::Nothing
        }
        Outcome::Close(why) => Outcome::Close(why),
    }
}

fn told<R: Message>(context: &RequestContext, mut response: R, throttle_ms: i32) -> R {
    let mut longest_ms = throttle_ms;
    if let Some(throttle_time_ms) = response.throttle_time_ms_mut() {
        longest_ms = longest_ms.max(*throttle_time_ms);
        *throttle_time_ms = longest_ms;
    }
    context.connection.mute.for_ms(longest_ms);
    response
}
