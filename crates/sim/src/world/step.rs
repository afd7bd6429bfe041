//! What can happen.

use std::fmt;

use exeunt_core::{
    Object, RoomVersion,
    ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId},
};
use exeunt_room::{Intent, NewRoom, Preset, RoomError, Rooms, Upgrade};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::third_party::{self, Redeem};
use crate::{Weather, remote::SimRemote};

#[derive(Debug, Clone)]
pub(super) enum Step {
    Client {
        user: OwnedUserId,
        asks: Ask,
    },
    /// Requests one way get lost.
    Cut {
        from: OwnedServerName,
        to: OwnedServerName,
    },
    Restore {
        from: OwnedServerName,
        to: OwnedServerName,
    },
    Isolate {
        server: OwnedServerName,
    },
    Heal {
        server: OwnedServerName,
    },
    Crash {
        server: OwnedServerName,
    },
    /// The next write fails; whether it is there afterwards is `keep`.
    Torn {
        server: OwnedServerName,
        keep: bool,
    },
    Start {
        server: OwnedServerName,
    },
    /// The server's hourly look for rooms that everybody has forgotten.
    Sweep {
        server: OwnedServerName,
    },
    Weather(Weather),
}

impl Step {
    pub fn is_leave(&self) -> bool {
        matches!(self, Step::Client { asks: Ask::Leave { .. }, .. })
    }
}

/// What a client asks its server for.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Create {
        version: RoomVersion,
        preset: Preset,
        equals: bool,
        knock: bool,
    },
    Invite {
        target: OwnedUserId,
        room: OwnedRoomId,
    },
    /// A third-party invite.
    Promise {
        room: OwnedRoomId,
        token: String,
    },
    Redeem(Redeem),
    Join {
        room: OwnedRoomId,
        via: Vec<OwnedServerName>,
    },
    Knock {
        room: OwnedRoomId,
        via: Vec<OwnedServerName>,
    },
    Leave {
        room: OwnedRoomId,
    },
    /// Replaces the room; `with` is the other creator of the new one.
    Upgrade {
        room: OwnedRoomId,
        version: RoomVersion,
        with: Option<OwnedUserId>,
    },
    /// Changes the name in all rooms.
    Rename {
        name: String,
    },
    Forget {
        room: OwnedRoomId,
    },
    /// Leaves all rooms, rejects all invites, takes back all knocks.
    DepartAll,
    Kick {
        target: OwnedUserId,
        room: OwnedRoomId,
    },
    Ban {
        target: OwnedUserId,
        room: OwnedRoomId,
    },
    Unban {
        target: OwnedUserId,
        room: OwnedRoomId,
    },
    Say {
        room: OwnedRoomId,
        text: String,
    },
    Set {
        room: OwnedRoomId,
        kind: &'static str,
        content: Value,
    },
    Redact {
        room: OwnedRoomId,
        event: OwnedEventId,
    },
}

pub(super) struct Done {
    pub number: u64,
    pub outcome: Outcome,
    pub at: Instant,
}

pub(super) enum Outcome {
    Room(OwnedRoomId),
    Event(OwnedRoomId, OwnedEventId),
    Fine,
    Refused(String),
}

impl Ask {
    pub async fn ask(self, rooms: &Rooms, remote: &SimRemote, user: &OwnedUserId) -> Outcome {
        let outcome = self.try_to(rooms, remote, user).await;
        outcome.unwrap_or_else(|error| Outcome::Refused(error.to_string()))
    }

    async fn try_to(
        self,
        rooms: &Rooms,
        remote: &SimRemote,
        user: &OwnedUserId,
    ) -> Result<Outcome, RoomError> {
        let (room, event) = match self {
            Ask::Create { version, preset, equals, knock } => {
                let room = new_room(user, version, preset, equals, knock);
                return rooms.create_room(room).await.map(Outcome::Room);
            }
            Ask::Invite { target, room } => {
                rooms.invite(user, &target, &room, Object::new()).await?;
                return Ok(Outcome::Fine);
            }
            Ask::Promise { room, token } => {
                let event = rooms.append(&room, third_party::promise(user, &token)).await?;
                (room, event)
            }
            Ask::Redeem(redeem) => {
                redeem.redeem(remote, user).await?;
                return Ok(Outcome::Fine);
            }
            Ask::Join { room, via } => {
                rooms.join(user, &room, &via, Object::new()).await?;
                return Ok(Outcome::Fine);
            }
            Ask::Knock { room, via } => {
                rooms.knock(user, &room, &via, Object::new()).await?;
                return Ok(Outcome::Fine);
            }
            Ask::DepartAll => {
                rooms.depart_all(user).await?;
                return Ok(Outcome::Fine);
            }
            Ask::Upgrade { room, version, with } => {
                let upgrade = Upgrade {
                    user: user.clone(),
                    profile: Object::new(),
                    version,
                    additional_creators: with.into_iter().collect(),
                };
                return rooms.upgrade(&room, upgrade).await.map(Outcome::Room);
            }
            Ask::Rename { name } => {
                let profile = object(json!({ "displayname": name }));
                rooms.update_profile(user, profile).await?;
                return Ok(Outcome::Fine);
            }
            Ask::Forget { room } => {
                rooms.forget(user, &room).await?;
                return Ok(Outcome::Fine);
            }
            Ask::Leave { room } => {
                rooms.leave(user, &room, None).await?;
                return Ok(Outcome::Fine);
            }
            Ask::Kick { target, room } => {
                let event = rooms.kick(user, &target, &room, None).await?;
                (room, event)
            }
            Ask::Ban { target, room } => {
                let event = rooms.ban(user, &target, &room, None).await?;
                (room, event)
            }
            Ask::Unban { target, room } => {
                let event = rooms.unban(user, &target, &room, None).await?;
                (room, event)
            }
            Ask::Say { room, text } => {
                let content = object(json!({ "msgtype": "m.text", "body": text }));
                let intent = Intent::message(user.clone(), "m.room.message", content);
                let event = rooms.append(&room, intent).await?;
                (room, event)
            }
            Ask::Set { room, kind, content } => {
                let intent = Intent::state(user.clone(), kind, "", object(content));
                let event = rooms.append(&room, intent).await?;
                (room, event)
            }
            Ask::Redact { room, event } => {
                let content = object(json!({ "redacts": event }));
                let mut intent = Intent::message(user.clone(), "m.room.redaction", content);
                intent.redacts = Some(event);
                let event = rooms.append(&room, intent).await?;
                (room, event)
            }
        };
        Ok(Outcome::Event(room, event))
    }
}

/// `equals`: everyone may do nearly everything, so that there is something to resolve.
fn new_room(
    user: &OwnedUserId,
    version: RoomVersion,
    preset: Preset,
    equals: bool,
    knock: bool,
) -> NewRoom {
    let mut levels = Object::new();
    if equals {
        levels.insert("users_default".into(), 50.into());
        levels.insert("events".into(), json!({ "m.room.power_levels": 100 }));
    }
    let rule =
        ("m.room.join_rules".to_owned(), String::new(), object(json!({ "join_rule": "knock" })));
    NewRoom {
        initial_state: knock.then_some(rule).into_iter().collect(),
        power_level_override: levels,
        ..NewRoom::new(user.clone(), version, preset)
    }
}

fn object(value: Value) -> Object {
    crate::events::object(value)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Client { user, asks } => write!(f, "{user}: {asks:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Room(room) => write!(f, "{room}"),
            Outcome::Event(_, event) => write!(f, "{event}"),
            Outcome::Fine => write!(f, "done"),
            Outcome::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}
