//! Bugs planted around the coordinator, to show that the simulation would find them in it.

use milena_coordinator::{Effects, Reply};
use milena_protocol::Str;

use crate::consumer::Request;
use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    /// Commits are accepted whatever their generation.
    IgnoresGenerations,
    /// The old process of an instance is taken for the new one.
    IgnoresFencing,
    /// Commits are answered and not stored.
    ForgetsCommits,
    /// Assignments are answered and not stored.
    ForgetsAssignments,
    /// Now and then a reply is lost inside.
    LosesReplies,
    /// Members get each other's assignments.
    SwapsAssignments,
    /// A restart reads the facts and misses one.
    LoadsTooLittle,
}

impl Mutant {
    pub(crate) const ALL: [Self; 7] = [
        Self::IgnoresGenerations,
        Self::IgnoresFencing,
        Self::ForgetsCommits,
        Self::ForgetsAssignments,
        Self::LosesReplies,
        Self::SwapsAssignments,
        Self::LoadsTooLittle,
    ];

    /// What the coordinator takes the request for. `current` is the member id that holds the
    /// request's instance now.
    pub(crate) fn request(self, mut request: Request, generation: i32, current: Option<Str>) -> Request {
        if let Request::Commit(commit) = &mut request {
            match self {
                Self::IgnoresGenerations => commit.generation_id_or_member_epoch = generation,
                Self::IgnoresFencing => {
                    if let Some(current) = current {
                        commit.member_id = current;
                        commit.generation_id_or_member_epoch = generation;
                    }
                }
                _ => {}
            }
        }
        request
    }

    pub(crate) fn effects(self, mut effects: Effects, random: &mut Random) -> Effects {
        match self {
            Self::ForgetsCommits => effects.facts.retain(|fact| !fact.key.starts_with(b"offset/")),
            Self::ForgetsAssignments => {
                let syncs = effects
                    .replies
                    .iter()
                    .any(|(_, reply)| matches!(reply, Reply::SyncGroup(_)));
                effects
                    .facts
                    .retain(|fact| !syncs || !fact.key.starts_with(b"group/"));
            }
            Self::LosesReplies if random.chance(1) => {
                effects.replies.pop();
            }
            Self::SwapsAssignments => {
                let mut assignments: Vec<_> = effects
                    .replies
                    .iter_mut()
                    .filter_map(|(_, reply)| match reply {
                        Reply::SyncGroup(response) => Some(&mut response.assignment),
                        _ => None,
                    })
                    .collect();
                if let [first, second, ..] = &mut assignments[..] {
                    std::mem::swap(*first, *second);
                }
            }
            _ => {}
        }
        effects
    }
}
