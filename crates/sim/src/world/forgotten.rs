//! Rooms that users forget: their servers purge them, and know nothing of them from then on.

use std::time::Duration;

use exeunt_core::{
    RoomVersion,
    ruma::{OwnedRoomId, OwnedServerName, OwnedUserId},
};
use exeunt_store::{tables, waiting_events};
use tokio::time::Instant;

use super::{Acknowledged, World, resides, step::Ask, step::Step};

/// A user of that server asked to forget the room.
pub(super) struct Forgotten {
    server: OwnedServerName,
    room: OwnedRoomId,
    at: Instant,
}

impl World {
    pub(super) fn note_forgotten(&mut self, user: &OwnedUserId, asks: &Ask) {
        if let Ask::Forget { room } = asks {
            let (server, room) = (user.server_name().to_owned(), room.clone());
            self.forgotten.push(Forgotten { server, room, at: Instant::now() });
        }
    }

    /// Whether a user of the server has asked it to forget the room since the event was asked for.
    pub(super) fn was_forgotten(&self, told: &Acknowledged) -> bool {
        let mut forgotten = self.forgotten.iter();
        forgotten.any(|f| f.server == told.by && f.room == told.room && f.at >= told.asked)
    }

    /// A server that is not in a room answers no joins to it.
    pub(super) async fn outsiders_let_nobody_in(&self, failures: &mut Vec<String>) {
        let versions: Vec<_> = RoomVersion::all().map(|version| version.to_string()).collect();
        for room in &self.rooms {
            for server in self.mesh.servers.iter().filter(|server| !resides(server, room)) {
                let mut others = self.users.iter().filter(|user| user.server_name() != server.name);
                let Some(user) = others.next() else { continue };
                let answer = async {
                    let entry = server.rooms.admit(user.server_name(), room).await?;
                    server.rooms.make_join(&entry, user, &versions).await
                };
                if answer.await.is_ok() {
                    failures.push(format!("{} is not in {room}, and lets in {user}", server.name));
                }
            }
        }
    }

    /// Everybody leaves everything and forgets it: nothing is left of any room.
    pub(super) async fn farewell(&mut self) {
        for user in self.users.clone() {
            self.take(Step::Client { user, asks: Ask::DepartAll }).await;
            self.pass(Duration::from_secs(5)).await;
        }
        self.quiet().await;
        // An invite that never came to the room shows once its server has left.
        self.say_no().await;
        for user in self.users.clone() {
            let server = self.host(&user.server_name().to_owned());
            let rows = server.store.reader().scan::<tables::Memberships>(user.clone()).keys();
            for (_, room) in rows.expect("the store reads") {
                let user = user.clone();
                self.take(Step::Client { user, asks: Ask::Forget { room } }).await;
            }
        }
        self.pass(Duration::from_secs(60)).await;
        for server in &self.mesh.servers {
            if let Err(error) = server.rooms.sweep_forgotten().await {
                self.failures.push(format!("{}: no sweep: {error}", server.name));
            }
            let reader = server.store.reader();
            let rooms = reader.scan::<tables::Rooms>(()).keys().expect("the store reads");
            self.failures.extend(rooms.iter().map(|room| {
                let members = reader.scan::<tables::LocalMembers>(room.clone()).keys();
                let members = members.expect("the store reads").into_iter();
                let rows: Vec<_> = members.map(|(_, user)| server.row(&user, room)).collect();
                let is_in = resides(server, room);
                format!("{} keeps {room} (in it: {is_in}, {rows:?})", server.name)
            }));
            let events = reader.scan::<tables::Events>(()).collect().expect("the store reads");
            let waiting = waiting_events(&reader).expect("the store reads");
            let left = events
                .iter()
                .filter(|(id, event)| !rooms.contains(&event.room_id) && !waiting.contains(id));
            self.failures.extend(left.map(|(id, _)| format!("{} keeps {id}", server.name)));
        }
    }
}
