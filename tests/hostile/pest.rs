//! A connection that does not mean well: it never waits for the server, from an address of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Socket, Type};

use crate::Outcome;
use crate::wire::Kind;

/// Seeded, so that a run can be repeated.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// That many bytes of anything.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// The connection.
pub struct Pest {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Whether the server has ended it.
    pub ended: bool,
}

impl Pest {
    /// Connects from 127.0.0.`host`; `None` when the server takes none just now.
    pub fn open(host: u8, to: SocketAddr) -> Outcome<Option<Self>> {
        Self::prepared(host, to, |_| Ok(()))
    }

    /// One for which the kernel keeps little, so that what is not read soon waits in the server.
    pub fn narrow(host: u8, to: SocketAddr) -> Outcome<Option<Self>> {
        Self::prepared(host, to, |socket| {
            socket.set_recv_buffer_size(4096)?;
            socket.set_tcp_mss(1400)
        })
    }

    fn prepared(
        host: u8,
        to: SocketAddr,
        prepare: impl Fn(&Socket) -> std::io::Result<()>,
    ) -> Outcome<Option<Self>> {
        let fail = |error: std::io::Error| format!("a pest's socket: {error}");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(fail)?;
        prepare(&socket).map_err(fail)?;
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        // Many connect from here: the port is chosen together with where it goes.
        socket.set_reuse_address(true).map_err(fail)?;
        socket.bind(&from.into()).map_err(fail)?;
        if socket
            .connect_timeout(&to.into(), Duration::from_millis(500))
            .is_err()
        {
            return Ok(None);
        }
        socket.set_nonblocking(true).map_err(fail)?;
        Ok(Some(Self {
            stream: socket.into(),
            tls: None,
            ended: false,
        }))
    }

    /// One with a WebSocket handshake on its way.
    pub fn websocket(host: u8, to: SocketAddr, kind: Kind) -> Outcome<Option<Self>> {
        let pest = Self::open(host, to)?;
        Ok(pest.map(|mut pest| {
            pest.send(&kind.request("pests"));
            pest
        }))
    }

    /// From now on what is said is said inside TLS.
    pub fn secure(&mut self, trust: &Arc<ClientConfig>) -> Outcome<()> {
        let name = ServerName::try_from("localhost").map_err(|e| e.to_string())?;
        let connection = ClientConnection::new(trust.clone(), name).map_err(|e| e.to_string())?;
        self.tls = Some(Box::new(connection));
        Ok(())
    }

    /// Sends what the kernel takes now; inside TLS the rest when something is read.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        if let Some(tls) = &mut self.tls {
            // It has room for what is said here.
            let sent = tls.writer().write(bytes).unwrap_or_default();
            self.push();
            return sent;
        }
        let mut sent = 0;
        while sent < bytes.len() && !self.ended {
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
        }
        sent
    }

    /// Sends what TLS has to say.
    fn push(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        while tls.wants_write() && !self.ended {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
        }
    }

    /// Reads what is there inside TLS.
    fn read_secure(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(tls) = self.tls.as_mut().filter(|_| !self.ended) {
            match tls.read_tls(&mut self.stream) {
                Ok(0) => self.ended = true,
                Ok(_) => {
                    self.ended |= tls.process_new_packets().is_err();
                    // An error is the end of what is there for now.
                    let _ = tls.reader().read_to_end(&mut all);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
        }
        self.push();
        all
    }

    /// Reads what is there.
    pub fn read(&mut self) -> Vec<u8> {
        if self.tls.is_some() {
            return self.read_secure();
        }
        let mut all = Vec::new();
        let mut part = [0; 16384];
        while !self.ended {
            match self.stream.read(&mut part) {
                Ok(0) => self.ended = true,
                Ok(count) => all.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
        }
        all
    }

    /// Reads to the end, or for so long.
    pub fn rest(&mut self, patience: Duration) -> Vec<u8> {
        let end = std::time::Instant::now() + patience;
        let mut all = Vec::new();
        while !self.ended && std::time::Instant::now() < end {
            all.extend(self.read());
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.stream)
    }

    /// Sends nothing more, and listens.
    pub fn shut(&self) {
        // It may have been ended from the other side.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
