//! A file that is logged to, for as long as the hub lives: it follows log rotation, and a full disk harms nothing but the
//! log. Imports nothing of this crate.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How often the file is looked at, in case it was moved away.
const LOOK: Duration = Duration::from_secs(1);

/// A log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    looked: Instant,
    /// Lines that could not be written, and why the last could not.
    lost: Option<(u64, io::Error)>,
}

impl LogFile {
    /// Opens `path`, and makes it if need be.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let state = State {
            file: append(&path)?,
            looked: Instant::now(),
            lost: None,
        };
        Ok(Self {
            path,
            state: Mutex::new(state),
        })
    }

    fn write_line(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            self.follow(&mut state);
        }
        let note = state.lost.as_ref().map(|(count, error)| {
            format!("realtime: {count} lines of this log are lost: {error}\n")
        });
        let mut text = note.unwrap_or_default().into_bytes();
        text.extend_from_slice(line);
        match state.file.write_all(&text) {
            Ok(()) => state.lost = None,
            Err(error) => {
                let before = state.lost.take().map_or(0, |(count, _)| count);
                state.lost = Some((before + 1, error));
            }
        }
    }

    /// Opens the file anew when another one, or none, is where it was.
    fn follow(&self, state: &mut State) {
        let same = || {
            let (now, ours) = (
                std::fs::metadata(&self.path).ok()?,
                state.file.metadata().ok()?,
            );
            Some((now.dev(), now.ino()) == (ours.dev(), ours.ino()))
        };
        if same() != Some(true)
            && let Ok(file) = append(&self.path)
        {
            state.file = file;
        }
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// One line on its way to the file. Writing it never fails.
#[derive(Debug)]
pub struct Line<'a>(&'a LogFile);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = LogFile::open(path.clone()).unwrap();
        log.write_line(b"one\n");
        std::fs::rename(&path, directory.path().join("log.1")).unwrap();
        std::thread::sleep(LOOK);
        log.write_line(b"two\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
        assert_eq!(
            std::fs::read(directory.path().join("log.1")).unwrap(),
            b"one\n"
        );
    }

    #[test]
    fn says_what_a_full_disk_has_cost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = LogFile::open(path.clone()).unwrap();
        log.state.lock().unwrap().file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        log.write_line(b"one\n");
        log.write_line(b"two\n");
        std::thread::sleep(LOOK);
        log.write_line(b"three\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("realtime: 2 lines of this log are lost: No space left"),
            "{text}"
        );
        assert!(text.ends_with("\nthree\n"));
    }
}
