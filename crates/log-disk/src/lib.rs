//! The disk engine of partition logs, in Kafka's own file formats, so that `kafka-dump-log` and
//! everything else that reads Kafka's files reads these.
//!
//! Promises: with `durability=disk` the high watermark passes an append when it is on the disk; an
//! append is in the page cache before its future resolves, so the end of the process loses nothing; a
//! torn tail is cut at the last whole batch; an offset is never given out twice; a failed write or
//! sync takes the directory offline; what is deleted is gone at once and freed later.

mod aborted;
mod checkpoint;
mod cleaner;
mod commit;
mod directory;
mod disk;
mod files;
mod handle;
mod index;
mod journal;
mod kernel;
mod log;
mod meta_properties;
mod moving;
mod recovery;
mod replica;
mod retention;
mod ring;
mod search;
mod segment;
mod snapshot;
mod store;
mod txn_index;

pub use cleaner::CleanMode;
pub use commit::CommitMode;
pub use disk::{Change, Watch};
pub use kernel::KernelCommits;
pub use moving::MoveMode;
pub use store::{DiskLogStore, DiskOptions};
