//! The address for clients: binding it, and saying who has it when it is taken.
//!
//! Imports `config`, `procfs` and `control`'s election.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::auth::KeysError;
use crate::config::ListenAddress;
use crate::control::election::NotElected;
use crate::procfs::Process;
use crate::store::StoreError;
use crate::tls::TlsError;

/// Connections that the kernel completes before they are accepted. It takes at most net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// A bound and listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: String,
    /// The file of a Unix socket, removed with it.
    file: Option<PathBuf>,
    /// Whether the file goes when this does: not while another hub serves on the same socket.
    owned: Cell<bool>,
}

/// Why a server did not start. For the operator; each is a whole sentence.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process is the hub, or the control socket cannot be used.
    #[error(transparent)]
    Control(#[from] NotElected),
    /// Somebody else listens there.
    #[error("cannot listen on {address} (realtime.listen): it is taken{}", .holder.as_ref().map_or(String::new(), |holder| format!(" by {holder}")))]
    Taken {
        /// Where.
        address: String,
        /// Who, when that can be seen.
        holder: Option<String>,
    },
    /// Something else is where the socket should be.
    #[error("cannot listen on unix:{} (realtime.listen): there is a file that is no socket", .0.display())]
    NoSocket(PathBuf),
    /// There is nothing to serve files from.
    #[error("realtime.docroot must be a directory that can be read, {} is not: {error}", .directory.display())]
    NoDocroot {
        /// What it is set to.
        directory: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The keys of tokens cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Nothing can be kept on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Anything else about the address.
    #[error("cannot listen on {address} (realtime.listen): {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The system refuses a thread, an epoll or random numbers.
    #[error("cannot start the server's threads: {0}")]
    Threads(io::Error),
}

impl Listener {
    /// Binds `address`; the first that works where a name has several.
    pub fn bind(address: &ListenAddress) -> Result<Self, StartError> {
        let failed = |error| StartError::Listen {
            address: address.to_string(),
            error,
        };
        match address {
            ListenAddress::Unix(path) => Self::bind_unix(address, path),
            ListenAddress::Tcp(_) => {
                let mut last = io::ErrorKind::NotFound.into();
                for candidate in address.resolve().map_err(failed)? {
                    match bind_tcp(candidate) {
                        Ok(socket) => return Self::listening(socket, None).map_err(failed),
                        Err(error) => last = error,
                    }
                }
                if last.kind() == io::ErrorKind::AddrInUse {
                    let text = address.to_string();
                    let port = || text.rsplit(':').next()?.parse().ok();
                    let holder = hub_at(&text).or_else(|| port().and_then(holder_of_port));
                    return Err(StartError::Taken {
                        address: text,
                        holder,
                    });
                }
                Err(failed(last))
            }
        }
    }

    /// The socket of a hub that hands over, which listens on `address`.
    pub fn inherit(socket: OwnedFd, address: &ListenAddress) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        let file = match address {
            ListenAddress::Unix(path) => Some(path.clone()),
            ListenAddress::Tcp(_) => None,
        };
        let listener = Self::of(socket, file)?;
        listener.set_owned(false);
        Ok(listener)
    }

    /// Binds `address` beside `other`, which may have its port at another of the machine's addresses.
    pub fn bind_beside(address: &ListenAddress, other: &Self) -> Result<Self, StartError> {
        let taken = match Self::bind(address) {
            Err(taken @ StartError::Taken { .. }) => taken,
            result => return result,
        };
        let bind = || {
            // With it on both of them the kernel lets 0.0.0.0:80 stand beside 127.0.0.1:80.
            other.socket.set_reuse_port(true)?;
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for candidate in address.resolve()? {
                let socket = Socket::new(Domain::for_address(candidate), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(true)?;
                match socket.bind(&candidate.into()) {
                    Ok(()) => return Self::listening(socket, None),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        bind().map_err(|_| taken)
    }

    /// From here on the file of a Unix socket is this listener's, or another's.
    pub fn set_owned(&self, owned: bool) {
        self.owned.set(owned);
    }

    /// Where clients connect, with the port that was really taken.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes a client that waits; `WouldBlock` when none does.
    pub fn accept(&self) -> io::Result<(Socket, SockAddr)> {
        self.socket.accept()
    }

    fn bind_unix(address: &ListenAddress, path: &Path) -> Result<Self, StartError> {
        let failed = |error| StartError::Listen {
            address: address.to_string(),
            error,
        };
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            let address = address.to_string();
            let holder = hub_at(&address);
            return Err(StartError::Taken { address, holder });
        }
        // Left by a server that died: nobody listens on it. Anything that is no socket stays.
        let stale = std::fs::symlink_metadata(path)
            .is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()));
        if stale {
            std::fs::remove_file(path).map_err(failed)?;
        } else if path.exists() {
            return Err(StartError::NoSocket(path.to_owned()));
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        SockAddr::unix(path)
            .and_then(|at| socket.bind(&at))
            .map_err(failed)?;
        Self::listening(socket, Some(path.to_owned())).map_err(failed)
    }

    fn listening(socket: Socket, file: Option<PathBuf>) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Self::of(socket, file)
    }

    fn of(socket: Socket, file: Option<PathBuf>) -> io::Result<Self> {
        let address = match &file {
            Some(path) => format!("unix:{}", path.display()),
            None => socket
                .local_addr()?
                .as_socket()
                .map_or_else(String::new, |address| address.to_string()),
        };
        Ok(Self {
            socket,
            address,
            file,
            owned: Cell::new(true),
        })
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| self.owned.get()) {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(file);
        }
    }
}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // With SO_REUSEADDR two sockets may bind one port; only listening tells.
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Closes what a forked child has inherited of a server's clients: sockets whose own end is `address`.
pub fn close_inherited(address: &str) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let descriptors: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in descriptors {
        // SAFETY: only borrowed for getsockname(), which fails harmlessly on what is no socket.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let local = socket2::SockRef::from(&borrowed).local_addr();
        let ours = local.is_ok_and(|local| match local.as_socket() {
            Some(local) => local.to_string() == address,
            None => local
                .as_pathname()
                .is_some_and(|path| format!("unix:{}", path.display()) == address),
        });
        if ours {
            // SAFETY: a socket of the server, whose threads and objects are not in this process any more.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// A hub in a process of its own, by its title: where it lets nobody look at its descriptors. The usual way to meet one is a
/// changed `realtime.socket`: it lives on with the PHP that it knows, and the new one does not find it.
fn hub_at(address: &str) -> Option<String> {
    let title = super::detached::title(address);
    let found = Process::all().find(|process| {
        let shown = process.title.split(|&byte| byte == 0).next();
        shown == Some(title.as_bytes())
    })?;
    Some(format!(
        "process {}, a realtime server with another realtime.socket; if that setting was changed, end that process",
        found.pid
    ))
}

/// Which process listens on a TCP port, as far as /proc shows it to this user.
fn holder_of_port(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .find_map(|table| {
            let table = std::fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let local = fields.get(1)?.rsplit(':').next()?;
                let listening = *fields.get(3)? == "0A";
                let same = u16::from_str_radix(local, 16).ok()? == port;
                (listening && same).then(|| format!("socket:[{}]", fields[9]))
            })
        })?;
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|pid| pid.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == &*inode)
        });
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", name.trim()));
        }
    }
    Some("a process that this user may not look into".to_owned())
}
