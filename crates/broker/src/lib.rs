//! The broker: listeners and connections, dispatch of requests to [`handlers`] (one file per API),
//! and what the handlers share: topics, partitions, groups, fetch sessions, configuration.
//!
//! Arrows point one way: `net` -> `dispatch` -> `handlers` -> [`Broker`] and its parts. A handler
//! never sees a file, a socket or SQL: bytes are behind [`milena_log::LogStore`], facts behind
//! [`milena_state::StateStore`], decisions about groups in `milena_coordinator`.

pub mod config;

mod api_error;
mod broker;
mod client_metrics;
mod clock;
mod context;
mod dispatch;
mod eligible_replicas;
mod features;
mod group_configs;
mod groups;
mod handlers;
mod loggers;
mod net;
mod outcome;
mod partitions;
mod producer_ids;
mod quotas;
mod sessions;
mod settings;
mod shards;
mod share;
mod small_facts;
mod stop;
mod topics;
mod transactions;

pub use broker::{Broker, Engines, StartError};
pub use clock::{Clock, ManualClock, SystemClock};
pub use loggers::{LogLevel, LogLevels, Loggers};
pub use net::{BoundListener, Endpoint, Server};
