//! What a step of the state machine works with besides the group that it is for.

use milena_protocol::Str;

use crate::timers::{TimerKey, Timers};
use crate::topics::TopicImage;
use crate::{Effects, GroupConfig};

#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) now_ms: i64,
    pub(crate) config: &'a GroupConfig,
    /// The topics as the driver last showed them; groups whose protocol is the members' own do not look.
    pub(crate) topics: &'a TopicImage,
    pub(crate) timers: &'a mut Timers,
    pub(crate) effects: &'a mut Effects,
}

impl Step<'_> {
    pub(crate) fn schedule_session(&mut self, group: &Str, member: &Str, timeout_ms: i64) {
        let key = TimerKey::Session {
            group: group.clone(),
            member: member.clone(),
        };
        self.timers.schedule(key, self.now_ms.saturating_add(timeout_ms));
    }

    pub(crate) fn cancel_session(&mut self, group: &Str, member: &Str) {
        self.timers.cancel(TimerKey::Session {
            group: group.clone(),
            member: member.clone(),
        });
    }
}
