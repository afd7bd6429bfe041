//! The client-server API r0.6.1, which `/versions` offers and some clients still speak.

use crate::common::Server;

/// What we serve of it, below `/_matrix/client/r0`. The rest is in `planned.rs`.
#[rustfmt::skip]
const SERVED: [&str; 82] = [
    "GET /account/3pid",
    "POST /account/deactivate",
    "POST /account/password",
    "GET /account/whoami",
    "GET /admin/whois/{user_id}",
    "GET /capabilities",
    "POST /createRoom",
    "POST /delete_devices",
    "GET /devices",
    "DELETE /devices/{device_id}",
    "GET /devices/{device_id}",
    "PUT /devices/{device_id}",
    "GET /directory/list/room/{room_id}",
    "PUT /directory/list/room/{room_id}",
    "DELETE /directory/room/{room_alias}",
    "GET /directory/room/{room_alias}",
    "PUT /directory/room/{room_alias}",
    "POST /join/{room_id_or_alias}",
    "GET /events",
    "GET /joined_rooms",
    "GET /login",
    "POST /login",
    "POST /logout",
    "POST /logout/all",
    "GET /presence/{user_id}/status",
    "PUT /presence/{user_id}/status",
    "GET /profile/{user_id}",
    "GET /profile/{user_id}/avatar_url",
    "PUT /profile/{user_id}/avatar_url",
    "GET /profile/{user_id}/displayname",
    "PUT /profile/{user_id}/displayname",
    "GET /publicRooms",
    "POST /publicRooms",
    "GET /pushrules/",
    "DELETE /pushrules/{scope}/{kind}/{rule_id}",
    "GET /pushrules/{scope}/{kind}/{rule_id}",
    "PUT /pushrules/{scope}/{kind}/{rule_id}",
    "GET /pushrules/{scope}/{kind}/{rule_id}/actions",
    "PUT /pushrules/{scope}/{kind}/{rule_id}/actions",
    "GET /pushrules/{scope}/{kind}/{rule_id}/enabled",
    "PUT /pushrules/{scope}/{kind}/{rule_id}/enabled",
    "POST /register",
    "GET /register/available",
    "GET /rooms/{room_id}/aliases",
    "POST /rooms/{room_id}/ban",
    "GET /rooms/{room_id}/context/{event_id}",
    "GET /rooms/{room_id}/event/{event_id}",
    "POST /rooms/{room_id}/forget",
    "GET /rooms/{room_id}/initialSync",
    "POST /rooms/{room_id}/invite",
    "POST /rooms/{room_id}/join",
    "GET /rooms/{room_id}/joined_members",
    "POST /rooms/{room_id}/kick",
    "POST /rooms/{room_id}/leave",
    "GET /rooms/{room_id}/members",
    "GET /rooms/{room_id}/messages",
    "POST /rooms/{room_id}/read_markers",
    "POST /rooms/{room_id}/receipt/{receipt_type}/{event_id}",
    "PUT /rooms/{room_id}/redact/{event_id}/{txn_id}",
    "POST /rooms/{room_id}/report/{event_id}",
    "PUT /rooms/{room_id}/send/{event_type}/{txn_id}",
    "GET /rooms/{room_id}/state",
    "GET /rooms/{room_id}/state/{event_type}/{state_key}",
    "PUT /rooms/{room_id}/state/{event_type}/{state_key}",
    "PUT /rooms/{room_id}/typing/{user_id}",
    "POST /rooms/{room_id}/unban",
    "POST /rooms/{room_id}/upgrade",
    "POST /search",
    "GET /sync",
    "GET /thirdparty/protocols",
    "GET /user/{user_id}/account_data/{type}",
    "PUT /user/{user_id}/account_data/{type}",
    "POST /user/{user_id}/filter",
    "GET /user/{user_id}/filter/{filter_id}",
    "POST /user/{user_id}/openid/request_token",
    "GET /user/{user_id}/rooms/{room_id}/account_data/{type}",
    "PUT /user/{user_id}/rooms/{room_id}/account_data/{type}",
    "GET /user/{user_id}/rooms/{room_id}/tags",
    "DELETE /user/{user_id}/rooms/{room_id}/tags/{tag}",
    "PUT /user/{user_id}/rooms/{room_id}/tags/{tag}",
    "POST /user_directory/search",
    "GET /voip/turnServer",
];

/// It answers as v3 does, also to those who are not logged in.
#[actix_web::test]
async fn what_r0_6_1_has_is_served_below_its_paths() {
    let server = Server::new();
    let anyone = server.anyone();
    for endpoint in SERVED {
        let (method, path) = endpoint.split_once(' ').unwrap();
        let path = path.replace("{scope}", "global");
        let mut answers = Vec::new();
        for version in ["v3", "r0"] {
            let path = format!("/_matrix/client/{version}{path}");
            let answer = anyone.send(method.parse().unwrap(), &path, None).await;
            assert_ne!(answer.body["errcode"], "M_UNRECOGNIZED", "{method} {path}");
            answers.push((answer.status, answer.body["errcode"].clone()));
        }
        assert_eq!(answers[0], answers[1], "{endpoint}");
    }
}
