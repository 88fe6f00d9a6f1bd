//! URL patterns (the WHATWG's standard, as Mercure 1.0 uses it): literals, `:name` and `*`, as parts that are matched without
//! going back.
//!
//! Groups in braces, regular expressions and modifiers are refused, so that nobody takes them for what they are not. Imports
//! nothing of this crate.

use std::borrow::Cow;
use std::sync::Arc;

use super::{InvalidSelector, Part};

/// What relative patterns and topics are relative to: the URL of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(Arc<str>);

impl Base {
    /// Of the hub's URL; `None` when that is none.
    pub fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let is_good = is_scheme(scheme) && !authority.is_empty();
        is_good.then(|| {
            Self(
                format!("{scheme}://{authority}")
                    .to_ascii_lowercase()
                    .into(),
            )
        })
    }

    /// The topic as a whole URL. What is no URL, and relative to none, stays as it is.
    pub fn resolve<'a>(&self, topic: &'a str) -> Cow<'a, str> {
        let Some((scheme, rest)) = topic.split_once("://").filter(|(its, _)| is_scheme(its)) else {
            return match before_colon(topic) {
                Some(scheme) if is_scheme(scheme) => Cow::Borrowed(topic),
                _ => Cow::Owned(format!("{}{}{topic}", self.0, directory(topic))),
            };
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let behind = &rest[authority.len()..];
        let (is_lower, has_path) = (
            !topic[..topic.len() - behind.len()].contains(|c: char| c.is_ascii_uppercase()),
            behind.starts_with('/'),
        );
        if is_lower && has_path {
            return Cow::Borrowed(topic);
        }
        let slash = if has_path { "" } else { "/" };
        let head = format!("{scheme}://{authority}{slash}").to_ascii_lowercase();
        Cow::Owned(head + behind)
    }
}

/// In which component of a URL a place is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Component {
    Scheme,
    Authority,
    Path,
    Search,
    Hash,
}

impl Component {
    /// What ends a `*` in it.
    fn ends(self) -> &'static [u8] {
        match self {
            Self::Scheme | Self::Authority => b":/?#",
            Self::Path => b"?#",
            Self::Search => b"#",
            Self::Hash => b"",
        }
    }

    /// What ends a `:name` in it.
    fn separates(self) -> &'static [u8] {
        match self {
            Self::Authority => b".:/?#",
            Self::Path => b"/?#",
            other => other.ends(),
        }
    }
}

/// The parts of a pattern.
pub fn parts(text: &str, base: &Base) -> Result<Vec<Part>, InvalidSelector> {
    let mut parser = Parser {
        component: Component::Scheme,
        parts: Vec::new(),
        literal: String::new(),
        names: Vec::new(),
    };
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|its| is_scheme(&its.replace('*', "x"))) {
        // `urn:x:*` would be a name `x` in the path `urn`, which nobody means.
        if before_colon(text).is_some_and(is_scheme) {
            return Err(InvalidSelector::Pattern);
        }
        parser.component = Component::Path;
        parser.literal.push_str(&base.0);
        parser.literal.push_str(directory(text));
    }
    parser.read(text)?;
    Ok(parser.end())
}

struct Parser<'a> {
    component: Component,
    parts: Vec<Part>,
    literal: String,
    names: Vec<&'a str>,
}

impl<'a> Parser<'a> {
    fn read(&mut self, text: &'a str) -> Result<(), InvalidSelector> {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let behind = &rest[c.len_utf8()..];
            let name = behind.len() - behind.trim_start_matches(is_in_name).len();
            rest = match c {
                ':' if self.component == Component::Scheme => {
                    rest = behind.strip_prefix("//").ok_or(InvalidSelector::Pattern)?;
                    self.literal.push_str("://");
                    self.component = Component::Authority;
                    continue;
                }
                '\\' => {
                    let escaped = behind.chars().next().ok_or(InvalidSelector::Pattern)?;
                    self.add(escaped);
                    &behind[escaped.len_utf8()..]
                }
                '{' | '}' | '(' | ')' => return Err(InvalidSelector::Pattern),
                ':' if name > 0 && !behind.starts_with(|c: char| c.is_ascii_digit()) => {
                    let (name, behind) = behind.split_at(name);
                    if self.names.contains(&name) {
                        return Err(InvalidSelector::Pattern);
                    }
                    self.names.push(name);
                    self.run(true, self.component.separates());
                    no_modifier(behind)?
                }
                '*' => {
                    self.run(false, self.component.ends());
                    no_modifier(behind)?
                }
                other => {
                    self.component = match (self.component, other) {
                        (Component::Authority, '/') => Component::Path,
                        (Component::Authority | Component::Path, '?') => Component::Search,
                        (Component::Hash, _) => Component::Hash,
                        (Component::Scheme, _) => Component::Scheme,
                        (_, '#') => Component::Hash,
                        (same, _) => same,
                    };
                    self.add(other);
                    behind
                }
            };
        }
        match self.component {
            Component::Scheme => Err(InvalidSelector::Pattern),
            _ => Ok(()),
        }
    }

    /// A character as it is in a URL.
    fn add(&mut self, c: char) {
        match self.component {
            Component::Scheme | Component::Authority => self.literal.push(c.to_ascii_lowercase()),
            _ if c.is_ascii() => self.literal.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    self.literal.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }

    fn run(&mut self, some: bool, ends: &'static [u8]) {
        self.flush();
        self.parts.push(Part::Run { some, ends });
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            let literal = std::mem::take(&mut self.literal);
            self.parts.push(Part::Literal(literal.into()));
        }
    }

    /// What a pattern says nothing of, and comes after what it does, may be anything.
    fn end(mut self) -> Vec<Part> {
        self.flush();
        self.parts.push(match self.component {
            Component::Scheme | Component::Authority => Part::Tail(b"/?#"),
            Component::Path => Part::Tail(b"?#"),
            Component::Search => Part::Tail(b"#"),
            Component::Hash => Part::Tail(b""),
        });
        self.parts
    }
}

fn no_modifier(behind: &str) -> Result<&str, InvalidSelector> {
    match behind.starts_with(['?', '+', '*']) {
        true => Err(InvalidSelector::Pattern),
        false => Ok(behind),
    }
}

fn is_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn before_colon(text: &str) -> Option<&str> {
    text.split_once(':').map(|(scheme, _)| scheme)
}

/// What is between the hub's origin and a relative topic: its URL's directory, unless that is given.
fn directory(topic: &str) -> &'static str {
    match topic.starts_with('/') {
        true => "",
        false => "/.well-known/",
    }
}

#[cfg(test)]
mod tests {
    use crate::selector::{Base, InvalidSelector, Selector};

    fn base() -> Base {
        Base::of("https://Hub.example/.well-known/mercure").unwrap()
    }

    #[track_caller]
    fn fits(pattern: &str, topic: &str) -> bool {
        Selector::url(pattern, &base()).unwrap().matches(topic)
    }

    #[test]
    fn names_stars_and_what_is_left_out() {
        for (pattern, yes, no) in [
            (
                "https://e.com/b/:id",
                "https://e.com/b/1",
                "https://e.com/b/1/2",
            ),
            (
                "https://e.com/b/:id",
                "https://e.com/b/1?x=1#y",
                "https://e.com/b/",
            ),
            (
                "https://e.com/b/:id",
                "https://e.com/b/:id",
                "http://e.com/b/1",
            ),
            (
                "https://e.com/:a/:b.json",
                "https://e.com/1/2.json",
                "https://e.com/1/2.xml",
            ),
            (
                "https://e.com/u/42/*",
                "https://e.com/u/42/b/1",
                "https://e.com/u/4/b/1",
            ),
            (
                "https://e.com/u/*/b",
                "https://e.com/u/1/2/b",
                "https://e.com/u/1/2/c",
            ),
            (
                "https://*.e.com/x",
                "https://a.b.e.com/x",
                "https://e.com/x",
            ),
            (
                "https://:sub.e.com/x",
                "https://a.e.com/x",
                "https://a.b.e.com/x",
            ),
            (
                "https://e.com:8080/:x",
                "https://e.com:8080/1",
                "https://e.com/1",
            ),
            (
                "https://e.com",
                "https://e.com/any/thing",
                "https://e.com:81/",
            ),
            ("https://e.com/", "https://e.com", "https://e.com/x"),
            ("*://e.com/x", "http://E.com/x", "http://e.com/X"),
            ("https://E.COM/x", "https://e.com/x#y", "https://e.com/x/"),
            (
                "https://e.com/s?q=:q",
                "https://e.com/s?q=a&b=c",
                "https://e.com/s",
            ),
            (
                "https://e.com/s\\?q=1",
                "https://e.com/s?q=1",
                "https://e.com/s?q=2",
            ),
            (
                "https://e.com/x#:part",
                "https://e.com/x#1",
                "https://e.com/x?y#1",
            ),
            // Relative to the hub.
            ("/b/:id", "/b/1", "https://other.example/b/1"),
            ("/b/:id", "https://hub.example/b/1", "b/1"),
            ("https://hub.example/b/:id", "/b/1", "/c/1"),
            ("orders/:id", "orders/1", "/orders/1"),
            ("*", "urn:x:1", ""),
        ] {
            assert!(fits(pattern, yes), "{pattern} {yes}");
            assert!(pattern == "*" || !fits(pattern, no), "{pattern} {no}");
        }
        assert!(!fits("/*", "urn:x:1"), "an IRI that is relative to nothing");
        assert!(fits("https://e.com/ä/:x", "https://e.com/%C3%A4/1"));
    }

    #[test]
    fn what_is_not_spoken_is_refused() {
        for pattern in [
            "https://e.com/{a}?",
            "https://e.com/(\\d+)",
            "https://e.com/:id(\\d+)",
            "https://e.com/:id?",
            "https://e.com/:id+",
            "https://e.com/**",
            "https://e.com/:a/:a",
            "https://e.com/\\",
            "urn:x:*",
            "mailto:a",
            "a:b://c",
        ] {
            assert_eq!(
                Selector::url(pattern, &base()),
                Err(InvalidSelector::Pattern),
                "{pattern}"
            );
        }
        assert_eq!(Selector::url("", &base()), Err(InvalidSelector::Length(0)));
        for url in ["", "hub.example", "/x", "https://", "1://x"] {
            assert_eq!(Base::of(url), None, "{url}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = format!("https://e.com/{}!", "*a".repeat(400));
        assert!(!fits(
            &pattern,
            &format!("https://e.com/{}", "a".repeat(1000))
        ));
    }

    #[test]
    fn an_exact_matcher_is_no_template() {
        let exact = Selector::exact("/b/{id}").unwrap();
        assert!(exact.is_exact() && exact.matches("/b/{id}") && !exact.matches("/b/1"));
        assert!(Selector::exact("*").unwrap().matches("anything"));
    }
}
