//! The signal that the broker is stopping. Whoever waits for something (a fetch for data, a member
//! for its group) also waits for this, answers, and lets the connection end in order.

use tokio::sync::watch;

#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Sender<bool>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when [`Stop::stop`] was called, at once if it was called before.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.subscribe();
        async move {
            // An error means that every sender is gone: then nothing runs any more either.
            let _ = receiver.wait_for(|stopping| *stopping).await;
        }
    }
}
