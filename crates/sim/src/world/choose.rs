//! Which step comes next: mostly one that makes sense, as far as the servers' own tables tell.

use exeunt_core::{
    RoomVersion,
    ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId},
};
use exeunt_room::Preset;
use serde_json::json;

use super::{World, step::Ask, step::Step};
use crate::Weather;

/// Rooms of a run.
const MAX_ROOMS: usize = 4;
/// Draws until a step is found that makes sense.
const MAX_DRAWS: usize = 50;

impl World {
    pub(super) fn choose(&mut self) -> Step {
        if self.rooms.is_empty() {
            let step = self.create();
            return step.unwrap_or_else(|| Step::Weather(Weather::of(&self.rng)));
        }
        for _ in 0..MAX_DRAWS {
            if let Some(step) = self.draw() {
                return step;
            }
        }
        Step::Weather(Weather::of(&self.rng))
    }

    fn draw(&self) -> Option<Step> {
        match self.rng.below(120) {
            0..3 if self.rooms.len() < MAX_ROOMS => self.create(),
            3..17 => self.invite(),
            17..31 => self.join(),
            31..36 => self.knock(),
            36..48 => self.leave(),
            48..49 => self.client(self.user()?, Ask::DepartAll),
            49..57 => self.expel(),
            57..62 => self.unban(),
            62..72 => self.send(),
            72..82 => self.set(),
            82..84 => self.redact(),
            84..97 => self.break_something(),
            97..100 => Some(Step::Weather(Weather::of(&self.rng))),
            100..107 => self.forget(),
            107..108 => self.sweep(),
            108..110 if self.rooms.len() < MAX_ROOMS => self.upgrade(),
            110..114 => self.follow(),
            114..117 => self.promise(),
            117..120 => self.redeem(),
            _ => None,
        }
    }

    fn client(&self, user: OwnedUserId, asks: Ask) -> Option<Step> {
        Some(Step::Client { user, asks })
    }

    /// A user whose server runs.
    pub(super) fn user(&self) -> Option<OwnedUserId> {
        let user = self.rng.pick(&self.users)?;
        self.host(&user.server_name().to_owned()).is_up().then(|| user.clone())
    }

    fn room(&self) -> Option<OwnedRoomId> {
        self.rng.pick(&self.rooms).cloned()
    }

    /// A user, as their server has them, in a room.
    pub(super) fn who_is(&self, fits: &[&str]) -> Option<(OwnedUserId, OwnedRoomId)> {
        let (user, room) = (self.user()?, self.room()?);
        let membership = self.host(&user.server_name().to_owned()).membership(&user, &room);
        let membership = membership.unwrap_or_default();
        // Now and then somebody asks for what is not theirs.
        (fits.contains(&membership.as_str()) || self.rng.percent(2)).then_some((user, room))
    }

    fn create(&self) -> Option<Step> {
        let versions: Vec<_> = RoomVersion::all().collect();
        let version = *self.rng.pick(&versions)?;
        let preset = if self.rng.percent(50) { Preset::Public } else { Preset::Private };
        let equals = self.rng.percent(50);
        let knock = version.rules().authorization.knocking && self.rng.percent(25);
        self.client(self.user()?, Ask::Create { version, preset, equals, knock })
    }

    fn upgrade(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["join"])?;
        let versions: Vec<_> = RoomVersion::all().collect();
        let version = *self.rng.pick(&versions)?;
        let others = self.users.iter().filter(|other| **other != user);
        let with = self.rng.pick(&others.cloned().collect::<Vec<_>>())?.clone();
        let with = self.rng.percent(30).then_some(with);
        self.client(user, Ask::Upgrade { room, version, with })
    }

    /// A member of a room that was upgraded joins the new one, by way of who upgraded it.
    fn follow(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["join"])?;
        let server = self.host(&user.server_name().to_owned());
        if !super::knows(server, &room) {
            return None;
        }
        let tombstone =
            server.graph(&room, |graph| graph.current("m.room.tombstone", "")).ok()??;
        let new = tombstone.content_str("replacement_room")?;
        let room = self.rooms.iter().find(|room| *room == new)?.clone();
        let joined = server.membership(&user, &room).as_deref() == Some("join");
        let via = vec![tombstone.sender().server_name().to_owned()];
        (!joined).then_some(Step::Client { user, asks: Ask::Join { room, via } })
    }

    fn invite(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["join"])?;
        let knocks =
            |target: &&OwnedUserId| self.known_as(&user, target, &room).as_deref() == Some("knock");
        let knocking = self.users.iter().find(knocks).filter(|_| self.rng.percent(50));
        let target = knocking.or_else(|| self.rng.pick(&self.users))?.clone();
        self.client(user, Ask::Invite { target, room })
    }

    fn join(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["invite", "knock", "leave", ""])?;
        let via = self.via(&user);
        self.client(user, Ask::Join { room, via })
    }

    fn knock(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["leave", ""])?;
        let first = self.mesh.servers.iter().find(|server| super::resides(server, &room))?;
        let rules = first.graph(&room, |graph| graph.current("m.room.join_rules", "")).ok()??;
        let rule = rules.content_str("join_rule").unwrap_or_default().to_owned();
        let via = self.via(&user);
        (rule.starts_with("knock") || self.rng.percent(2))
            .then_some(Step::Client { user, asks: Ask::Knock { room, via } })
    }

    /// Some servers that may help to enter a room.
    fn via(&self, user: &OwnedUserId) -> Vec<OwnedServerName> {
        let others = self.mesh.servers.iter().map(|server| server.name.clone());
        let mut via: Vec<_> = others.filter(|name| *name != *user.server_name()).collect();
        let first = self.rng.below(via.len() as u64) as usize;
        via.rotate_left(first);
        via.truncate(1 + self.rng.below(3) as usize);
        via
    }

    fn leave(&self) -> Option<Step> {
        // Invites are rejected more often than rooms are left.
        let fits: &[&str] =
            if self.rng.percent(70) { &["invite", "knock"] } else { &["join", "invite", "knock"] };
        let (user, room) = self.who_is(fits)?;
        self.client(user, Ask::Leave { room })
    }

    fn forget(&self) -> Option<Step> {
        let left = self.users.iter().flat_map(|user| {
            let server = self.host(&user.server_name().to_owned());
            let fits = move |room: &&OwnedRoomId| {
                let row = server.row(user, room).filter(|row| !row.forgotten);
                row.is_some_and(|row| matches!(row.membership.as_str(), "leave" | "ban"))
            };
            let rooms = self.rooms.iter().filter(|_| server.is_up()).filter(fits);
            // Those that there is something to purge of come first.
            rooms.map(move |room| (!super::knows(server, room), user.clone(), room.clone()))
        });
        let mut left: Vec<_> = left.collect();
        if left.iter().any(|(unknown, ..)| !unknown) && self.rng.percent(80) {
            left.retain(|(unknown, ..)| !unknown);
        }
        let (_, user, room) = self.rng.pick(&left)?.clone();
        self.client(user, Ask::Forget { room })
    }

    fn sweep(&self) -> Option<Step> {
        let server = self.rng.pick(&self.mesh.servers)?;
        server.is_up().then(|| Step::Sweep { server: server.name.clone() })
    }

    fn target(&self) -> Option<(OwnedUserId, OwnedUserId, OwnedRoomId)> {
        let (user, room) = self.who_is(&["join"])?;
        let target = self.rng.pick(&self.users)?.clone();
        Some((user, target, room))
    }

    fn expel(&self) -> Option<Step> {
        let (user, target, room) = self.target()?;
        let known = self.known_as(&user, &target, &room)?;
        match known.as_str() {
            "join" | "invite" | "knock" if self.rng.percent(60) => {
                self.client(user, Ask::Kick { target, room })
            }
            "join" | "invite" | "knock" | "leave" => self.client(user, Ask::Ban { target, room }),
            _ => None,
        }
    }

    fn unban(&self) -> Option<Step> {
        let (user, target, room) = self.target()?;
        let known = self.known_as(&user, &target, &room)?;
        if known != "ban" {
            return None;
        }
        self.client(user, Ask::Unban { target, room })
    }

    /// What the user's server has the target as.
    fn known_as(
        &self,
        user: &OwnedUserId,
        target: &OwnedUserId,
        room: &OwnedRoomId,
    ) -> Option<String> {
        let server = self.host(&user.server_name().to_owned());
        super::knows(server, room).then(|| server.in_state(target, room))?
    }

    fn send(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["join"])?;
        let text = format!("{}", self.next);
        self.client(user, Ask::Say { room, text })
    }

    fn set(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["join"])?;
        let (kind, content) = match self.rng.below(6) {
            0 => ("m.room.name", json!({ "name": format!("{}", self.next) })),
            1 => ("m.room.topic", json!({ "topic": format!("{}", self.next) })),
            2 | 3 => ("m.room.join_rules", self.join_rules(&user, &room)?),
            4 => ("m.room.server_acl", self.acl(&user)?),
            _ => ("m.room.power_levels", self.levels(&user, &room)?),
        };
        self.client(user, Ask::Set { room, kind, content })
    }

    /// One of the rules that the room's version knows.
    fn join_rules(&self, user: &OwnedUserId, room: &OwnedRoomId) -> Option<serde_json::Value> {
        let server = self.host(&user.server_name().to_owned());
        let known =
            super::knows(server, room).then(|| server.graph(room, |graph| graph.version))?;
        let known = &known.rules().authorization;
        let mut rules = vec!["public", "public", "invite"];
        rules.extend(known.knocking.then_some("knock"));
        rules.extend(known.restricted_join_rule.then_some("restricted"));
        rules.extend(known.knock_restricted_join_rule.then_some("knock_restricted"));
        let rule = self.rng.pick(&rules)?;
        // A room that allows itself allows nobody.
        let allowed = self.rng.pick(&self.rooms);
        let allow = json!([{ "type": "m.room_membership", "room_id": allowed }]);
        Some(json!({ "join_rule": rule, "allow": allow }))
    }

    /// Denies a server other than the user's own, or lets all in.
    fn acl(&self, user: &OwnedUserId) -> Option<serde_json::Value> {
        let others = self.mesh.servers.iter().filter(|server| server.name != *user.server_name());
        let others: Vec<_> = others.map(|server| server.name.clone()).collect();
        let denied = self.rng.pick(&others)?;
        let denied = self.rng.percent(60).then_some(denied);
        Some(super::acl::content(denied))
    }

    /// The levels in force, with one user's changed.
    fn levels(&self, user: &OwnedUserId, room: &OwnedRoomId) -> Option<serde_json::Value> {
        let server = self.host(&user.server_name().to_owned());
        if !super::knows(server, room) {
            return None;
        }
        let levels = server.graph(room, |graph| graph.current("m.room.power_levels", ""));
        let mut content = levels.ok()??.content().clone();
        let target = self.rng.pick(&self.users)?;
        let level = [0, 50, 50, 100][self.rng.below(4) as usize];
        content.get_mut("users")?.as_object_mut()?.insert(target.to_string(), level.into());
        Some(content.into())
    }

    fn redact(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["join"])?;
        let server = self.host(&user.server_name().to_owned());
        let events: Vec<OwnedEventId> = server.timeline(&room);
        let event = self.rng.pick(&events)?.clone();
        self.client(user, Ask::Redact { room, event })
    }

    fn break_something(&self) -> Option<Step> {
        let server = self.rng.pick(&self.mesh.servers)?;
        let (name, up) = (server.name.clone(), server.is_up());
        let others: Vec<OwnedServerName> =
            self.mesh.servers.iter().map(|s| s.name.clone()).filter(|n| *n != name).collect();
        let other = self.rng.pick(&others)?.clone();
        Some(match self.rng.below(100) {
            0..15 => Step::Isolate { server: name },
            15..40 => Step::Heal { server: name },
            40..55 => Step::Cut { from: name, to: other },
            55..65 => Step::Restore { from: name, to: other },
            65..82 if up => Step::Crash { server: name },
            82..100 if up && !self.doomed.contains(&name) => {
                Step::Torn { server: name, keep: self.rng.percent(50) }
            }
            _ => return None,
        })
    }
}
