//! The bare round trip: one process writes as many bytes as an `rt_broadcast()` call sends through the control socket,
//! another reads them and writes as many as the hub answers. Blocking, one read(2) and one write(2) on each side.
//!
//! Nothing that asks another process over a Unix socket costs less. The asking role takes the same commands on standard
//! input as `php/publish.php`.

use std::io::{self, BufRead, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use realtime::wire::control::{self, PayloadRef, Request, Response, WirePublish};

use crate::cpu;
use crate::{Outcome, say};

/// What a call asks and is answered, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    request: usize,
    answer: usize,
}

impl Sizes {
    /// Of a message of `bytes` (a JSON string, so two quotes more) to `channel`.
    fn of(channel: &str, bytes: usize) -> Self {
        let request = Request::Publish(WirePublish {
            channels: vec![channel],
            payload: PayloadRef::Json(&vec![b'x'; bytes + 2]),
            event: "message",
            except: None,
            id: None,
            store: true,
            terms: None,
        });
        let answer = Response::Published("00000000-100000".to_owned());
        Self {
            request: control::frame(&request).len(),
            answer: control::frame(&answer).len(),
        }
    }
}

/// Answers at `path` until it is killed. Each link begins with the channel's name and the size of its messages.
pub fn answer(path: &str) -> Outcome<()> {
    let listener = UnixListener::bind(path).map_err(|e| format!("{path}: {e}"))?;
    say("LISTEN");
    loop {
        let (stream, _) = listener.accept().map_err(|e| format!("accept: {e}"))?;
        // A thread each: no asker waits for another.
        std::thread::spawn(move || {
            if let Err(error) = serve(stream) {
                say(&format!("bare round trip: {error}"));
            }
        });
    }
}

fn serve(mut stream: UnixStream) -> io::Result<()> {
    let mut first = [0; 1];
    stream.read_exact(&mut first)?;
    let mut sizes = vec![0; usize::from(first[0])];
    stream.read_exact(&mut sizes)?;
    let text = String::from_utf8_lossy(&sizes);
    let (request, answer) = text
        .split_once(' ')
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        .ok_or(io::ErrorKind::InvalidData)?;
    let (mut request, answer) = (vec![0; request], vec![0; answer]);
    loop {
        // Small enough that one read(2) brings all of it.
        match stream.read_exact(&mut request) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            done => done?,
        }
        stream.write_all(&answer)?;
    }
}

/// Asks whoever answers at `path`, as told on standard input.
pub fn ask(path: &str) -> Outcome<()> {
    let fail = |error: io::Error| format!("{path}: {error}");
    let mut asker: Option<(Sizes, UnixStream)> = None;
    say("LISTEN -");
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| text.parse::<usize>().map_err(|e| format!("ask: {e}"));
        let (channel, calls, bytes, pause) = match words[..] {
            ["loop", channel, calls, bytes] => (channel, number(calls)?, number(bytes)?, 0),
            ["asleep", channel, calls, bytes, pause] => {
                (channel, number(calls)?, number(bytes)?, number(pause)?)
            }
            _ => return Err(format!("ask: cannot do \"{line}\"")),
        };
        if asker.is_none() {
            let sizes = Sizes::of(channel, bytes);
            let mut stream = UnixStream::connect(path).map_err(fail)?;
            let text = format!("{} {}", sizes.request, sizes.answer);
            stream
                .write_all(&[text.len() as u8])
                .and_then(|()| stream.write_all(text.as_bytes()))
                .map_err(fail)?;
            asker = Some((sizes, stream));
        }
        let Some((sizes, stream)) = &mut asker else {
            continue;
        };
        let (request, mut answer) = (vec![0; sizes.request], vec![0; sizes.answer]);
        let mut call = || {
            stream.write_all(&request)?;
            stream.read_exact(&mut answer)
        };
        let mut times = Vec::new();
        let started = cpu::now();
        if pause == 0 {
            for _ in 0..calls / 100 {
                let block = cpu::now();
                for _ in 0..100 {
                    call().map_err(fail)?;
                }
                times.push(cpu::now() - block);
            }
        } else {
            for _ in 0..calls {
                std::thread::sleep(Duration::from_micros(pause as u64));
                let begun = cpu::now();
                call().map_err(fail)?;
                times.push(cpu::now() - begun);
            }
        }
        let wall = match pause {
            0 => cpu::now() - started,
            _ => times.iter().sum(),
        };
        times.sort_unstable();
        say(&format!("DONE {wall} {}", times[times.len() / 2]));
    }
    Ok(())
}
