//! The repository keeps its own rules.

use xtask::rules;
use xtask::tree::Tree;

#[test]
fn the_repository_is_tidy() {
    let tree = Tree::read(xtask::root()).expect("the repository can be read");
    assert!(tree.exists("crates/core/src/lib.rs"), "the walk starts at the repository's root");
    let messages: Vec<String> = rules::check(&tree).iter().map(ToString::to_string).collect();
    assert!(messages.is_empty(), "{} problems:\n{}", messages.len(), messages.join("\n"));
}
