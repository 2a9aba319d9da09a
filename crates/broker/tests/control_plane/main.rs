//! What the broker promises beside records: connections and hostile input, topics, configs,
//! metadata. In this process, over the memory engines, on ports that the system chooses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../data_plane/harness.rs"]
#[allow(dead_code)]
mod harness;

mod client_metrics;
mod cluster;
mod configs;
mod connections;
mod features;
mod hostile;
mod metadata;
mod quotas;
mod raw;
mod topics;
