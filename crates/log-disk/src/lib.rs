//! The disk engine of partition logs, in Kafka's own file formats, so that `kafka-dump-log` and
//! everything else that reads Kafka's files reads these.
//!
//! Promises: an append is in the page cache before it is answered, so the end of the process loses
//! nothing; a torn tail is cut at the last whole batch; an offset is never given out twice; what is
//! deleted is gone at once and freed later.
//!
//! Where the next parts go: **group commit** moves the high watermark in `log` after a sync instead
//! of after the write; **sendfile** makes `segment`'s read give a range of the file; **compaction**
//! runs from `LogStore::maintain` and swaps segments; the **transaction index** is one more index.

mod checkpoint;
mod directory;
mod files;
mod handle;
mod index;
mod log;
mod recovery;
mod retention;
mod search;
mod segment;
mod snapshot;
mod store;

pub use store::DiskLogStore;
