//! Documents that say which test shows what: each test that they name is there.

use std::collections::BTreeSet;

use super::Finding;

/// The documents. In a row of their tables, code in the last column is the name of a test.
const DOCUMENTS: [&str; 2] = ["docs/leaving-rooms.md", "docs/security.md"];

/// The tests that there are, and the claims about them.
#[derive(Default)]
pub struct Claims {
    tests: BTreeSet<String>,
    named: Vec<(String, usize, String)>,
}

impl Claims {
    /// Takes note of a file.
    pub fn read(&mut self, path: &str, text: &str) {
        if path.ends_with(".rs") {
            self.tests.extend(rust_tests(text));
        } else if path.ends_with(".py") {
            let names = text.lines().filter_map(|line| name_after(line, "def "));
            self.tests.extend(names.filter(|name| name.starts_with("test_")));
        } else if DOCUMENTS.contains(&path) {
            for (index, line) in text.lines().enumerate() {
                let names = last_column(line).split('`').skip(1).step_by(2);
                self.named.extend(names.map(|name| (path.into(), index + 1, name.into())));
            }
        }
    }

    pub fn finish(self) -> Vec<Finding> {
        let missing = self.named.into_iter().filter(|(_, _, name)| !self.tests.contains(name));
        missing
            .map(|(path, line, name)| {
                let text = format!("there is no test `{name}`; name the one that shows this row");
                Finding::new(&path, line, text)
            })
            .collect()
    }
}

/// Functions under an attribute that makes them tests.
fn rust_tests(text: &str) -> Vec<String> {
    let (mut tests, mut marked) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            marked |= line.contains("test");
        } else if let Some(name) = name_after(line, "fn ") {
            if marked {
                tests.push(name);
            }
            marked = false;
        }
    }
    tests
}

/// The name that a line declares after a keyword.
fn name_after(line: &str, keyword: &str) -> Option<String> {
    let rest = line.strip_prefix("pub ").unwrap_or(line);
    let rest = rest.strip_prefix("async ").unwrap_or(rest).strip_prefix(keyword)?;
    let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

/// The last cell of a table row; nothing of any other line.
fn last_column(line: &str) -> &str {
    let row = line.trim_end().strip_prefix('|').and_then(|row| row.strip_suffix('|'));
    row.and_then(|row| row.rsplit_once('|')).map_or("", |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_without_its_test_is_found() {
        let mut claims = Claims::default();
        let code = "#[tokio::test(start_paused = true)]\nasync fn one() {}\nfn helper() {}\n\
                    mod m {\n    #[test]\n    fn two() {}\n}\n";
        claims.read("crates/a/tests/a.rs", code);
        claims.read("tests/interop/test_a.py", "async def test_three(x):\ndef helper():\n");
        let doc = "Says `nothing`.\n| `a` | sim: `one`, `two`; `test_three` |\n| b | `helper` |\n";
        claims.read("docs/security.md", doc);
        claims.read("docs/other.md", "| b | `elsewhere` |\n");
        let findings = claims.finish();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((&*findings[0].path, findings[0].line), ("docs/security.md", 3));
    }
}
