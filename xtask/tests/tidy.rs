//! The house rules hold in this tree.

#[test]
fn the_tree_is_tidy() {
    let findings = xtask::tidy::run(&xtask::root()).unwrap();
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}
