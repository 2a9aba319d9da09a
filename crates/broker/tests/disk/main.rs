//! The broker on the disk engine, over real sockets: answers that go from files to the socket, waits
//! that end with a sync, and disks that fail or are full.

// A test says what it expects; a panic is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../data_plane/batches.rs"]
#[allow(dead_code)]
mod batches;
#[path = "../data_plane/harness.rs"]
#[allow(dead_code)]
mod harness;

mod cuts;
mod engine;
mod faults;
mod full;
mod hooked;
mod mixed;
mod moving;
mod offline;
mod slow;
mod waking;
