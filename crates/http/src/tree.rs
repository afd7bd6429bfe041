//! Which endpoint a path and method mean.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::LocalBoxFuture;
use http::Method;

use crate::{MatrixError, RawCall, Reply};

pub(crate) type Handler =
    Arc<dyn Fn(RawCall) -> LocalBoxFuture<'static, Result<Reply, MatrixError>> + Send + Sync>;

/// One method of one path.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// `/_matrix/client/v3/rooms/{room_id}/leave`
    pub template: &'static str,
    pub body_limit: usize,
    pub handler: Handler,
}

impl Endpoint {
    /// The arguments in the path, each decoded once, so that `%2F` stays inside its argument.
    pub fn args(&self, path: &str) -> Result<Vec<String>, MatrixError> {
        self.template
            .split('/')
            .zip(path.split('/'))
            .filter(|(name, _)| is_argument(name))
            .map(|(name, raw)| {
                let decoded = percent_encoding::percent_decode_str(raw).decode_utf8();
                decoded.map(Into::into).map_err(|_| {
                    MatrixError::invalid_param(format!("{name} in the path is not UTF-8"))
                })
            })
            .collect()
    }
}

/// The methods of one path, by name; `None` is one that is planned.
pub(crate) type Methods = BTreeMap<String, Option<Endpoint>>;

/// All endpoints by the shape of their path, with nameless arguments: `/rooms/{}/leave`.
#[derive(Clone, Default)]
pub(crate) struct Table(BTreeMap<String, Methods>);

impl Table {
    /// Panics if the method and shape are taken: two handlers for one endpoint are a mistake in
    /// our source, found by whoever starts the server first.
    pub fn insert(&mut self, method: &Method, endpoint: Endpoint) {
        let template = endpoint.template;
        self.insert_shape(method.to_string(), shape(template), Some(endpoint));
    }

    /// A method and path that nothing serves yet. Panics as [`Self::insert`] does.
    pub fn insert_planned(&mut self, method: &Method, template: &str) {
        self.insert_shape(method.to_string(), shape(template), None);
    }

    fn insert_shape(&mut self, method: String, shape: String, endpoint: Option<Endpoint>) {
        assert!(shape.starts_with('/'), "the path {shape} must start with a slash");
        let methods = self.0.entry(shape.clone()).or_default();
        assert!(!methods.contains_key(&method), "two handlers for {method} {shape}");
        methods.insert(method, endpoint);
    }

    pub fn append(&mut self, other: Self) {
        for (shape, methods) in other.0 {
            for (method, endpoint) in methods {
                self.insert_shape(method, shape.clone(), endpoint);
            }
        }
    }

    /// Panics if the prefixes differ in depth: arguments are found by where they stand.
    pub fn copy(&mut self, from: &str, to: &str) {
        assert_eq!(from.split('/').count(), to.split('/').count(), "{from} is not as deep as {to}");
        let copied = self.0.iter().filter_map(|(shape, methods)| {
            let below = shape.strip_prefix(from)?.strip_prefix('/')?;
            Some((format!("{to}/{below}"), methods.clone()))
        });
        for (shape, methods) in copied.collect::<Vec<_>>() {
            let there = self.0.entry(shape).or_default();
            for (method, endpoint) in methods {
                there.entry(method).or_insert(endpoint);
            }
        }
    }

    /// What is served.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        let all = self.0.values().flatten();
        all.filter_map(|(method, endpoint)| Some((method.as_str(), endpoint.as_ref()?)))
    }

    /// A path may fit several shapes (`/profile/{}/displayname`, `/profile/{}/{}`). The tree finds
    /// the most literal one only, so that inherits the methods of the more general ones.
    fn methods_of(&self, shape: &str) -> Methods {
        let mut methods = Methods::new();
        // Letters sort before `{`, so more literal shapes come first.
        let general = self.0.iter().filter(|(other, _)| *other != shape && covers(other, shape));
        for (_, found) in self
            .0
            .get(shape)
            .map(|own| (shape, own))
            .into_iter()
            .chain(general.map(|(shape, methods)| (shape.as_str(), methods)))
        {
            for (method, endpoint) in found {
                methods.entry(method.clone()).or_insert_with(|| endpoint.clone());
            }
        }
        methods
    }
}

fn is_argument(segment: &str) -> bool {
    segment.starts_with('{')
}

fn shape(template: &str) -> String {
    let nameless = |segment| if is_argument(segment) { "{}" } else { segment };
    template.split('/').map(nameless).collect::<Vec<_>>().join("/")
}

/// Whether each path of the shape `special` also has the shape `general`.
fn covers(general: &str, special: &str) -> bool {
    let (mut left, mut right) = (general.split('/'), special.split('/'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(left), Some(right)) if left == right => {}
            (Some("{}"), Some(right)) if !right.is_empty() => {}
            _ => return false,
        }
    }
}

/// What a path and method lead to.
pub(crate) enum Found {
    Endpoint(Endpoint),
    WrongMethod { allow: String },
    Nothing,
}

/// The table, ready for lookups.
pub(crate) struct Tree(matchit::Router<Methods>);

impl Tree {
    pub fn new(table: &Table) -> Self {
        let mut router = matchit::Router::new();
        for shape in table.0.keys() {
            let named: Vec<String> = shape
                .split('/')
                .enumerate()
                .map(|(i, segment)| match segment {
                    "{}" => format!("{{a{i}}}"),
                    literal => literal.to_owned(),
                })
                .collect();
            let inserted = router.insert(named.join("/"), table.methods_of(shape));
            assert!(inserted.is_ok(), "the path {shape} does not fit the tree: {inserted:?}");
        }
        Self(router)
    }

    /// Looks the raw path up. `HEAD` means the endpoint of `GET`.
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let Ok(matched) = self.0.at(path) else { return Found::Nothing };
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        match matched.value.get(method) {
            Some(Some(endpoint)) => Found::Endpoint(endpoint.clone()),
            Some(None) => Found::Nothing,
            None => Found::WrongMethod {
                allow: matched.value.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            },
        }
    }
}
