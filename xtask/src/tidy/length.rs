//! Files stay short. Those that do not are listed with their length, which may only fall.

use std::collections::BTreeMap;

use super::Finding;

/// The longest that a file may be without being listed.
pub const LIMIT: usize = 500;

/// The list of longer files: `path length` per line.
pub const LIST: &str = "xtask/long-files.txt";

/// The listed files that have not been met yet.
pub struct Ratchet {
    entries: BTreeMap<String, (usize, usize)>,
    findings: Vec<Finding>,
}

impl Ratchet {
    pub fn parse(list: &str) -> Self {
        let mut ratchet = Self { entries: BTreeMap::new(), findings: Vec::new() };
        for (index, line) in list.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = line.split_once(' ').and_then(|(p, n)| Some((p, n.parse().ok()?)));
            match entry {
                Some((path, length)) => {
                    ratchet.entries.insert(path.into(), (index + 1, length));
                }
                None => ratchet.findings.push(Finding::new(
                    LIST,
                    index + 1,
                    "is not `path length`; write it so",
                )),
            }
        }
        ratchet
    }

    /// Checks one file of `length` lines.
    pub fn check(&mut self, path: &str, length: usize) -> Option<Finding> {
        match self.entries.remove(path) {
            None if length > LIMIT => Some(Finding::new(
                path,
                LIMIT + 1,
                format!("has {length} lines, more than {LIMIT}; split it by concern"),
            )),
            None => None,
            Some((line, _)) if length <= LIMIT => {
                Some(Finding::new(LIST, line, format!("{path} is short now; remove this line")))
            }
            Some((_, recorded)) if length > recorded => Some(Finding::new(
                path,
                recorded,
                format!("has grown from {recorded} to {length} lines; split it by concern"),
            )),
            Some((line, recorded)) if length < recorded => Some(Finding::new(
                LIST,
                line,
                format!("{path} has shrunk; lower {recorded} to {length}"),
            )),
            Some(_) => None,
        }
    }

    /// What the list itself has wrong, once every file was checked.
    pub fn finish(self) -> Vec<Finding> {
        let gone = self.entries.into_iter().map(|(path, (line, _))| {
            Finding::new(LIST, line, format!("{path} does not exist; remove this line"))
        });
        self.findings.into_iter().chain(gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, length: usize) -> Option<String> {
        Ratchet::parse(list).check("a.rs", length).map(|finding| finding.to_string())
    }

    #[test]
    fn unlisted_files_have_a_limit() {
        assert_eq!(check("", LIMIT), None);
        let found = check("", LIMIT + 1).unwrap();
        assert_eq!(found, "a.rs:501: has 501 lines, more than 500; split it by concern");
    }

    #[test]
    fn listed_files_may_only_shrink_and_the_list_follows() {
        let list = "# long files\na.rs 700\n";
        assert_eq!(check(list, 700), None);
        assert!(check(list, 701).unwrap().contains("has grown from 700 to 701"));
        assert!(check(list, 600).unwrap().contains("lower 700 to 600"));
        assert!(check(list, 500).unwrap().contains("remove this line"));
    }

    #[test]
    fn the_list_names_real_files() {
        let findings = Ratchet::parse("gone.rs 700\nnonsense\n").finish();
        let lines: Vec<usize> = findings.iter().map(|f| f.line).collect();
        assert_eq!(lines, [2, 1]);
    }
}
