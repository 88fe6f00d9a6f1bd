//! FastCGI 1.0 as a web server speaks it: one request after the other on a connection that is kept.
//!
//! [`Request`] becomes the bytes that a pool reads, [`Answer`] takes what it sends apart, piece by piece and without
//! keeping any of it. Own code, because the crate for it (fastcgi-client) writes a whole request before it reads, which
//! locks up with a script that answers first, and its stream ends alike when the pool has finished and when it broke off.
//! Imports nothing of this crate.

/// The version in every record.
const VERSION: u8 = 1;
/// The only request id in use: no multiplexing, which PHP does not know.
const REQUEST: u16 = 1;
/// What a record's header takes.
const HEADER: usize = 8;
/// The most that a record of ours holds: a multiple of 8, so that none needs padding.
const CONTENT_MAX: usize = 65_528;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// A request's parameters, then its body.
#[derive(Clone, Debug, Default)]
pub struct Request {
    params: Vec<u8>,
}

impl Request {
    /// Adds a parameter.
    pub fn param(&mut self, name: &str, value: &str) {
        self.param_of(&[name], &[value]);
    }

    /// Adds a parameter whose name and value are in parts.
    pub fn param_of(&mut self, name: &[&str], value: &[&str]) {
        let length = |parts: &[&str]| parts.iter().map(|part| part.len()).sum();
        self.lengths(length(name), length(value));
        for part in name.iter().chain(value) {
            self.params.extend_from_slice(part.as_bytes());
        }
    }

    /// Adds a header of the client's request as CGI names it: `x-app` becomes `HTTP_X_APP`. Values of the same name come
    /// joined by `separator`.
    pub fn header<'a>(
        &mut self,
        name: &str,
        values: impl Iterator<Item = &'a str> + Clone,
        separator: &str,
    ) {
        const PREFIX: &[u8] = b"HTTP_";
        let (count, length) = values.clone().fold((0, 0), |(count, length), value| {
            (count + 1, length + value.len())
        });
        let separators = separator.len() * usize::saturating_sub(count, 1);
        self.lengths(PREFIX.len() + name.len(), length + separators);
        self.params.extend_from_slice(PREFIX);
        self.params.extend(name.bytes().map(|byte| match byte {
            b'-' => b'_',
            other => other.to_ascii_uppercase(),
        }));
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.params.extend_from_slice(separator.as_bytes());
            }
            self.params.extend_from_slice(value.as_bytes());
        }
    }

    /// Becomes a copy of `other`, in the memory that it has.
    pub fn become_like(&mut self, other: &Self) {
        self.params.clone_from(&other.params);
    }

    /// The whole request, which asks the pool to keep the connection.
    pub fn bytes(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(body, &mut bytes);
        bytes
    }

    /// As [`Request::bytes`], behind what is in `bytes`.
    pub fn write(&self, body: &[u8], bytes: &mut Vec<u8>) {
        bytes.reserve(self.params.len() + body.len() + 128);
        // The role of a responder, and FCGI_KEEP_CONN.
        record(BEGIN_REQUEST, &[0, 1, 1, 0, 0, 0, 0, 0], bytes);
        stream(PARAMS, &self.params, bytes);
        stream(STDIN, body, bytes);
    }

    fn lengths(&mut self, name: usize, value: usize) {
        for length in [name, value] {
            match u8::try_from(length) {
                Ok(short) if short < 0x80 => self.params.push(short),
                _ => self
                    .params
                    .extend_from_slice(&(length as u32 | 1 << 31).to_be_bytes()),
            }
        }
    }
}

/// Puts content into as many records as it takes, and an empty one that ends the stream.
fn stream(kind: u8, content: &[u8], bytes: &mut Vec<u8>) {
    for part in content.chunks(CONTENT_MAX) {
        record(kind, part, bytes);
    }
    record(kind, &[], bytes);
}

fn record(kind: u8, content: &[u8], bytes: &mut Vec<u8>) {
    let [id_high, id_low] = REQUEST.to_be_bytes();
    let [high, low] = (content.len() as u16).to_be_bytes();
    bytes.extend_from_slice(&[VERSION, kind, id_high, id_low, high, low, 0, 0]);
    bytes.extend_from_slice(content);
}

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The script's output.
    Output(&'a [u8]),
    /// What goes to the log.
    Error(&'a [u8]),
    /// The request is over.
    End {
        /// The script's exit code.
        status: u32,
        /// 0, or why the pool did not take the request.
        refused: u8,
    },
}

/// What no pool sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    /// Another version, or no FastCGI at all.
    #[error("the answer is not FastCGI")]
    NotFastCgi,
    /// About a request that was not made.
    #[error("the answer is about request {0}, which was not made")]
    OtherRequest(u16),
    /// A record that only a web server sends, or none that is known.
    #[error("the answer has a record of type {0}")]
    BadType(u8),
    /// An end that is too short.
    #[error("the answer's end has {0} bytes")]
    BadEnd(usize),
}

/// Reads one answer.
#[derive(Debug, Default)]
pub struct Answer {
    header: [u8; HEADER],
    header_has: usize,
    kind: u8,
    content: usize,
    padding: usize,
    end: [u8; HEADER],
    end_has: usize,
}

impl Answer {
    /// Takes the next part off the front of `bytes`. `None`: all of it is taken, and more must come.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, Garbage> {
        loop {
            if self.header_has < HEADER {
                let missing = take(bytes, HEADER - self.header_has);
                if missing.is_empty() {
                    return Ok(None);
                }
                self.header[self.header_has..][..missing.len()].copy_from_slice(missing);
                self.header_has += missing.len();
                if self.header_has == HEADER {
                    self.begin()?;
                }
                continue;
            }
            if self.content > 0 {
                let content = take(bytes, self.content);
                if content.is_empty() {
                    return Ok(None);
                }
                self.content -= content.len();
                match self.kind {
                    STDOUT => return Ok(Some(Part::Output(content))),
                    STDERR => return Ok(Some(Part::Error(content))),
                    _ => {
                        // Exactly as long as `end`, which `begin` has checked.
                        self.end[self.end_has..][..content.len()].copy_from_slice(content);
                        self.end_has += content.len();
                    }
                }
                continue;
            }
            if self.padding > 0 {
                let padding = take(bytes, self.padding);
                if padding.is_empty() {
                    return Ok(None);
                }
                self.padding -= padding.len();
                continue;
            }
            self.header_has = 0;
            if self.end_has == self.end.len() {
                self.end_has = 0;
                let [a, b, c, d, refused, ..] = self.end;
                let status = u32::from_be_bytes([a, b, c, d]);
                return Ok(Some(Part::End { status, refused }));
            }
        }
    }

    fn begin(&mut self) -> Result<(), Garbage> {
        let [version, kind, id_high, id_low, high, low, padding, _] = self.header;
        let id = u16::from_be_bytes([id_high, id_low]);
        self.kind = kind;
        self.content = usize::from(u16::from_be_bytes([high, low]));
        self.padding = usize::from(padding);
        if version != VERSION {
            return Err(Garbage::NotFastCgi);
        }
        if !matches!(kind, STDOUT | STDERR | END_REQUEST) {
            return Err(Garbage::BadType(kind));
        }
        if id != REQUEST {
            return Err(Garbage::OtherRequest(id));
        }
        if kind == END_REQUEST && self.content != self.end.len() {
            return Err(Garbage::BadEnd(self.content));
        }
        Ok(())
    }
}

/// Takes up to `count` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer's parts, when it comes `step` bytes at a time.
    fn parts(bytes: &[u8], step: usize) -> Result<Vec<(char, Vec<u8>)>, Garbage> {
        let mut answer = Answer::default();
        let mut parts: Vec<(char, Vec<u8>)> = Vec::new();
        for mut chunk in bytes.chunks(step) {
            while let Some(part) = answer.next(&mut chunk)? {
                let (kind, bytes) = match part {
                    Part::Output(bytes) => ('o', bytes.to_vec()),
                    Part::Error(bytes) => ('e', bytes.to_vec()),
                    Part::End { status, refused } => ('x', vec![status as u8, refused]),
                };
                match parts.last_mut() {
                    Some((last, all)) if *last == kind => all.extend(bytes),
                    _ => parts.push((kind, bytes)),
                }
            }
        }
        Ok(parts)
    }

    fn answer() -> Vec<u8> {
        let mut bytes = Vec::new();
        record(STDOUT, b"hello ", &mut bytes);
        record(STDERR, b"oops", &mut bytes);
        // A record with padding.
        bytes.extend_from_slice(&[1, STDOUT, 0, 1, 0, 5, 3, 0]);
        bytes.extend_from_slice(b"world\0\0\0");
        record(STDOUT, &[], &mut bytes);
        record(END_REQUEST, &[0, 0, 0, 7, 0, 0, 0, 0], &mut bytes);
        bytes
    }

    #[test]
    fn answers_come_in_any_pieces() {
        let expected = vec![
            ('o', b"hello ".to_vec()),
            ('e', b"oops".to_vec()),
            ('o', b"world".to_vec()),
            ('x', vec![7, 0]),
        ];
        for step in [1, 2, 3, 7, 8, 9, 1000] {
            assert_eq!(parts(&answer(), step).unwrap(), expected, "{step}");
        }
        assert_eq!(parts(&answer()[..50], 8).unwrap().last().unwrap().0, 'o');
    }

    #[test]
    fn garbage_is_told() {
        assert_eq!(parts(b"HTTP/1.1 400", 4), Err(Garbage::NotFastCgi));
        let mut other = answer();
        other[3] = 2;
        assert_eq!(parts(&other, 4), Err(Garbage::OtherRequest(2)));
        assert_eq!(
            parts(&[1, STDIN, 0, 1, 0, 0, 0, 0], 8),
            Err(Garbage::BadType(STDIN))
        );
        assert_eq!(
            parts(&[1, END_REQUEST, 0, 1, 0, 9, 0, 0], 8),
            Err(Garbage::BadEnd(9))
        );
    }

    #[test]
    fn no_bytes_at_all_make_it_panic_or_grow() {
        // A cheap stand-in for a fuzzer: valid answers with bytes changed at random, in random pieces.
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize
        };
        for _ in 0..20_000 {
            let mut bytes = answer();
            for _ in 0..random() % 4 {
                let index = random() % bytes.len();
                bytes[index] = random() as u8;
            }
            let _ = parts(&bytes, 1 + random() % bytes.len());
        }
    }

    #[test]
    fn requests_are_as_the_specification_has_them() {
        let mut request = Request::default();
        request.param("A", "b");
        request.param_of(&["HTTP_", "X"], &[&"y".repeat(200)]);
        let bytes = request.bytes(b"body");
        let mut expected = vec![1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0];
        let params = 4 + 1 + 4 + 6 + 200;
        expected.extend([1, 4, 0, 1, 0, params, 0, 0, 1, 1, b'A', b'b']);
        expected.extend([6, 0x80, 0, 0, 200]);
        expected.extend(b"HTTP_X");
        expected.extend([b'y'; 200]);
        expected.extend([1, 4, 0, 1, 0, 0, 0, 0]);
        expected.extend([1, 5, 0, 1, 0, 4, 0, 0]);
        expected.extend(b"body");
        expected.extend([1, 5, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);
        let long = Request::default().bytes(&vec![b'x'; 70_000]);
        assert_eq!(long.len(), 16 + 8 + (8 + 65_528) + (8 + 4_472) + 8);
    }
}
