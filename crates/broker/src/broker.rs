//! The broker's parts, and how they start and stop.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use milena_coordinator::{
    ConsumerGroupConfig, GroupConfig, ShareGroupConfig, StreamsGroupConfig, TransactionConfig,
};
use milena_log::{LogError, LogStore};
use milena_protocol::Str;
use milena_state::{StateError, StateStore};
use tracing::{error, warn};

use crate::client_metrics::ClientMetrics;
use crate::clock::Clock;
use crate::config::{self, BrokerConfig};
use crate::context::{ConnectionInfo, RequestContext};
use crate::eligible_replicas;
use crate::features::{self, Features};
use crate::group_configs::{self, GroupConfigs};
use crate::groups::internal_topics::InternalTopics;
use crate::groups::{Groups, settings};
use crate::loggers::Loggers;
use crate::net::{BoundListener, Endpoint, LogLimit};
use crate::producer_ids::ProducerIds;
use crate::quotas::Quotas;
use crate::sessions::FetchSessions;
use crate::settings::{Derived, Settings};
use crate::share::SharePartitions;
use crate::stop::Stop;
use crate::topics::{Overrides, Topics};
use crate::transactions::Transactions;

/// How often logs are asked for the work that time brings: flushing by time, expiry, freeing of deleted
/// files. Retention is looked at every `log.retention.check.interval.ms`, which may be more often.
const MAINTENANCE_INTERVAL_MS: i64 = 1_000;

/// Where bytes and facts live.
#[derive(Debug, Clone)]
pub struct Engines {
    pub logs: Arc<dyn LogStore>,
    pub facts: Arc<dyn StateStore>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: std::io::Error },
    #[error("{0}")]
    Invalid(String),
}

/// What every handler shares.
#[derive(Debug)]
pub struct Broker {
    /// As the broker was started. What can change while it runs is in [`Settings`].
    pub(crate) config: BrokerConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) logs: Arc<dyn LogStore>,
    pub(crate) cluster_id: Str,
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    pub(crate) share: SharePartitions,
    pub(crate) features: Features,
    pub(crate) client_metrics: ClientMetrics,
    pub(crate) quotas: Quotas,
    pub(crate) group_configs: GroupConfigs,
    /// Of consumer groups that were given no configs.
    pub(crate) consumer_defaults: Derived<ConsumerGroupConfig>,
    /// Of streams groups that were given no configs.
    pub(crate) streams_defaults: Derived<StreamsGroupConfig>,
    pub(crate) internal_topics: InternalTopics,
    /// The same of share groups.
    pub(crate) share_defaults: Derived<ShareGroupConfig>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) sessions: FetchSessions,
    pub(crate) stop: Stop,
    facts: Arc<dyn StateStore>,
    /// Those that are bound.
    listeners: RwLock<Vec<BoundListener>>,
    loggers: OnceLock<Loggers>,
    /// Lines about advertised addresses that clients cannot reach.
    advertised_limit: LogLimit,
}

impl Broker {
    /// Loads what is stored, opens every partition, and starts the work in the background. The
    /// broker serves once [`crate::Server::start`] has bound its listeners.
    ///
    /// # Errors
    /// Facts or logs that cannot be opened, or that this program does not understand.
    pub async fn start(
        config: BrokerConfig,
        engines: Engines,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StartError> {
        Self::start_in(None, config, engines, clock).await
    }

    /// The same in a cluster whose id is given (`CLUSTER_ID` in containers) and not drawn.
    ///
    /// # Errors
    /// Those of [`Broker::start`], and a stored id that is another.
    pub async fn start_in(
        cluster_id: Option<String>,
        config: BrokerConfig,
        engines: Engines,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StartError> {
        let Engines { logs, facts } = engines;
        let stop = Stop::new();
        let settings = Arc::new(Settings::new(config.clone()));
        // Together, so that the fact store syncs once for all.
        let (loaded, groups, transactions, share, features, client_metrics, quotas, group_configs) = tokio::try_join!(
            Topics::load(cluster_id.as_deref(), facts.clone(), logs.clone(), settings),
            Groups::start(facts.clone(), clock.clone(), group_config(&config), &stop),
            Transactions::start(facts.clone(), clock.clone(), transaction_config(&config), &stop),
            SharePartitions::start(facts.clone(), clock.clone(), &stop),
            Features::load(facts.clone(), features::SHARD),
            ClientMetrics::load(facts.clone()),
            Quotas::load(facts.clone(), &config),
            GroupConfigs::load(facts.clone(), group_configs::SHARD),
        )?;
        let slots = usize::try_from(config.max_incremental_fetch_session_cache_slots).unwrap_or(0);
        let broker = Arc::new(Self {
            producer_ids: ProducerIds::new(facts.clone()),
            sessions: FetchSessions::new(slots, rand::random()),
            config,
            clock,
            logs,
            cluster_id: loaded.cluster_id,
            topics: loaded.topics,
            groups,
            transactions,
            share,
            features,
            client_metrics,
            quotas,
            group_configs,
            consumer_defaults: Derived::default(),
            streams_defaults: Derived::default(),
            internal_topics: InternalTopics::default(),
            share_defaults: Derived::default(),
            stop,
            facts,
            listeners: RwLock::default(),
            loggers: OnceLock::new(),
            advertised_limit: LogLimit::new(),
        });
        eligible_replicas::settle(&broker)
            .await
            .map_err(|error| StartError::Invalid(error.message.unwrap_or_default()))?;
        broker.transactions.finish_in_background(&broker);
        tokio::spawn(maintain(broker.clone()));
        Ok(broker)
    }

    /// The cluster's id, which the first start has drawn.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    #[must_use]
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// Lets clients change which lines the program writes to its log. Until then there are no loggers; a
    /// second call changes nothing.
    pub fn set_loggers(&self, loggers: Loggers) {
        if self.loggers.set(loggers).is_err() {
            error!("the loggers were set twice: the first stay");
        }
    }

    pub(crate) fn loggers(&self) -> Option<&Loggers> {
        self.loggers.get()
    }

    /// What clients of the request's listener are told to connect to. `None` only before the
    /// listeners are bound, when there is nobody to tell.
    pub(crate) fn endpoint(&self, context: &RequestContext) -> Option<Endpoint> {
        let bound = self.bound_listener(&context.connection.listener)?;
        Some(bound.advertised)
    }

    pub(crate) fn bound_listeners(&self) -> Vec<BoundListener> {
        self.listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn bound_listener(&self, name: &str) -> Option<BoundListener> {
        let bound = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        bound.iter().find(|listener| *listener.name == *name).cloned()
    }

    /// Called when listeners are bound, and when one is opened or closed.
    pub(crate) fn set_listeners(&self, listeners: Vec<BoundListener>) {
        *self.listeners.write().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// A client that was told an address it cannot reach says nothing and times out; so the broker
    /// says it.
    pub(crate) fn diagnose_advertised(&self, context: &RequestContext) {
        if let Some(sentence) = self.advertised_problem(&context.connection)
            && self.advertised_limit.admit().is_some()
        {
            warn!("{sentence}");
        }
    }

    /// What is wrong with the address that this client is told, as far as the connection shows it.
    fn advertised_problem(&self, connection: &ConnectionInfo) -> Option<String> {
        if !connection.is_remote() {
            return None;
        }
        let bound = self.bound_listener(&connection.listener)?;
        let settings = self.topics.settings().current();
        let listener = settings
            .listeners
            .iter()
            .find(|listener| *listener.name == *connection.listener)?;
        config::diagnose_client(listener, bound.address.port(), connection.peer.ip())
    }

    /// Ends the background work and closes logs and facts. Nothing may be handled any more.
    pub(crate) async fn close(&self) -> Result<(), StartError> {
        self.stop.stop();
        let logs = self.logs.close().await;
        let facts = self.facts.close().await;
        logs?;
        facts?;
        Ok(())
    }
}

fn group_config(config: &BrokerConfig) -> GroupConfig {
    GroupConfig {
        min_session_timeout_ms: config.group_min_session_timeout_ms,
        max_session_timeout_ms: config.group_max_session_timeout_ms,
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
        max_group_size: config.group_max_size,
        offset_metadata_max_bytes: config.offset_metadata_max_bytes,
        offsets_retention_ms: config.offsets_retention_ms,
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
        consumer: settings::consumer_of(config, &Overrides::new()),
        streams: settings::streams_of(config, &Overrides::new()),
        share: settings::share_of(config, &Overrides::new()),
    }
}

fn transaction_config(config: &BrokerConfig) -> TransactionConfig {
    TransactionConfig {
        max_timeout_ms: config.transaction_max_timeout_ms,
        id_expiration_ms: config.transactional_id_expiration_ms,
        expiration_check_interval_ms: config.transaction_expiration_check_interval_ms,
    }
}

/// The work that time asks of the logs.
async fn maintain(broker: Arc<Broker>) {
    let interval_ms = broker
        .config
        .log_retention_check_interval_ms
        .clamp(1, MAINTENANCE_INTERVAL_MS);
    let mut interval = tokio::time::interval(Duration::from_millis(u64::try_from(interval_ms).unwrap_or(1)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stopped = broker.stop.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = stopped.as_mut() => return,
            _ = interval.tick() => {
                let (logs, now_ms) = (broker.logs.clone(), broker.clock.now_ms());
                let handle = tokio::runtime::Handle::current();
                // It syncs files, for which no worker waits.
                let done = tokio::task::spawn_blocking(move || handle.block_on(logs.maintain(now_ms)));
                if let Err(error) = done.await {
                    tracing::error!(%error, "maintenance of the logs broke off");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::Properties;
    use crate::net::Server;

    async fn started(advertised: &str) -> Server {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let properties = Properties::from([
            setting("listeners", "PLAINTEXT://127.0.0.1:0"),
            setting("advertised.listeners", advertised),
        ]);
        let engines = Engines {
            logs: Arc::new(milena_log::MemoryLogStore::default()),
            facts: Arc::new(milena_state::memory::MemoryStore::new()),
        };
        let config = BrokerConfig::new(properties).unwrap();
        let broker = Broker::start(config, engines, Arc::new(SystemClock))
            .await
            .unwrap();
        Server::start(broker).await.unwrap()
    }

    fn from(peer: &str, local: &str) -> ConnectionInfo {
        ConnectionInfo::new(
            Arc::from("PLAINTEXT"),
            peer.parse().unwrap(),
            local.parse().unwrap(),
        )
    }

    /// Trap 19. What is wrong with the address itself is told at start by `config::diagnose`.
    #[tokio::test]
    async fn trap_19_a_client_from_elsewhere_that_is_told_localhost_shows_the_wrong_address() {
        let server = started("PLAINTEXT://localhost:9092").await;
        let broker = server.broker();
        let elsewhere = broker
            .advertised_problem(&from("10.0.0.7:4000", "10.0.0.2:9092"))
            .unwrap();
        assert!(
            elsewhere.contains("localhost:9092") && elsewhere.contains("10.0.0.7"),
            "{elsewhere}"
        );
        assert!(elsewhere.contains("advertised.listeners"), "{elsewhere}");
        // The same machine, by whatever address it came.
        for (peer, local) in [
            ("127.0.0.1:4000", "127.0.0.1:9092"),
            ("10.0.0.2:4000", "10.0.0.2:9092"),
        ] {
            assert_eq!(broker.advertised_problem(&from(peer, local)), None);
        }
        server.shutdown().await.unwrap();
        let server = started("PLAINTEXT://broker.example:9092").await;
        assert_eq!(
            server
                .broker()
                .advertised_problem(&from("10.0.0.7:4000", "10.0.0.2:9092")),
            None
        );
        server.shutdown().await.unwrap();
    }
}
