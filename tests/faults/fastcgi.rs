//! One FastCGI request to a pool's Unix socket, as a web server makes it; its output line by line as it comes.
//!
//! Written without the extension's own client, which is under test elsewhere.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::Outcome;

const BEGIN: u8 = 1;
const END: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const RESPONDER: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];

/// Runs `script` and hands each line of its output to `line`. An error says how the request broke off.
pub fn request(
    socket: &Path,
    script: &Path,
    query: &str,
    mut line: impl FnMut(&str),
) -> Outcome<()> {
    let mut stream = UnixStream::connect(socket).map_err(|e| format!("connect: {e}"))?;
    stream
        // Longer than any call in a page may wait for the server.
        .set_read_timeout(Some(Duration::from_secs(60)))
        .map_err(|e| e.to_string())?;
    let script = script.to_string_lossy();
    let mut params = Vec::new();
    for (name, value) in [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_FILENAME", &*script),
        ("SCRIPT_NAME", "/publish.php"),
        ("REQUEST_URI", "/publish.php"),
        ("QUERY_STRING", query),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ] {
        for part in [name, value] {
            let length = u32::try_from(part.len()).map_err(|e| e.to_string())?;
            params.extend_from_slice(&(length | 1 << 31).to_be_bytes());
        }
        params.extend_from_slice(name.as_bytes());
        params.extend_from_slice(value.as_bytes());
    }
    let mut bytes = record(BEGIN, &RESPONDER);
    bytes.extend(record(PARAMS, &params));
    bytes.extend(record(PARAMS, &[]));
    bytes.extend(record(STDIN, &[]));
    stream
        .write_all(&bytes)
        .map_err(|e| format!("write: {e}"))?;

    let mut input = BufReader::new(stream);
    let mut output = Vec::new();
    loop {
        let mut head = [0; 8];
        input
            .read_exact(&mut head)
            .map_err(|e| format!("read: {e}"))?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let mut content = vec![0; length + usize::from(head[6])];
        input
            .read_exact(&mut content)
            .map_err(|e| format!("read: {e}"))?;
        match head[1] {
            STDOUT => output.extend_from_slice(&content[..length]),
            END => return Ok(()),
            _ => continue,
        }
        while let Some(end) = output.iter().position(|&byte| byte == b'\n') {
            let whole: Vec<u8> = output.drain(..=end).collect();
            line(String::from_utf8_lossy(&whole).trim_end());
        }
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a few short parameters");
    let [high, low] = length.to_be_bytes();
    let mut bytes = vec![1, kind, 0, 1, high, low, 0, 0];
    bytes.extend_from_slice(content);
    bytes
}
