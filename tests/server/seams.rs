//! What a module must not know, seen in its source.

use std::path::Path;

/// A protocol is a module behind the session: what delivers and what remembers asks a format for its properties, and knows no
/// protocol by its name.
#[test]
fn what_delivers_knows_no_protocol() {
    let names = [
        "pusher",
        "mercure",
        "Format::Native",
        "Format::Raw",
        "Format::Sse",
        "Format::Stream",
        "Format::Object",
        "Flavour",
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.join("history.rs"), source.join("outbox.rs")];
    for directory in ["hub", "history"] {
        let entries = std::fs::read_dir(source.join(directory)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests may say what they test with.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let found: Vec<_> = names
            .iter()
            .filter(|name| code.to_lowercase().contains(&name.to_lowercase()))
            .collect();
        assert!(found.is_empty(), "{} names {found:?}", file.display());
    }
}
