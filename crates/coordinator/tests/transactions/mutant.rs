//! Bugs that are planted around the coordinator, to show that they would be found in it.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    /// The transaction counts as complete before its markers are written.
    LateMarker,
    /// Partitions take what a fenced producer sends.
    MissedFence,
    LastStableTooHigh,
    /// Offsets take effect before the decision is stored.
    OffsetsBeforeMarkers,
    /// What clients that keep their epoch sent for one transaction reaches the next.
    OvertakenRequests,
    /// A producer that goes on is given its id and epoch as whoever holds them now.
    MissedFenceOfInit,
    /// A producer whose epochs are used up gets an id that had producers before.
    OldProducerId,
    /// A plain commit does not take the place of what is pending.
    PlainCommitLoses,
    /// A task of an earlier load ends whatever offsets the producer has pending.
    StaleOffsets,
    /// Partitions take the markers of former coordinators.
    StaleMarkers,
    /// An id expires though its transaction is being ended.
    ExpiresTooEarly,
    /// An offset counts only if its time is later than the one's before.
    ClockDecides,
}

impl Mutant {
    pub(crate) const ALL: [Self; 12] = [
        Self::LateMarker,
        Self::MissedFence,
        Self::LastStableTooHigh,
        Self::OffsetsBeforeMarkers,
        Self::OvertakenRequests,
        Self::MissedFenceOfInit,
        Self::OldProducerId,
        Self::PlainCommitLoses,
        Self::StaleOffsets,
        Self::StaleMarkers,
        Self::ExpiresTooEarly,
        Self::ClockDecides,
    ];
}
