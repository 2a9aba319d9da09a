//! The content of one file: what has reached the disk, and what may have.

use super::random::Random;

/// What a disk writes at once, or not.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
pub(crate) enum Pending {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

/// A file: its content on the disk, and the changes since its last sync.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) durable: Vec<u8>,
    pub(crate) pending: Vec<Pending>,
}

impl Node {
    pub(crate) fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            pending.apply(&mut self.durable);
        }
    }

    /// The content with some of the sectors that were written since the last sync, and a length that
    /// it had since then, or one on the way there.
    pub(crate) fn survive(&self, kept_in_hundred: usize, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        let mut lengths = vec![content.len()];
        let mut latest = content.clone();
        for pending in &self.pending {
            pending.apply(&mut latest);
            lengths.push(latest.len());
            match pending {
                Pending::Length(length) if random.below(100) < kept_in_hundred => {
                    content.resize(*length, 0);
                }
                Pending::Length(_) => {}
                Pending::Write { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
                        if random.below(100) < kept_in_hundred {
                            let sector = Pending::Write {
                                at: at + from,
                                bytes: bytes[from..to].to_vec(),
                            };
                            sector.apply(&mut content);
                        }
                        from = to;
                    }
                }
            }
        }
        let length = lengths[random.below(lengths.len())];
        let (least, most) = (length.min(latest.len()), length.max(latest.len()));
        let length = match random.below(3) {
            0 => least,
            1 => most,
            _ => least + random.below(most - least + 1),
        };
        // Nothing that was synced is lost, unless it was cut off.
        let cut = self
            .pending
            .iter()
            .any(|pending| matches!(pending, Pending::Length(_)));
        content.resize(
            if cut {
                length
            } else {
                length.max(self.durable.len())
            },
            0,
        );
        content
    }
}
