//! The data plane and the groups over the wire: an in-process broker on memory engines, and raw
//! frames, so that every version and every field can be said, also those that no client says.

// A test says what it expects; a panic is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batches;
mod consumer_groups;
mod durability;
mod fetch;
mod groups;
mod harness;
mod lagging;
mod offsets;
mod produce;
mod sessions;
mod share;
mod share_groups;
mod streams_groups;
mod transactions;
mod versions;
