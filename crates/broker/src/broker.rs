//! The broker's parts, and how they start and stop.

use std::sync::Arc;

use milena_log::{LogError, LogStore};
use milena_protocol::Str;
use milena_state::{StateError, StateStore};

use crate::clock::Clock;
use crate::config::BrokerConfig;
use crate::groups::Groups;
use crate::producer_ids::ProducerIds;
use crate::sessions::FetchSessions;
use crate::topics::Topics;

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
    pub(crate) config: BrokerConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) logs: Arc<dyn LogStore>,
    pub(crate) cluster_id: Str,
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) sessions: FetchSessions,
}
