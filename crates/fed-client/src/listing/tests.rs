use super::*;

const LISTING: Listing =
    Listing { lists: &["state", "auth_chain"], values: &["event", "members_omitted"] };

type Parsed = Result<(Value, Vec<(usize, String)>), String>;

fn parse_from(body: impl Read) -> Parsed {
    let mut entries = Vec::new();
    let rest = parse(body, LISTING, &mut |(list, json)| {
        entries.push((list, json.get().to_owned()));
        ControlFlow::Continue(())
    });
    rest.map(|rest| (rest, entries)).map_err(|error| error.to_string())
}

fn parsed(text: &str) -> Parsed {
    parse_from(text.as_bytes())
}

fn refused(text: &str) -> String {
    parsed(text).expect_err("a refusal")
}

const ANSWER: &str = r#" {"origin": "a\"]}", "state": [ {"a": "}\\\"]"}, [1, [2]], "ä€😀\u0000"],
    "x": {"state": [0], "y": [[], {"z": null}]}, "ev\u0065nt": {"e": [1.50]},
    "auth_chain":[], "members_omitted" : false } "#;

#[test]
fn lists_go_by_and_wanted_values_stay() {
    let (rest, entries) = parsed(ANSWER).unwrap();
    assert_eq!(rest, json!({ "event": { "e": [1.5] }, "members_omitted": false }));
    let entries: Vec<_> = entries.iter().map(|(list, json)| (*list, json.as_str())).collect();
    assert_eq!(
        entries,
        [(0, r#"{"a": "}\\\"]"}"#), (0, "[1, [2]]"), (0, "\"ä€😀\\u0000\"")],
        "an inner `state` is none"
    );
}

/// Through the channel, cut at every place.
#[test]
fn it_does_not_matter_where_the_body_is_cut() {
    let whole = parsed(ANSWER).unwrap();
    for at in 0..=ANSWER.len() {
        let (chunks, body) = mpsc::channel(3);
        for piece in [&ANSWER.as_bytes()[..at], b"", &ANSWER.as_bytes()[at..]] {
            chunks.try_send(Bytes::copy_from_slice(piece)).unwrap();
        }
        drop(chunks);
        let cut = parse_from(Body { chunks: body, chunk: Bytes::new() });
        assert_eq!(cut.unwrap(), whole, "cut at {at}");
    }
}

#[test]
fn a_truncated_body_is_an_error_wherever_it_ends() {
    let body = ANSWER.trim();
    for at in 0..body.len() {
        assert!(parse_from(&body.as_bytes()[..at]).is_err(), "cut at {at}");
    }
    assert!(parsed(&format!("{body} {{")).is_err(), "and nothing follows");
}

#[test]
fn a_pair_holds_the_object_second() {
    let (rest, entries) =
        parsed(r#"[200, {"auth_chain": [1], "state": [2], "event": 3}]"#).unwrap();
    assert_eq!(rest, json!([200, { "event": 3 }]));
    assert_eq!(entries, [(1, "1".into()), (0, "2".into())]);
    for body in ["[]", "[200]", "[200, []]", r#"[200, {"state":[],"auth_chain":[]}, 1]"#, "7"] {
        assert!(parsed(body).is_err(), "{body}");
    }
    let nested = r#"[200, [200, {"state": [], "auth_chain": []}]]"#;
    assert!(parsed(nested).is_err());
}

#[test]
fn lists_are_there_once_and_are_lists() {
    assert!(refused(r#"{"state": []}"#).contains("auth_chain"));
    assert!(
        refused(r#"{"state": [], "auth_chain": [], "state": []}"#).contains("state comes twice")
    );
    let twice = r#"{"state": [], "auth_chain": [], "event": 1, "event": 2}"#;
    assert!(refused(twice).contains("event comes twice"));
    assert!(refused(r#"{"state": {}, "auth_chain": []}"#).contains("a list"));
    assert!(refused(r#"{"state": null, "auth_chain": []}"#).contains("a list"));
    assert!(refused(r#"{"state": [1 2], "auth_chain": []}"#).contains("expected `,`"));
    assert!(refused("{\"state\": [\"\u{1}\"], \"auth_chain\": []}").contains("control character"));
}

/// A body without end of one kind.
fn endless(start: &'static str, more: &'static str) -> impl Read {
    Read::chain(start.as_bytes(), Endless(more, 0))
}

struct Endless(&'static str, usize);

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        for byte in out.iter_mut() {
            *byte = self.0.as_bytes()[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(out.len())
    }
}

#[test]
fn nothing_grows_without_end() {
    let too_long = [
        ("{\"", "k"),
        ("{\"unknown\": \"", "s"),
        ("{\"unknown\": ", "["),
        ("{\"event\": \"", "s"),
        ("{\"event\": ", "{\"a\":"),
        ("{\"event\": [", "1,"),
        ("{\"state\": [\"", "s"),
        ("{\"state\": [", "["),
        ("{\"state\": [1 ", " "),
        ("", " "),
        ("[", "["),
    ];
    for (start, more) in too_long {
        let error = parse_from(endless(start, more)).expect_err(start);
        assert!(error.contains("too long") || error.contains("recursion"), "{start}: {error}");
    }
    let error = parse_from(endless("{\"state\": [1", ",1")).unwrap_err();
    assert!(error.contains("too many entries"), "{error}");
}

#[test]
fn an_entry_may_have_its_size_and_no_more() {
    let answer =
        |length| format!(r#"{{"state": [0, "{}"], "auth_chain": []}}"#, "e".repeat(length));
    assert_eq!(parsed(&answer(MAX_ENTRY - 8)).unwrap().1.len(), 2);
    assert!(refused(&answer(MAX_ENTRY + 8)).contains("too long"));
}

#[test]
fn whoever_takes_the_entries_can_stop() {
    let mut taken = 0;
    let outcome = parse(ANSWER.as_bytes(), LISTING, &mut |_| {
        taken += 1;
        if taken == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(outcome.is_err());
    assert_eq!(taken, 2);
}
