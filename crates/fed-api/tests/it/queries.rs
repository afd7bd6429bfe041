//! Directory, profiles, and the reads' parameters.

use exeunt_core::RoomVersion;
use exeunt_room::{NewRoom, Preset};
use serde_json::json;

use crate::common::{plain, site};

#[actix_web::test]
async fn profiles_of_local_users() {
    let site = site().await;
    let users = &site.a().users;
    users.set_displayname(&site.ann, Some("Ann")).await.unwrap();
    users.set_avatar_url(&site.ann, Some("mxc://a.example/x")).await.unwrap();
    let path = "/_matrix/federation/v1/query/profile?user_id=%40ann%3Aa.example";
    let whole = json!({ "displayname": "Ann", "avatar_url": "mxc://a.example/x" });
    assert_eq!(site.get(site.b(), path).await.ok(), whole);
    let field = format!("{path}&field=displayname");
    assert_eq!(site.get(site.b(), &field).await.ok(), json!({ "displayname": "Ann" }));
    users.set_profile_field(&site.ann, "m.tz", Some("Europe/Paris".into())).await.unwrap();
    let field = format!("{path}&field=m.tz");
    assert_eq!(site.get(site.b(), &field).await.ok(), json!({ "m.tz": "Europe/Paris" }));
    assert_eq!(site.get(site.b(), path).await.ok()["m.tz"], "Europe/Paris");
    let unset = format!("{path}&field=org.example.mood");
    assert_eq!(site.get(site.b(), &unset).await.ok(), json!({}));
    for user in ["%40nobody%3Aa.example", "%40cat%3Ac.example"] {
        let path = format!("/_matrix/federation/v1/query/profile?user_id={user}");
        site.get(site.b(), &path).await.expect(404, "M_NOT_FOUND");
    }
    let path = "/_matrix/federation/v1/query/profile";
    site.get(site.b(), path).await.expect(400, "M_MISSING_PARAM");
    let path = "/_matrix/federation/v1/query/profile?user_id=ann";
    site.get(site.b(), path).await.expect(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn aliases_of_this_server() {
    let site = site().await;
    let room = NewRoom {
        alias: Some("#hall:a.example".try_into().unwrap()),
        ..NewRoom::new(site.ann.clone(), RoomVersion::latest(), Preset::Public)
    };
    let room = site.a().rooms.create_room(room).await.unwrap();
    let path = "/_matrix/federation/v1/query/directory?room_alias=%23hall%3Aa.example";
    let expected = json!({ "room_id": room, "servers": ["a.example"] });
    assert_eq!(site.get(site.b(), path).await.ok(), expected);
    for alias in ["%23nothing%3Aa.example", "%23hall%3Ac.example"] {
        let path = format!("/_matrix/federation/v1/query/directory?room_alias={alias}");
        site.get(site.b(), &path).await.expect(404, "M_NOT_FOUND");
    }
}

#[actix_web::test]
async fn parameters_of_reads() {
    let site = site().await;
    let b = site.b();
    let bob = b.user("bob");
    b.join(&bob, &site.room, site.a()).await.unwrap();
    let said = site.a().say(&site.ann, &site.room, "hello").await;
    let (room, event) = (site.room.as_str().replace('!', "%21"), said.as_str().replace('$', "%24"));
    let fed = "/_matrix/federation/v1";
    for (read, list) in [("state", "pdus"), ("state_ids", "pdu_ids")] {
        let path = format!("{fed}/{read}/{room}");
        site.get(b, &path).await.expect(400, "M_MISSING_PARAM");
        site.get(b, &format!("{path}?event_id=x")).await.expect(400, "M_INVALID_PARAM");
        let answer = site.get(b, &format!("{path}?event_id={event}")).await.ok();
        assert_eq!(answer[list].as_array().unwrap().len(), site.a().state(&site.room).len());
        site.get(site.c(), &format!("{path}?event_id={event}")).await.expect(403, "M_FORBIDDEN");
    }
    let path = format!("{fed}/backfill/{room}");
    site.get(b, &path).await.expect(400, "M_MISSING_PARAM");
    site.get(b, &format!("{path}?v={event}")).await.expect(400, "M_MISSING_PARAM");
    site.get(b, &format!("{path}?v={event}&limit=x")).await.expect(400, "M_INVALID_PARAM");
    let answer = site.get(b, &format!("{path}?v={event}&limit=1")).await.ok();
    assert_eq!(answer["pdus"][0]["content"]["body"], "hello");
    let answer = site.get(b, &format!("{fed}/event/{event}")).await.ok();
    assert_eq!(answer["pdus"][0]["content"]["body"], "hello");
    let answer = site.get(b, &format!("{fed}/event_auth/{room}/{event}")).await.ok();
    assert!(answer["auth_chain"].is_array());
    let path = format!("{fed}/timestamp_to_event/{room}");
    for query in ["", "?ts=1", "?dir=f"] {
        site.get(b, &format!("{path}{query}")).await.expect(400, "M_MISSING_PARAM");
    }
    for query in ["?ts=x&dir=f", "?ts=1&dir=x"] {
        site.get(b, &format!("{path}{query}")).await.expect(400, "M_INVALID_PARAM");
    }
    let ts = u64::MAX / 4;
    let answer = site.get(b, &format!("{path}?ts={ts}&dir=b")).await.ok();
    assert_eq!(answer["event_id"], said.as_str());
    site.get(b, &format!("{path}?ts={ts}&dir=f")).await.expect(404, "M_NOT_FOUND");
    site.get(site.c(), &format!("{path}?ts={ts}&dir=b")).await.expect(403, "M_FORBIDDEN");
    let path = format!("{fed}/get_missing_events/{room}");
    site.post(b, &path, json!({})).await.expect(400, "M_BAD_JSON");
    let body =
        json!({ "earliest_events": [], "latest_events": [said], "limit": 1, "min_depth": -1 });
    assert_eq!(site.post(b, &path, body).await.ok()["events"].as_array().unwrap().len(), 1);
}

/// Who asks has no key to sign with.
#[actix_web::test]
async fn whose_openid_token_it_is() {
    let site = site().await;
    let token = site.a().users.openid_token(&site.ann).unwrap();
    let ask = async |query: &str| {
        let path = format!("/_matrix/federation/v1/openid/userinfo{query}");
        site.send(plain("GET", &path, None)).await
    };
    let answer = ask(&format!("?access_token={token}")).await.ok();
    assert_eq!(answer, json!({ "sub": site.ann }));
    ask("?access_token=exo_nonsense").await.expect(401, "M_UNKNOWN_TOKEN");
    ask("").await.expect(401, "M_MISSING_TOKEN");
}
