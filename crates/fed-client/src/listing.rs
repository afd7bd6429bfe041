//! Answers that hold long lists, such as a room's state: read entry by entry as they arrive, so
//! that the body is never in memory as a whole.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use reqwest::Response;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::error::{RequestError, clean};

/// Longest entry of a list: an event of 64 KiB with escapes and what its server adds to it.
pub const MAX_ENTRY: usize = 256 * 1024;
/// Most entries of all lists together.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Longest value beside the lists: a name, or the servers of a large room.
const MAX_VALUE: usize = 4 * 1024 * 1024;
/// Pieces of the body that wait for the parser.
const CHUNKS_AHEAD: usize = 4;

/// An entry of a list: which one of [`Listing::lists`], and its JSON.
pub type Entry = (usize, Box<RawValue>);

/// What is wanted of an answer: the entries of some lists, and some other values. The rest is
/// passed over.
#[derive(Debug, Clone, Copy)]
pub struct Listing {
    /// Each of them must be there.
    pub lists: &'static [&'static str],
    pub values: &'static [&'static str],
}

/// Reads the body of an answer: entries go to `entries`, the other values are returned. They are
/// those of an object, or of the second of a pair, as in version 1 of the API.
pub(crate) async fn read(
    mut response: Response,
    listing: Listing,
    max_bytes: usize,
    entries: mpsc::Sender<Entry>,
) -> Result<Value, RequestError> {
    let (chunks, body) = mpsc::channel(CHUNKS_AHEAD);
    let parser = tokio::task::spawn_blocking(move || {
        parse(Body { chunks: body, chunk: Bytes::new() }, listing, &mut |entry| match entries
            .blocking_send(entry)
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    });
    let mut left = max_bytes;
    let fed = loop {
        match response.chunk().await {
            Ok(None) => break Ok(()),
            Ok(Some(chunk)) if chunk.len() > left => {
                break Err(RequestError::Misbehaved(format!("longer than {max_bytes} bytes")));
            }
            Ok(Some(chunk)) => {
                left -= chunk.len();
                // A parser that has ended says why.
                if chunks.send(chunk).await.is_err() {
                    break Ok(());
                }
            }
            Err(error) => break Err(RequestError::from_http(&error)),
        }
    };
    drop(chunks);
    let parsed = parser.await;
    fed?;
    match parsed {
        Ok(Ok(rest)) => Ok(rest),
        Ok(Err(error)) => Err(RequestError::Misbehaved(clean(&error.to_string()))),
        Err(_) => Err(RequestError::Unreachable("the parser was stopped".into())),
    }
}

/// The body, as its pieces come in.
struct Body {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}

/// Parses an answer as it is read. `entry` takes each entry, and may end it all.
pub(crate) fn parse(
    body: impl Read,
    listing: Listing,
    entry: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<Value, serde_json::Error> {
    let allowance = Allowance::default();
    let reader = Metered { body, allowance: allowance.clone() };
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    allowance.renew(MAX_VALUE);
    let answer = Answer { listing, allowance: &allowance, entry, in_pair: false };
    let rest = answer.deserialize(&mut deserializer)?;
    allowance.renew(MAX_VALUE);
    deserializer.end()?;
    Ok(rest)
}

/// How many bytes may be read until it is renewed: the parser keeps no more in memory at a time.
#[derive(Clone, Default)]
struct Allowance(Rc<Cell<usize>>);

impl Allowance {
    fn renew(&self, bytes: usize) {
        self.0.set(bytes);
    }
}

struct Metered<R> {
    body: R,
    allowance: Allowance,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.get();
        let length = out.len().min(left);
        if length == 0 && !out.is_empty() {
            return Err(io::Error::other("a value is too long"));
        }
        let read = self.body.read(&mut out[..length])?;
        self.allowance.0.set(left - read);
        Ok(read)
    }
}

/// The answer, or the object in it.
struct Answer<'a> {
    listing: Listing,
    allowance: &'a Allowance,
    entry: &'a mut dyn FnMut(Entry) -> ControlFlow<()>,
    in_pair: bool,
}

impl<'de> DeserializeSeed<'de> for Answer<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.in_pair {
            deserializer.deserialize_map(self)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Answer<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Value, A::Error> {
        let missing = |index| de::Error::invalid_length(index, &"a pair");
        let status: Value = pair.next_element()?.ok_or_else(|| missing(0))?;
        let inner = Answer { in_pair: true, ..self };
        let rest = pair.next_element_seed(inner)?.ok_or_else(|| missing(1))?;
        match pair.next_element::<IgnoredAny>()? {
            None => Ok(json!([status, rest])),
            Some(_) => Err(missing(3)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let Listing { lists, values } = self.listing;
        let mut seen = vec![false; lists.len()];
        let mut rest = Map::new();
        let mut count = 0;
        while let Some(key) = object.next_key::<String>()? {
            let twice = || de::Error::custom(format_args!("{key} comes twice"));
            if let Some(list) = lists.iter().position(|name| *name == key) {
                if std::mem::replace(&mut seen[list], true) {
                    return Err(twice());
                }
                let (allowance, entry) = (self.allowance, &mut *self.entry);
                object.next_value_seed(List { list, allowance, entry, count: &mut count })?;
            } else if values.contains(&&*key) {
                let value = object.next_value()?;
                if rest.insert(key.clone(), value).is_some() {
                    return Err(twice());
                }
            } else {
                object.next_value::<IgnoredAny>()?;
            }
            self.allowance.renew(MAX_VALUE);
        }
        match seen.iter().position(|seen| !seen) {
            None => Ok(Value::Object(rest)),
            Some(list) => Err(de::Error::missing_field(lists[list])),
        }
    }
}

/// One of the lists.
struct List<'a> {
    list: usize,
    allowance: &'a Allowance,
    entry: &'a mut dyn FnMut(Entry) -> ControlFlow<()>,
    count: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.allowance.renew(MAX_ENTRY);
        while let Some(entry) = entries.next_element()? {
            *self.count += 1;
            if *self.count > MAX_ENTRIES {
                return Err(de::Error::custom("too many entries"));
            }
            if (self.entry)((self.list, entry)).is_break() {
                return Err(de::Error::custom("the entries were not wanted any more"));
            }
            self.allowance.renew(MAX_ENTRY);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
