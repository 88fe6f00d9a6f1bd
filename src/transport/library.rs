//! `/realtime.js` and `/pusher-resume.js` as they are served: the files of php/client without their indentation and comments.
//!
//! The files are written to be read, and browsers need not load that. Imports nothing of this crate.

use std::sync::LazyLock;

const SOURCE: &str = include_str!("../../php/client/realtime.js");
const RESUME_SOURCE: &str = include_str!("../../php/client/pusher-resume.js");

/// The client library.
pub static SERVED: LazyLock<String> = LazyLock::new(|| strip(SOURCE));

/// What lets clients of the Pusher protocol resume.
pub static RESUME: LazyLock<String> = LazyLock::new(|| strip(RESUME_SOURCE));

/// Line by line: no string in the file goes over a line's end or has two slashes between blanks, which a test sees to.
fn strip(source: &str) -> String {
    let mut stripped = String::with_capacity(source.len());
    for line in source.lines() {
        let code = line.split("// ").next().unwrap_or_default().trim();
        if !code.is_empty() {
            stripped.push_str(code);
            stripped.push('\n');
        }
    }
    stripped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_blanks_and_comments_is_lost() {
        for line in SOURCE.lines().chain(RESUME_SOURCE.lines()) {
            assert_eq!(
                line.matches('`').count() % 2,
                0,
                "a string over lines: {line}"
            );
            if let Some((code, comment)) = line.split_once("// ") {
                let alone = code.is_empty() || code.ends_with(['\t', ' ']);
                assert!(alone, "no comment: {line}");
                assert!(
                    !comment.contains(['\'', '`']),
                    "in doubt no comment: {line}"
                );
            }
        }
        assert!(
            SERVED.len() < 10_700,
            "{} bytes are over 10.7 KB",
            SERVED.len()
        );
        assert!(SERVED.starts_with("/* ") && SERVED.contains("(MIT)"));
    }
}
