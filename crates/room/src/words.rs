//! The words of events, for search. Decision 0030.

use std::collections::BTreeMap;

use exeunt_core::Pdu;
use serde_json::Value;
use unicode_segmentation::UnicodeSegmentation;

/// Longest word in bytes: what is longer is no word that anybody looks for.
const MAX_WORD_BYTES: usize = 64;
/// Most different words that are kept of one event.
const MAX_WORDS: usize = 500;

/// The words of a text as they are compared: by Unicode's word boundaries, without case.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.unicode_words().map(str::to_lowercase);
    words.filter(|word| word.len() <= MAX_WORD_BYTES)
}

/// What of an event's content is searched, by its type: the keys of the specification ("Search
/// Categories") stand for one type each.
pub(crate) fn searched(event: &Pdu) -> Option<String> {
    let text = |field: &str| event.content_str(field);
    match event.kind() {
        "m.room.message" => text("body").map(str::to_owned),
        "m.room.name" => text("name").map(str::to_owned),
        "m.room.topic" => {
            let mut topic = text("topic").unwrap_or_default().to_owned();
            for plain in plain_topics(event).filter(|plain| *plain != topic).collect::<Vec<_>>() {
                topic.push('\n');
                topic.push_str(plain);
            }
            Some(topic)
        }
        _ => None,
    }
}

/// The `text/plain` representations in `m.topic`.
fn plain_topics(event: &Pdu) -> impl Iterator<Item = &str> {
    let told = event.content().get("m.topic").and_then(|topic| topic.get("m.text"));
    let all = told.and_then(Value::as_array).into_iter().flatten();
    let plain = |entry: &&Value| entry.get("mimetype").is_none_or(|kind| kind == "text/plain");
    all.filter(plain).filter_map(|entry| entry.get("body")?.as_str())
}

/// The words of an event: how often each occurs, and how many there are.
pub(crate) fn counted(event: &Pdu) -> (BTreeMap<String, u64>, u64) {
    let (mut counts, mut total) = (BTreeMap::new(), 0);
    for word in searched(event).iter().flat_map(|text| words(text)) {
        total += 1;
        if counts.len() < MAX_WORDS || counts.contains_key(&word) {
            *counts.entry(word).or_default() += 1;
        }
    }
    (counts, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_boundaries_and_have_no_case() {
        for (text, expected) in [
            ("Hello, World!", vec!["hello", "world"]),
            ("don't e-mail me@x.org", vec!["don't", "e", "mail", "me", "x.org"]),
            ("Größe ΣΊΣΥΦΟΣ", vec!["größe", "σίσυφος"]),
            ("東京 42", vec!["東", "京", "42"]),
            ("👍 ...", vec![]),
        ] {
            assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(words(&"a".repeat(65)).count(), 0);
    }
}
