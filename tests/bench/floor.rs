//! The floor: one thread that writes a ready-made WebSocket frame to each of N sockets with plain write(2).
//!
//! Nothing that delivers message by message over TCP costs less on this kernel. It takes the same commands on
//! standard input as `php/publish.php`, and the same signal (one byte for each message that all clients have).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use crate::cpu;
use crate::wire;
use crate::{Outcome, say};

/// Runs the role until standard input ends: accepts `connections`, then obeys.
pub fn run(connections: usize) -> Outcome<()> {
    let listener = listen().map_err(|e| format!("floor: listen: {e}"))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    say(&format!("LISTEN {address}"));
    let mut sockets = Vec::with_capacity(connections);
    while sockets.len() < connections {
        let (mut socket, _) = listener
            .accept()
            .map_err(|e| format!("floor: accept: {e}"))?;
        shake_hands(&mut socket).map_err(|e| format!("floor: handshake: {e}"))?;
        socket
            .set_nodelay(true)
            .map_err(|e| format!("floor: {e}"))?;
        // A File's write is write(2), a TcpStream's is send(2).
        sockets.push(File::from(OwnedFd::from(socket)));
    }
    obey(&mut sockets)
}

/// Takes a handshake without looking at it, and gives the ready-made answer.
fn shake_hands(socket: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut more = [0; 1024];
        match socket.read(&mut more)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&more[..count]),
        }
    }
    socket.write_all(wire::SWITCHING.as_bytes())
}

fn listen() -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn obey(sockets: &mut [File]) -> Outcome<()> {
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    let mut sequence = 0;
    loop {
        line.clear();
        if input.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
            return Ok(());
        }
        // `run MODE CHANNEL MESSAGES WINDOW BYTES`, as publish.php; the floor only knows one message at a time.
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["run", _, _, messages, "1", bytes] = words[..] else {
            return Err(format!("floor: cannot do \"{}\"", line.trim()));
        };
        let number = |text: &str| text.parse::<usize>().map_err(|e| format!("floor: {e}"));
        let (messages, bytes) = (number(messages)?, number(bytes)?);
        let started = cpu::now();
        for _ in 0..messages {
            let frame = wire::server_frame(&wire::payload(sequence, cpu::now(), bytes));
            sequence += 1;
            for socket in &mut *sockets {
                // A blocking socket takes all of a small frame in one write(2) unless its buffer is full.
                socket
                    .write_all(&frame)
                    .map_err(|e| format!("floor: write: {e}"))?;
            }
            input
                .read_exact(&mut [0])
                .map_err(|e| format!("floor: signal: {e}"))?;
        }
        say(&format!("DONE {}", cpu::now() - started));
    }
}
