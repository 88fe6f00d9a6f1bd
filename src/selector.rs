//! Topic selectors (the Mercure specification, "Topic Selectors"): a topic, a URI template (RFC 6570) or `*`. Since version 1.0
//! "Topic Matchers": a topic, a URL pattern or `*`.
//!
//! A template is matched from left to right over the set of places in the topic that can be reached, so that no template
//! takes longer than its length times the topic's. Imports nothing of this crate.

mod url;

use std::sync::Arc;

pub use self::url::Base;

/// The longest selector, in bytes.
pub const SELECTOR_MAX: usize = 1000;
/// Topics from this length on fit no template.
const TOPIC_MAX: usize = 1024;
/// Variables of one expression.
const VARIABLES_MAX: usize = 16;

/// A selector. Shared, so that a clone costs a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    text: Box<str>,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Exact,
    Template(Box<[Part]>),
    Url(Box<[Part]>, Base),
}

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Expression(Expression),
    /// Characters but those of `ends`: any number, or at least one.
    Run {
        some: bool,
        ends: &'static [u8],
    },
    /// Nothing, or one of these and then anything.
    Tail(&'static [u8]),
}

/// What an expression may expand to: nothing, or `first` and then values with `separator` between them.
#[derive(Debug, PartialEq, Eq)]
struct Expression {
    first: Option<u8>,
    separator: u8,
    /// How many values there may be; any number when a variable explodes.
    values: Option<usize>,
    /// Whether values may have RFC 3986's reserved characters.
    reserved: bool,
    /// Whether values come with their names, and so with `=`.
    named: bool,
}

/// What is wrong with a selector. The text completes "must ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// Empty or too long.
    #[error("have 1 to {SELECTOR_MAX} bytes, {0} given")]
    Length(usize),
    /// A control character.
    #[error("have no control characters")]
    Control,
    /// Not a URL pattern, or of a kind that is not spoken here.
    #[error(
        "be a URL pattern of literals, :name and *, without groups, regular expressions and modifiers"
    )]
    Pattern,
}

impl Selector {
    /// Takes a selector. What looks like a template and is none stands for itself.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        Self::new(text, |text| {
            Ok(template(text).map_or(Kind::Exact, |parts| Kind::Template(parts.into())))
        })
    }

    /// Takes one that is a topic or `*`.
    pub fn exact(text: &str) -> Result<Self, InvalidSelector> {
        Self::new(text, |_| Ok(Kind::Exact))
    }

    /// Takes one that is a URL pattern or `*`.
    pub fn url(text: &str, base: &Base) -> Result<Self, InvalidSelector> {
        Self::new(text, |text| {
            Ok(Kind::Url(url::parts(text, base)?.into(), base.clone()))
        })
    }

    fn new(
        text: &str,
        kind: impl Fn(&str) -> Result<Kind, InvalidSelector>,
    ) -> Result<Self, InvalidSelector> {
        if text.is_empty() || text.len() > SELECTOR_MAX {
            return Err(InvalidSelector::Length(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidSelector::Control);
        }
        let kind = match text {
            "*" => Kind::Any,
            _ => kind(text)?,
        };
        Ok(Self(Arc::new(Inner {
            text: text.into(),
            kind,
        })))
    }

    /// The type of the matcher, as Mercure 1.0 calls it.
    pub fn match_type(&self) -> &'static str {
        match self.0.kind {
            Kind::Url(..) => "urlpattern",
            _ => "exact",
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether it stands for one topic only.
    pub fn is_exact(&self) -> bool {
        self.0.kind == Kind::Exact
    }

    /// Whether `topic` fits.
    pub fn matches(&self, topic: &str) -> bool {
        match &self.0.kind {
            Kind::Any => true,
            Kind::Exact => *self.0.text == *topic,
            Kind::Template(parts) => *self.0.text == *topic || fits(parts, topic.as_bytes()),
            Kind::Url(parts, base) => fits(parts, base.resolve(topic).as_bytes()),
        }
    }
}

/// Places in a topic: before its first byte, between two, or after its last.
#[derive(Clone, Copy, Default)]
struct Places([u64; TOPIC_MAX / 64]);

impl Places {
    fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn add(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    fn all(self, length: usize) -> impl Iterator<Item = usize> {
        (0..=length).filter(move |&place| self.has(place))
    }
}

fn fits(parts: &[Part], topic: &[u8]) -> bool {
    // Most topics are told by the beginning.
    if let Some(Part::Literal(literal)) = parts.first()
        && !topic.starts_with(literal.as_bytes())
    {
        return false;
    }
    if topic.len() >= TOPIC_MAX {
        return false;
    }
    let mut reached = Places::default();
    reached.add(0);
    for part in parts {
        reached = match part {
            Part::Literal(literal) => after_literal(literal.as_bytes(), topic, reached),
            Part::Expression(expression) => expression.after(topic, reached),
            Part::Run { some, ends } => after_run(*some, ends, topic, reached),
            Part::Tail(begins) => after_tail(begins, topic, reached),
        };
        if reached.is_empty() {
            return false;
        }
    }
    reached.has(topic.len())
}

fn after_literal(literal: &[u8], topic: &[u8], reached: Places) -> Places {
    let mut after = Places::default();
    for place in reached.all(topic.len()) {
        if topic[place..].starts_with(literal) {
            after.add(place + literal.len());
        }
    }
    after
}

fn after_run(some: bool, ends: &[u8], topic: &[u8], reached: Places) -> Places {
    let mut after = Places::default();
    // Whether a run that has begun before reaches this place.
    let mut inside = false;
    for place in 0..=topic.len() {
        let begins = reached.has(place);
        if inside || begins && !some {
            after.add(place);
        }
        let goes_on = topic.get(place).is_some_and(|byte| !ends.contains(byte));
        inside = (inside || begins) && goes_on;
    }
    after
}

fn after_tail(begins: &[u8], topic: &[u8], reached: Places) -> Places {
    let mut after = Places::default();
    let mut places = reached.all(topic.len());
    if places.any(|place| topic.get(place).is_none_or(|byte| begins.contains(byte))) {
        after.add(topic.len());
    }
    after
}

impl Expression {
    /// The places that can be reached behind the expression.
    fn after(&self, topic: &[u8], before: Places) -> Places {
        let mut inside = before;
        if let Some(first) = self.first {
            inside = Places::default();
            for place in before.all(topic.len()) {
                if topic.get(place) == Some(&first) {
                    inside.add(place + 1);
                }
            }
        }
        // No variable may be set: then it is nothing, without `first`.
        let mut after = before;
        // With any number of values one round finds them all.
        for _ in 0..self.values.unwrap_or(1) {
            let mut next = Places::default();
            let mut any = false;
            for place in 0..=topic.len() {
                if !inside.has(place) {
                    continue;
                }
                after.add(place);
                if let Some(length) = self.unit(&topic[place..]) {
                    inside.add(place + length);
                }
                if topic.get(place) == Some(&self.separator) {
                    match self.values {
                        None => inside.add(place + 1),
                        Some(_) => next.add(place + 1),
                    }
                    any = true;
                }
            }
            if !any {
                break;
            }
            inside = next;
        }
        after
    }

    /// The length of the character of a value with which `rest` begins: percent-encoded ones have three bytes.
    fn unit(&self, rest: &[u8]) -> Option<usize> {
        let plain = match *rest.first()? {
            b'%' => {
                let hex = rest.get(1..3)?.iter().all(u8::is_ascii_hexdigit);
                return hex.then_some(3);
            }
            b'-' | b'.' | b'_' | b'~' => true,
            // Between the members of a list; and between a name and a value.
            b',' => true,
            b'=' => self.named || self.reserved,
            other => {
                other.is_ascii_alphanumeric()
                    || (self.reserved && b":/?#[]@!$&'()*+;".contains(&other))
            }
        };
        plain.then_some(1)
    }
}

/// The parts of a template; `None` when the text is none.
fn template(text: &str) -> Option<Vec<Part>> {
    if !text.contains('{') {
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let literal = rest.split('{').next().unwrap_or_default();
        if literal.contains('}') {
            return None;
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
            rest = &rest[literal.len()..];
            continue;
        }
        let (inside, behind) = rest[1..].split_once('}')?;
        parts.push(Part::Expression(expression(inside)?));
        rest = behind;
    }
    Some(parts)
}

fn expression(text: &str) -> Option<Expression> {
    let (first, separator, reserved, named) = match text.as_bytes().first()? {
        b'+' => (None, b',', true, false),
        b'#' => (Some(b'#'), b',', true, false),
        b'.' => (Some(b'.'), b'.', false, false),
        b'/' => (Some(b'/'), b'/', false, false),
        b';' => (Some(b';'), b';', false, true),
        b'?' => (Some(b'?'), b'&', false, true),
        b'&' => (Some(b'&'), b'&', false, true),
        _ => (None, b',', false, false),
    };
    let variables = &text[usize::from(first.is_some() || reserved)..];
    let mut count = 0;
    let mut explodes = false;
    for variable in variables.split(',') {
        let (name, list) = match variable.strip_suffix('*') {
            Some(name) => (name, true),
            None => (variable.split(':').next().unwrap_or_default(), false),
        };
        let prefix = variable
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(':'));
        if !is_name(name) || prefix.is_some_and(|length| !is_length(length)) {
            return None;
        }
        explodes |= list;
        count += 1;
    }
    (count <= VARIABLES_MAX).then_some(Expression {
        first,
        separator,
        values: (!explodes).then_some(count),
        reserved,
        // The members of what explodes may have names as well.
        named: named || explodes,
    })
}

fn is_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.%".contains(c);
    !name.is_empty() && name.chars().all(known) && !name.starts_with('.') && !name.ends_with('.')
}

/// RFC 6570, section 2.4.1: 1 to 9999. A prefix fits whatever the whole value would.
fn is_length(text: &str) -> bool {
    (1..=4).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && !text.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fits(selector: &str, topic: &str) -> bool {
        Selector::parse(selector).unwrap().matches(topic)
    }

    #[test]
    fn topics_and_the_star() {
        assert!(fits("*", "anything"));
        assert!(fits("https://example.com/a", "https://example.com/a"));
        assert!(!fits("https://example.com/a", "https://example.com/ab"));
        assert!(!fits("a*", "ab"), "a star among others is a star");
        assert!(fits("https://example.com/{id}", "https://example.com/{id}"));
    }

    #[test]
    fn expressions_of_all_kinds() {
        for (template, yes, no) in [
            ("/b/{id}", "/b/1", "/b/1/2"),
            ("/b/{id}", "/b/", "/c/1"),
            ("/b/{id}.json", "/b/1.2.json", "/b/1.jsn"),
            ("/b/{id}", "/b/a%2Fb", "/b/a%2"),
            ("/b/{id}", "/b/a%2Fb", "/b/a%zzb"),
            ("/{a}/{b}", "/1/2", "/1"),
            ("/{a,b}", "/1,2", "/1;2"),
            ("{+path}/x", "/a/b/x", "/a/b/y"),
            ("/{#frag}", "/#a/b", "/a"),
            ("/f{.ext}", "/f.json", "/f/json"),
            ("/f{/a,b}", "/f/1/2", "/f/1/2/3"),
            ("/f{/a*}", "/f/1/2/3", "/f/1/2?3"),
            ("/f{;x,y}", "/f;x=1;y=2", "/f;x=1;y=2;z=3"),
            (
                "/u/{?topic}",
                "/u/?topic=https%3A%2F%2Fe",
                "/u/?topic=https://e",
            ),
            ("/u{?a,b}", "/u?a=1&b=2", "/u?a=1&b=2&c=3"),
            ("/u?x=1{&a*}", "/u?x=1&a=1&a=2", "/u?x=1?a=1"),
            ("/v/{name:3}", "/v/abc", "/v/a/c"),
        ] {
            assert!(fits(template, yes), "{template} {yes}");
            assert!(!fits(template, no), "{template} {no}");
        }
        assert!(fits("/f{/a,b}", "/f"), "nothing need be set");
        // What a percent sign begins belongs together.
        assert!(!fits("x{a}41", "x%41"));
    }

    #[test]
    fn what_is_no_template_is_itself() {
        for text in [
            "/a{",
            "/a}",
            "/{}",
            "/{a b}",
            "/{a:0}",
            "/{a:10000}",
            "/{=a}",
            "/{a}}",
            "/{a{b}}",
        ] {
            let selector = Selector::parse(text).unwrap();
            assert!(selector.is_exact(), "{text}");
            assert!(selector.matches(text));
        }
        assert_eq!(Selector::parse(""), Err(InvalidSelector::Length(0)));
        assert_eq!(
            Selector::parse(&"a".repeat(1001)),
            Err(InvalidSelector::Length(1001))
        );
        assert_eq!(Selector::parse("a\n"), Err(InvalidSelector::Control));
    }

    #[test]
    fn no_template_takes_long() {
        // Would take years if the match went back and tried again.
        let template = "{a}".repeat(300);
        assert!(!fits(&format!("{template}/"), &"a".repeat(1000)));
        let exploding = "{/a*}".repeat(200);
        assert!(!fits(&exploding, &format!("{}!", "/a".repeat(500))));
        assert!(!fits("{+a}", &"a".repeat(1024)), "too long to be looked at");
    }
}
