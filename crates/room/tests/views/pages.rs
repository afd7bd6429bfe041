//! Whatever the limits, sync and paging back show every event once and in order, and a client
//! that follows sync has the state of the room.

use std::collections::BTreeMap;

use exeunt_room::views::{Direction, Token};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bench::{bench, ids, user};

#[derive(Debug, Clone)]
enum Step {
    Say(u8),
    Name,
    Topic,
    BobJoins,
    BobLeaves,
    Sync { limit: u64, page: u64, after: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..15u8).prop_map(Step::Say),
        1 => Just(Step::Name),
        1 => Just(Step::Topic),
        1 => Just(Step::BobJoins),
        1 => Just(Step::BobLeaves),
        3 => (0..12u64, 1..6u64, any::<bool>())
            .prop_map(|(limit, page, after)| Step::Sync { limit, page, after }),
    ];
    proptest::collection::vec(step, 1..25)
}

type State = BTreeMap<(String, String), String>;

fn apply(state: &mut State, events: &[Value]) {
    for event in events.iter().filter(|event| event.get("state_key").is_some()) {
        let text = |field: &str| event[field].as_str().unwrap().to_owned();
        state.insert((text("type"), text("state_key")), text("event_id"));
    }
}

async fn run(steps: Vec<Step>) {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    let (mut since, mut seen, mut state) = (None, Vec::<String>::new(), State::new());
    let last = Step::Sync { limit: 3, page: 2, after: false };
    for (number, step) in steps.into_iter().chain([last]).enumerate() {
        let (limit, page_size, use_state_after) = match step {
            Step::Say(times) => {
                for _ in 0..times {
                    bench.say(&alice, &room, "text").await;
                }
                continue;
            }
            Step::Name => {
                let name = json!({ "name": number.to_string() });
                bench.set(&alice, &room, "m.room.name", name).await;
                continue;
            }
            Step::Topic => {
                let topic = json!({ "topic": number.to_string() });
                bench.set(&alice, &room, "m.room.topic", topic).await;
                continue;
            }
            Step::BobJoins => {
                bench.join(&bob, &room).await;
                continue;
            }
            Step::BobLeaves => {
                // Who is not there cannot leave.
                let _ = bench.rooms.leave(&bob, &room, None).await;
                continue;
            }
            Step::Sync { limit, page, after } => (limit, page, after),
        };
        let mut request = bench.request(&alice, since);
        request.filter.room.timeline.limit = Some(limit);
        request.use_state_after = use_state_after;
        let view = bench.answer(request).await;
        let Some(joined) = view.join.get(&room) else {
            since = Some(view.next_batch);
            continue;
        };
        let mut batch = Vec::new();
        let mut from = Some(joined.timeline.prev_batch).filter(|_| joined.timeline.limited);
        while let Some(token) = from {
            let to = since.map(Token::Stream);
            let page = bench.page(&alice, &room, Direction::Backward, Some(token), page_size);
            let page = page.await.unwrap();
            let old = ids(&page.chunk);
            // Back to what the client has: there the gap is closed.
            let fresh = old.iter().take_while(|id| !seen.contains(id)).cloned();
            batch.extend(fresh);
            let closed = to.is_some() && old.iter().any(|id| seen.contains(id));
            from = page.end.filter(|_| !closed);
        }
        batch.reverse();
        batch.extend(ids(&joined.timeline.events));
        seen.extend(batch);
        apply(&mut state, &joined.state);
        if !use_state_after {
            apply(&mut state, &joined.timeline.events);
        }
        let actual = bench.rooms.state(bench.viewer(&alice), &room).await.unwrap();
        let mut expected = State::new();
        apply(&mut expected, &actual);
        assert_eq!(state, expected, "a client's state after a sync");
        since = Some(view.next_batch);
    }
    assert_eq!(seen, bench.history(&alice, &room).await);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_or_doubled(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
