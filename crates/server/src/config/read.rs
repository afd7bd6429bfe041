//! Reading sections from the merged tree; every problem is kept, with its place.

use std::collections::BTreeMap;

use config::{File, FileFormat, Map, Value, ValueKind};

use super::{
    Problem,
    option::{Section, Shape},
    values::FromValue,
};

/// The merged tree of file and environment, and what was wrong with it so far.
pub struct Tree {
    pub file: String,
    pub root: Map<String, Value>,
    /// Which environment variable set a key, like `listeners[0].bind`.
    pub variables: BTreeMap<String, String>,
    pub problems: Vec<Problem>,
}

impl Tree {
    /// Reads `[key]`; a missing table is an empty one.
    pub fn section<S: Section>(&mut self) -> Option<S> {
        let value = self.root.remove(S::KEY);
        let table = match value.map(|value| value.kind) {
            None => Map::new(),
            Some(ValueKind::Table(table)) => table,
            Some(_) => {
                self.misfit(S::KEY, None, "a table: write [section] above its options");
                return None;
            }
        };
        self.table(S::KEY.to_owned(), table)
    }

    /// Reads every `[[key]]`; none at all means one with the defaults.
    pub fn sections<S: Section>(&mut self) -> Option<Vec<S>> {
        let tables = match self.root.remove(S::KEY).map(|value| value.kind) {
            None => vec![Some(Map::new())],
            Some(ValueKind::Array(items)) => items
                .into_iter()
                .map(|item| match item.kind {
                    ValueKind::Table(table) => Some(table),
                    // The environment set a later element only.
                    ValueKind::Nil => Some(Map::new()),
                    _ => None,
                })
                .collect(),
            Some(_) => vec![None],
        };
        let mut sections = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            match table {
                Some(table) => sections.push(self.table(format!("{}[{index}]", S::KEY), table)),
                None => {
                    self.misfit(S::KEY, None, "a list of tables: write [[listeners]] above each");
                    sections.push(None);
                }
            }
        }
        sections.into_iter().collect()
    }

    fn table<S: Section>(&mut self, name: String, table: Map<String, Value>) -> Option<S> {
        let mut reader = Reader { name, table, tree: self };
        let section = S::read(&mut reader);
        let (name, rest) = (reader.name, reader.table);
        let mut unknown: Vec<String> = rest.into_keys().collect();
        unknown.sort();
        for key in &unknown {
            let known = S::OPTIONS.iter().map(|option| option.key);
            self.unknown(&format!("{name}."), key, known);
        }
        section.filter(|_| unknown.is_empty())
    }

    /// Notes that a key is no option, and the nearest that is.
    pub fn unknown<'a>(&mut self, prefix: &str, key: &str, known: impl Iterator<Item = &'a str>) {
        let known: Vec<&str> = known.collect();
        let nearest = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(name, &key.to_lowercase()), name))
            .filter(|(distance, name)| *distance * 2 <= name.len())
            .min();
        let advice = match nearest {
            Some((_, name)) => format!("did you mean `{prefix}{name}`?"),
            None => format!("there are {}", known.join(", ")),
        };
        let key = format!("{prefix}{key}");
        self.problems.push(Problem::Unknown { place: self.place(&key), key, advice });
    }

    fn misfit(&mut self, key: &str, found: Option<String>, expects: &'static str) {
        let found = found.map(|found| format!(" {found}")).unwrap_or_default();
        let place = self.place(key);
        self.problems.push(Problem::Misfit { place, key: key.into(), found, expects });
    }

    /// The file or environment variable that a key comes from.
    pub fn place(&self, key: &str) -> String {
        self.variables.get(key).unwrap_or(&self.file).clone()
    }
}

/// One table that is being read.
pub struct Reader<'a> {
    name: String,
    table: Map<String, Value>,
    tree: &'a mut Tree,
}

impl Reader<'_> {
    /// Takes an option out of the table.
    pub fn option<T: FromValue>(&mut self, key: &str, shape: Shape) -> Option<T> {
        let name = format!("{}.{key}", self.name);
        let value = match (self.table.remove(key), shape) {
            (Some(value), _) => value,
            (None, Shape::Default(text)) => toml_value(text)?,
            (None, Shape::Optional(_)) => return T::absent(),
            (None, Shape::Required(example)) => {
                let place = self.tree.file.clone();
                let (section, key) = (self.name.clone(), key.to_owned());
                self.tree.problems.push(Problem::Missing { place, section, key, example });
                return None;
            }
        };
        let found = (!T::SECRET).then(|| show(&value));
        let read = T::from_value(value);
        if read.is_none() {
            self.tree.misfit(&name, found, T::EXPECTS);
        }
        read
    }
}

fn show(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "(a table)".to_owned(),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

/// Parses the TOML text of one value.
fn toml_value(text: &str) -> Option<Value> {
    let source = File::from_str(&format!("value = {text}"), FileFormat::Toml);
    config::Config::builder().add_source(source).build().ok()?.get("value").ok()
}
