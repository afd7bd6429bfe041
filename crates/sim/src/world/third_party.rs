//! Invites to an address, which a user of another server redeems. The identity server is a key:
//! whoever asks is signed for.

use exeunt_core::{
    Signer,
    ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId},
};
use exeunt_room::{Intent, RoomError};
use serde_json::json;

use super::{World, resides, step::Ask, step::Step};
use crate::{events::object, remote::SimRemote};

const KIND: &str = "m.room.third_party_invite";

pub(super) fn identity_server() -> Signer {
    let name = OwnedServerName::try_from("id.example").expect("a server name");
    Signer::new(name, "ed25519:0", &[99; 32]).expect("a seed")
}

/// The third-party invite with that token.
pub(super) fn promise(user: &OwnedUserId, token: &str) -> Intent {
    let content = json!({
        "display_name": "s...@mail.example",
        "key_validity_url": "https://id.example/valid",
        "public_key": identity_server().public(),
    });
    Intent::state(user.clone(), KIND, token, object(content))
}

/// What is redeemed, at the server of who promised it.
#[derive(Debug, Clone)]
pub(super) struct Redeem {
    pub room: OwnedRoomId,
    inviter: OwnedUserId,
    token: String,
}

impl Redeem {
    /// The request as the server of the invited user makes it.
    pub async fn redeem(&self, remote: &SimRemote, user: &OwnedUserId) -> Result<(), RoomError> {
        let mut signed = object(json!({ "mxid": user, "token": self.token }));
        identity_server().sign_object(&mut signed);
        let body = object(json!({
            "type": "m.room.member",
            "room_id": self.room,
            "sender": self.inviter,
            "state_key": user,
            "content": { "membership": "invite", "third_party_invite": { "signed": signed } },
        }));
        let there = self.inviter.server_name();
        let exchanged = remote.exchange_third_party_invite(there, &self.room, &body);
        let failed = |error| RoomError::Remote { server: there.to_owned(), error };
        exchanged.await.map_err(failed)
    }
}

impl World {
    pub(super) fn promise(&self) -> Option<Step> {
        let (user, room) = self.who_is(&["join"])?;
        let token = format!("token{}", self.next);
        Some(Step::Client { user, asks: Ask::Promise { room, token } })
    }

    /// A user redeems what a user of another server has promised.
    pub(super) fn redeem(&self) -> Option<Step> {
        let promised: Vec<_> = self.rooms.iter().flat_map(|room| self.promised(room)).collect();
        let redeem = self.rng.pick(&promised)?.clone();
        let user = self.user()?;
        let own = self.host(&user.server_name().to_owned()).membership(&user, &redeem.room);
        let fits = user.server_name() != redeem.inviter.server_name()
            && own.is_none_or(|membership| membership == "leave");
        fits.then_some(Step::Client { user, asks: Ask::Redeem(redeem) })
    }

    /// What can be redeemed, as the first server in the room has it.
    fn promised(&self, room: &OwnedRoomId) -> Vec<Redeem> {
        let first = self.mesh.servers.iter().find(|server| resides(server, room));
        let Some(first) = first else { return Vec::new() };
        let promised = first.state(room).into_iter().filter(|(kind, ..)| kind == KIND);
        let redeem = |(_, token, id): (String, String, OwnedEventId)| {
            let inviter = first.event(&id)?.pdu.sender().to_owned();
            Some(Redeem { room: room.clone(), inviter, token })
        };
        promised.filter_map(redeem).collect()
    }
}
