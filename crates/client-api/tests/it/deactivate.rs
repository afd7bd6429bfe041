//! Closing accounts, by their owners and by administrators, and the other jobs of an admin.

use exeunt_core::ruma::UserId;
use exeunt_users::NewAccount;
use serde_json::{Value, json};

use crate::common::{Client, Server, escape};

const PATH: &str = "/account/deactivate";

async fn admin(server: &Server) -> Client<'_> {
    let account = NewAccount { localpart: Some("root"), admin: true, ..NewAccount::default() };
    let user = server.api.users.register(account).await.unwrap();
    server.login(&user).await
}

async fn membership(client: &Client<'_>, room: &str, user: &str) -> Value {
    let path = format!("/rooms/{}/state/m.room.member/{}", escape(room), escape(user));
    client.get(&path).await.ok()["membership"].clone()
}

#[actix_web::test]
async fn an_account_is_closed_by_its_owner() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let account = NewAccount {
        localpart: Some("bob"),
        password: Some("wise old owl"),
        ..NewAccount::default()
    };
    let user = server.api.users.register(account).await.unwrap();
    let bob = server.login(&user).await;
    let room = ann.public_room().await;
    bob.join(&room).await;
    let send = format!("/rooms/{}/send/m.room.message/1", escape(&room));
    bob.put(&send, json!({ "body": "hello" })).await.ok();

    let challenge = bob.post(PATH, json!({})).await;
    assert_eq!(challenge.status, 401);
    let challenge = challenge.body;
    assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.password"] }]));
    let mut auth = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "bob" },
        "password": "guessed",
        "session": challenge["session"],
    });
    let wrong = bob.post(PATH, json!({ "auth": auth })).await;
    assert_eq!((wrong.status, &wrong.body["errcode"]), (401, &json!("M_FORBIDDEN")));
    assert_eq!(membership(&ann, &room, user.as_str()).await, "join");
    auth["password"] = "wise old owl".into();
    let wrong = json!({ "auth": auth, "erase": "all" });
    bob.post(PATH, wrong).await.fails(400, "M_BAD_JSON");
    let done = bob.post(PATH, json!({ "auth": auth, "erase": true })).await.ok();
    assert_eq!(done, json!({ "id_server_unbind_result": "no-support" }));

    bob.get("/account/whoami").await.fails(401, "M_UNKNOWN_TOKEN");
    let job = server.api.rooms.run_departure_job(&user).await.unwrap();
    assert_eq!((job.done, job.results.len()), (1, 1));
    assert_eq!(membership(&ann, &room, user.as_str()).await, "leave");
    assert_eq!(membership(&ann, &room, &ann.user).await, "join");
    let cat = server.user("cat").await;
    cat.join(&room).await;
    for (reader, is_seen) in [(&ann, true), (&cat, false)] {
        let path = format!("/rooms/{}/messages?dir=b&limit=50", escape(&room));
        let page = reader.get(&path).await.ok();
        assert_eq!(page["chunk"].to_string().contains("hello"), is_seen);
    }
}

#[actix_web::test]
async fn an_admin_closes_an_account_and_deletes_a_room() {
    let server = Server::new();
    let (ann, bob, root) =
        (server.user("ann").await, server.user("bob").await, admin(&server).await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let admin = "/_exeunt/admin/v1";
    let of_bob = format!("{admin}/users/{}", escape(&bob.user));
    root.get(&format!("{of_bob}/departure")).await.fails(404, "M_NOT_FOUND");
    ann.post(&format!("{of_bob}/deactivate"), json!({})).await.fails(403, "M_FORBIDDEN");
    root.post(&format!("{of_bob}/deactivate"), json!({})).await.ok();
    let user: &UserId = bob.user.as_str().try_into().unwrap();
    server.api.rooms.run_departure_job(user).await.unwrap();
    let job = root.get(&format!("{of_bob}/departure")).await.ok();
    assert_eq!(job["results"][0]["room_id"], *room);
    assert_eq!(job["results"][0]["ended"], json!({ "is": "left" }));

    let delete = format!("{admin}/rooms/{}/delete", escape(&room));
    let report = root.post(&delete, json!({ "reason": "tidy", "deadline_ms": 0 })).await.ok();
    assert_eq!((&report["left"], &report["failed"]), (&json!([ann.user]), &json!([])));
    assert!(report["events"].as_u64().unwrap() > 0);
    root.post(&delete, json!({})).await.ok();

    let triage = format!("{admin}/invites/triage");
    let dry = root.post(&triage, json!({ "inviter": ann.user })).await.ok();
    assert_eq!((&dry["matched"], &dry["rejected"]), (&json!(0), &json!(0)));
    root.post(&triage, json!({ "mode": "loud" })).await.fails(400, "M_BAD_JSON");
    let departure = format!("{admin}/departures/{}/{}", escape(&ann.user), escape(&room));
    root.delete(&departure).await.fails(404, "M_NOT_FOUND");
    assert_eq!(root.get(&format!("{admin}/set_aside")).await.ok(), json!({ "rows": [] }));
}

/// Pains C9: one user out of one room.
#[actix_web::test]
async fn an_admin_takes_one_user_out_of_one_room() {
    let server = Server::new();
    let (ann, bob, root) =
        (server.user("ann").await, server.user("bob").await, admin(&server).await);
    let [room, other] = [ann.public_room().await, ann.public_room().await];
    bob.join(&room).await;
    bob.join(&other).await;
    let leave = |room: &str, user: &str| {
        format!("/_exeunt/admin/v1/rooms/{}/leave/{}", escape(room), escape(user))
    };
    let path = leave(&room, &bob.user);
    bob.post(&path, json!({})).await.fails(403, "M_FORBIDDEN");
    root.post(&path, json!({ "reason": "moved" })).await.ok();
    let member = ann.state(&room, "m.room.member", &bob.user).await.unwrap();
    assert_eq!(member, json!({ "membership": "leave", "reason": "moved" }));
    assert_eq!(membership(&ann, &other, &bob.user).await, "join");
    root.post(&path, json!({})).await.ok();
    for nobody in ["@nobody:example.org", "@eve:else.org"] {
        root.post(&leave(&room, nobody), json!({})).await.fails(404, "M_NOT_FOUND");
    }
}
