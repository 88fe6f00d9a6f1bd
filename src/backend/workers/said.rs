//! What a handler request printed and what PHP reported, as much of it as a log line takes; and how often that is logged.
//!
//! Imports nothing of this crate.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How much of each is kept, in bytes.
const KEPT: usize = 1024;
/// The most that the head of a CGI answer may take: cookies, mostly.
const HEAD_MAX: usize = 16 << 10;

/// Collects it.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The head of the CGI answer, until it is complete.
    head: Vec<u8>,
    has_head: bool,
    status: Option<String>,
    body: Vec<u8>,
    body_length: u64,
    errors: Vec<u8>,
    framed: bool,
}

impl Said {
    /// Something other than outcomes stood in the output.
    pub(super) fn printed(&mut self, text: &[u8]) {
        if self.has_head {
            self.add(text);
            return;
        }
        self.head.extend_from_slice(text);
        if let Some(end) = find(&self.head, b"\r\n\r\n") {
            let head = std::mem::take(&mut self.head);
            self.has_head = true;
            self.status = status(&head[..end]);
            self.add(&head[end + 4..]);
        } else if self.head.len() > HEAD_MAX {
            self.no_head();
        }
    }

    /// Something stood in the error stream.
    pub(super) fn reported(&mut self, text: &[u8]) {
        let room = KEPT - self.errors.len();
        self.errors.extend_from_slice(&text[..text.len().min(room)]);
    }

    /// Outcomes came.
    pub(super) fn framed(&mut self) {
        self.framed = true;
    }

    /// Whether there was anything at all.
    pub(super) fn anything(&self) -> bool {
        self.framed
            || self.has_head
            || !(self.head.is_empty() && self.body.is_empty() && self.errors.is_empty())
    }

    /// What PHP reported.
    pub(super) fn report(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.errors);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        Some(lines.join(" / ")).filter(|text| !text.is_empty())
    }

    /// What the script printed, and how long it was.
    pub(super) fn text(&self) -> Option<(String, u64)> {
        // A head that never ended is the script's own text.
        let shown = if self.has_head {
            &self.body
        } else {
            &self.head
        };
        let length = self.body_length.max(shown.len() as u64);
        let shown = &shown[..shown.len().min(KEPT)];
        (length > 0).then(|| (String::from_utf8_lossy(shown).into_owned(), length))
    }

    /// Why the script gave no outcome, for its operator.
    pub(super) fn why_nothing_ran(&self, script: &str, exit: u32) -> String {
        let status = self.status.as_deref().unwrap_or_default();
        if status.starts_with("404") {
            return format!(
                "realtime.handler: the pool does not find {script} (it may run in a chroot, or as a user who may not \
                 read it)"
            );
        }
        if status.starts_with("403") {
            return format!(
                "realtime.handler: the pool may not run {script}: see security.limit_extensions"
            );
        }
        let text = self
            .text()
            .map_or_else(String::new, |(text, _)| format!(", it printed {text:?}"));
        let status = match status {
            "" => String::new(),
            status => format!(", status {status}"),
        };
        format!("realtime.handler: {script} ended without rt_run(), exit code {exit}{status}{text}")
    }

    fn add(&mut self, text: &[u8]) {
        self.body_length += text.len() as u64;
        let room = KEPT - self.body.len();
        self.body.extend_from_slice(&text[..text.len().min(room)]);
    }

    fn no_head(&mut self) {
        let text = std::mem::take(&mut self.head);
        self.has_head = true;
        self.add(&text);
    }
}

/// The `Status` of a CGI answer's head.
fn status(head: &[u8]) -> Option<String> {
    head.split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Status:"))
        .map(|status| String::from_utf8_lossy(status).trim().to_owned())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// How often a line is let through at first, and at last, when it keeps coming.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Lets a line through once a second, and ever more rarely while it keeps coming: what an operator has not mended in a minute
/// is not to fill a disk.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    last: Cell<Option<Instant>>,
    pause: Cell<Duration>,
    missed: Cell<u64>,
}

impl Throttle {
    /// Calls `log` with how many were held back before it, or holds it back too.
    pub(super) fn pass(&self, log: impl FnOnce(u64)) {
        self.pass_at(Instant::now(), log);
    }

    fn pass_at(&self, now: Instant, log: impl FnOnce(u64)) {
        let quiet = self.last.get().map(|last| now.duration_since(last));
        let pause = self.pause.get();
        if quiet.is_some_and(|quiet| quiet < pause) {
            self.missed.set(self.missed.get() + 1);
            return;
        }
        let (first, longest) = PAUSES;
        // After a silence of twice the pause it is news again.
        let goes_on = quiet.is_some_and(|quiet| quiet < 2 * pause.max(first));
        self.pause.set(match goes_on {
            true => (2 * pause).clamp(first, longest),
            false => first,
        });
        self.last.set(Some(now));
        log(self.missed.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_answer_is_not_what_the_script_printed() {
        let mut said = Said::default();
        said.printed(b"X-Powered-By: PHP/8.2\r\nContent-type: text");
        said.printed(b"/html\r\n\r");
        said.printed(b"\n");
        assert_eq!(said.text(), None);
        assert!(said.anything());
        said.printed(b"Hi");
        assert_eq!(said.text(), Some(("Hi".into(), 2)));
    }

    #[test]
    fn an_operator_is_told_what_to_mend() {
        let mut said = Said::default();
        said.printed(b"Status: 404 Not Found\r\n\r\nFile not found.\n");
        assert!(
            said.why_nothing_ran("/a.php", 0)
                .contains("does not find /a.php")
        );
        let mut said = Said::default();
        said.printed(b"\r\n\r\nParse error");
        let why = said.why_nothing_ran("/a.php", 255);
        assert!(
            why.contains("exit code 255") && why.contains("Parse error"),
            "{why}"
        );
    }

    #[test]
    fn a_line_that_keeps_coming_is_logged_ever_more_rarely() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let mut logged = Vec::new();
        let mut held = 0;
        for half in 0..1200 {
            throttle.pass_at(start + Duration::from_millis(500 * half), |missed| {
                logged.push(half / 2);
                held += missed;
            });
        }
        assert_eq!(logged[..5], [0, 1, 3, 7, 15]);
        assert!(logged.len() < 18, "{logged:?}");
        assert!(held > 1000, "{held}");
        // And at once when it comes after a silence.
        let later = start + Duration::from_secs(2000);
        throttle.pass_at(later, |_| held = 0);
        assert_eq!(held, 0);
        throttle.pass_at(later + Duration::from_secs(1), |_| held = 1);
        assert_eq!(held, 1);
    }

    #[test]
    fn endless_output_is_bounded() {
        let mut said = Said::default();
        for _ in 0..1000 {
            said.printed(&[b'x'; 100]);
            said.reported(&[b'y'; 100]);
        }
        assert_eq!(said.text().unwrap().1, 100_000);
        assert_eq!(said.text().unwrap().0.len(), KEPT);
        assert_eq!(said.report().unwrap().len(), KEPT);
        assert!(said.head.is_empty());
    }
}
