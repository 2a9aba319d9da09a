//! The listeners that are open, and how they follow `listeners` while the broker runs: as in Kafka, a name that is new
//! is opened, one that is gone is closed with its connections, and an address that changed counts from the
//! next start on.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{error, info, warn};

use super::listener;
use super::quotas::ConnectionQuotas;
use super::{BoundListener, Shared, accept, diagnose};
use crate::broker::StartError;
use crate::config::{BrokerConfig, Listener};

#[derive(Debug)]
struct Open {
    configured: Listener,
    bound: BoundListener,
    task: AbortHandle,
}

/// The tasks that accept; each gives back the connections that are still open when it ends.
#[derive(Debug)]
pub(super) struct Acceptors {
    shared: Arc<Shared>,
    quotas: Arc<ConnectionQuotas>,
    open: Vec<Open>,
    tasks: JoinSet<JoinSet<()>>,
}

impl Acceptors {
    /// Binds all listeners of the configuration, then accepts on them.
    pub(super) async fn start(
        config: &BrokerConfig,
        shared: Arc<Shared>,
        quotas: Arc<ConnectionQuotas>,
    ) -> Result<Self, StartError> {
        let mut bound = Vec::new();
        for listener in &config.listeners {
            bound.push((listener.clone(), bind(listener, config).await?));
        }
        let mut acceptors = Self {
            shared,
            quotas,
            open: Vec::new(),
            tasks: JoinSet::new(),
        };
        for (listener, (bound, socket)) in bound {
            acceptors.accept(listener, bound, socket);
        }
        acceptors.publish();
        Ok(acceptors)
    }

    pub(super) fn bound(&self) -> Vec<BoundListener> {
        self.open.iter().map(|open| open.bound.clone()).collect()
    }

    fn accept(&mut self, configured: Listener, bound: BoundListener, socket: TcpListener) {
        let accepting = accept(bound.clone(), socket, self.shared.clone(), self.quotas.clone());
        let task = self.tasks.spawn(accepting);
        self.open.push(Open {
            configured,
            bound,
            task,
        });
    }

    /// From now on clients are told these addresses.
    fn publish(&self) {
        self.shared.broker.set_listeners(self.bound());
        let pairs = self.open.iter();
        diagnose(
            pairs
                .map(|open| (open.configured.clone(), open.bound.address.port()))
                .collect(),
        );
    }

    /// Follows the settings until the broker stops; then gives the tasks that are to be waited for.
    pub(super) async fn run(mut self) -> JoinSet<JoinSet<()>> {
        let broker = self.shared.broker.clone();
        let mut changes = broker.topics.settings().changes();
        let stopped = broker.stop.stopped();
        tokio::pin!(stopped);
        loop {
            // The first look finds what has changed since the start.
            self.follow(&broker.topics.settings().current()).await;
            tokio::select! {
                () = stopped.as_mut() => return self.tasks,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return self.tasks;
                    }
                }
            }
        }
    }

    async fn follow(&mut self, config: &BrokerConfig) {
        let before = self.bound();
        self.open.retain(|open| {
            let kept = config
                .listeners
                .iter()
                .any(|new| new.name == open.configured.name);
            if !kept {
                info!("listener {} is closed", listener::address_of(&open.configured));
                // Its connections end with the task.
                open.task.abort();
            }
            kept
        });
        for new in &config.listeners {
            let known = self.open.iter_mut().find(|open| open.configured.name == new.name);
            if let Some(known) = known {
                if (&known.configured.host, known.configured.port) != (&new.host, new.port) {
                    warn!(
                        "listener {} moves to its new address at the next start",
                        listener::address_of(new)
                    );
                    known.configured = new.clone();
                }
                continue;
            }
            match bind(new, config).await {
                Ok((bound, socket)) => {
                    info!("listener {} is open at {}", new.name, bound.address);
                    self.accept(new.clone(), bound, socket);
                }
                Err(why) => error!("a listener that was asked for cannot be opened: {why}"),
            }
        }
        if self.bound() != before {
            self.publish();
        }
        // Closed ones leave the set, so that it is as large as what is open.
        while self.tasks.try_join_next().is_some() {}
    }
}

async fn bind(
    configured: &Listener,
    config: &BrokerConfig,
) -> Result<(BoundListener, TcpListener), StartError> {
    let socket = listener::bind(configured, config).await?;
    let address = socket.local_addr().map_err(|error| StartError::Listen {
        address: listener::address_of(configured),
        error,
    })?;
    let bound = BoundListener {
        name: Arc::from(configured.name.as_str()),
        address,
        advertised: listener::advertised(configured, address),
    };
    Ok((bound, socket))
}
