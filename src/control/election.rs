//! Who is the hub: whoever holds the lock beside the control socket. The kernel lets go of it when the holder dies, so a
//! stale socket is told from a live one without guessing.
//!
//! Called by `server` before anything else starts. Imports `config`.

use std::cell::Cell;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::Client;
use super::restarts::Record;
use crate::config::Config;

/// The won election: the control socket, bound and listening, so that early callers queue.
#[derive(Debug)]
pub struct Elected {
    /// Where other processes connect.
    pub listener: UnixListener,
    path: PathBuf,
    /// Held for as long as the hub lives.
    lock: File,
    /// Whether the socket's file goes when this does: not while another hub serves on the same socket.
    owned: Cell<bool>,
    /// The socket's file, as it was last seen.
    file: Cell<Option<FileId>>,
}

/// Device and inode.
type FileId = (u64, u64);

/// Why this process is not the hub. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum NotElected {
    /// Another hub has the socket.
    #[error(
        "a realtime server already runs{} on the control socket {}; to run a second one, give it a \
         realtime.socket of its own",
        .at.as_ref().map_or(String::new(), |(pid, address)| format!(" in process {pid}, listening on {address},")),
        .socket.display()
    )]
    Running {
        /// The control socket.
        socket: PathBuf,
        /// Its process and address, when it told.
        at: Option<(u32, String)>,
    },
    /// The directory of the socket is not there and cannot be made.
    #[error("cannot create the directory {} for realtime.socket: {error}", .directory.display())]
    NoDirectory {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others could put a socket of their own there.
    #[error(
        "realtime.socket is in {}, where other users can write; use a directory that only its owner can write \
         (chmod go-w), for instance one of its own",
        .0.display()
    )]
    Writable(PathBuf),
    /// Somebody else's directory.
    #[error("realtime.socket is in {}, which belongs to user {owner}, not to this process's user {uid}", .directory.display())]
    Foreign {
        /// Which.
        directory: PathBuf,
        /// Whose.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// The group cannot be given to the socket.
    #[error("cannot give the control socket to the group {name} (realtime.socket_group): {error}{}",
        if error.kind() == io::ErrorKind::PermissionDenied { ". The server's user must be a member of it, or \
        the directory of realtime.socket belong to it and have the setgid bit" } else { "" })]
    Group {
        /// Its name.
        name: String,
        /// Why not.
        error: io::Error,
    },
    /// Anything else that the system said.
    #[error("cannot use the control socket {} (realtime.socket): {error}", .socket.display())]
    System {
        /// The socket.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The lock of a control socket, held: nobody else can bind it.
#[derive(Debug)]
pub struct Claim {
    lock: File,
}

/// Tries to become the hub.
pub fn stand(config: &Config) -> Result<Elected, NotElected> {
    match claim(config) {
        Ok(claim) => claim.bind(config),
        Err(NotElected::Running { socket, at: _ }) => {
            let at = ask(&socket);
            Err(NotElected::Running { socket, at })
        }
        Err(error) => Err(error),
    }
}

/// Tries to get the lock. Says [`NotElected::Running`], without looking who it is, when somebody else has it.
pub fn claim(config: &Config) -> Result<Claim, NotElected> {
    let socket = &config.socket;
    let system = |error| NotElected::System {
        socket: socket.clone(),
        error,
    };
    let directory = socket.parent().unwrap_or(Path::new("/"));
    prepare(directory, config.lets_others_in())?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(lock_path(socket))
        .map_err(system)?;
    // SAFETY: flock() takes no pointer; the descriptor is open for as long as `lock` lives.
    if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(Claim { lock });
    }
    let error = io::Error::last_os_error();
    Err(if error.kind() == io::ErrorKind::WouldBlock {
        NotElected::Running {
            socket: socket.clone(),
            at: None,
        }
    } else {
        system(error)
    })
}

impl Claim {
    /// The lock's file, for the [`super::restarts::Record`].
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// Binds the control socket.
    pub fn bind(self, config: &Config) -> Result<Elected, NotElected> {
        let socket = &config.socket;
        let system = |error| NotElected::System {
            socket: socket.clone(),
            error,
        };
        let elected = Elected {
            listener: listen(socket).map_err(system)?,
            path: socket.clone(),
            lock: self.lock,
            owned: Cell::new(true),
            file: Cell::new(identify(socket)),
        };
        elected.admit(config)?;
        Ok(elected)
    }
}

impl Elected {
    /// The same of a hub that hands over: its control socket at `socket`, and the lock that it holds.
    pub fn inherit(config: &Config, listener: OwnedFd, lock: OwnedFd) -> io::Result<Self> {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: config.socket.clone(),
            lock: File::from(lock),
            owned: Cell::new(false),
            file: Cell::new(identify(&config.socket)),
        })
    }

    /// From here on the socket's file is this hub's, or another's.
    pub fn set_owned(&self, owned: bool) {
        self.owned.set(owned);
    }

    /// Gives the socket's file the group and the mode that the settings ask for.
    pub fn admit(&self, config: &Config) -> Result<(), NotElected> {
        let system = |error| NotElected::System {
            socket: self.path.clone(),
            error,
        };
        if let Some(name) = &config.socket_group {
            let group = |error| NotElected::Group {
                name: name.clone(),
                error,
            };
            let gid = group_id(name).map_err(group)?;
            std::os::unix::fs::chown(&self.path, None, Some(gid)).map_err(group)?;
        }
        let mode = Permissions::from_mode(config.control_mode());
        std::fs::set_permissions(&self.path, mode).map_err(system)
    }

    /// Puts the lock and the socket back if somebody has taken their files away, as cleaners of temporary files do: nobody
    /// would find this hub any more. Says whether `listener` is another socket now.
    pub fn restore(&self, config: &Config) -> Result<bool, NotElected> {
        if !self.owned.get() {
            return Ok(false);
        }
        let system = |error| NotElected::System {
            socket: self.path.clone(),
            error,
        };
        let held = self.lock.metadata().map(|file| (file.dev(), file.ino()));
        if identify(&lock_path(&self.path)) != Some(held.map_err(system)?) {
            // Not ours if somebody else was faster: then that one is the hub.
            let claim = claim(config)?;
            replace(&self.lock, &claim.lock).map_err(system)?;
        }
        let file = identify(&self.path);
        if file.is_some() && file == self.file.get() {
            return Ok(false);
        }
        let listener = listen(&self.path).map_err(system)?;
        replace(&self.listener, &listener).map_err(system)?;
        self.file.set(identify(&self.path));
        self.admit(config)?;
        Ok(true)
    }

    /// The lock, which whoever else gets a copy of it holds as well.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// What the lock's file says about the last starts.
    pub fn record(&self) -> Record {
        Record::read(&self.lock)
    }

    /// The descriptors, for a forked child to close.
    pub fn descriptors(&self) -> [i32; 2] {
        [self.listener.as_raw_fd(), self.lock.as_raw_fd()]
    }
}

impl Drop for Elected {
    fn drop(&mut self) {
        if self.owned.get() {
            // Before the lock goes, or it could be the next hub's.
            let _ = std::fs::remove_file(&self.path);
            if !std::thread::panicking() {
                // An end as it should be: the next start need not wait.
                let _ = self.lock.set_len(0);
            }
        }
    }
}

/// Binds the socket. For the holder of the lock.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    // Whoever had it is dead: only the holder of the lock binds it. Anything that is no socket stays, and the bind says
    // that it is in the way.
    let stale = std::fs::symlink_metadata(socket).is_ok_and(|m| m.file_type().is_socket());
    if stale {
        std::fs::remove_file(socket)?;
    }
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn identify(path: &Path) -> Option<FileId> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Makes `old` the same as `new`, under the number that it has: others know it by that.
fn replace(old: &impl AsRawFd, new: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: takes no pointer. Both descriptors are open and have owners, who go on owning them.
    match unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn prepare(directory: &Path, lets_others_in: bool) -> Result<(), NotElected> {
    // Others who are let in must be able to pass, but not to look around.
    let mode = if lets_others_in { 0o711 } else { 0o700 };
    let made = DirBuilder::new().mode(mode).create(directory);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(NotElected::NoDirectory {
                directory: directory.into(),
                error,
            });
        }
        _ => {}
    }
    let metadata = directory
        .metadata()
        .map_err(|error| NotElected::NoDirectory {
            directory: directory.into(),
            error,
        })?;
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    let uid = unsafe { libc::geteuid() };
    if metadata.uid() != uid && metadata.uid() != 0 {
        return Err(NotElected::Foreign {
            directory: directory.into(),
            owner: metadata.uid(),
            uid,
        });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(NotElected::Writable(directory.into()));
    }
    Ok(())
}

fn group_id(name: &str) -> io::Result<u32> {
    let unknown = || io::Error::other("there is no such group");
    let name = std::ffi::CString::new(name).map_err(|_| unknown())?;
    let mut buffer = vec![0; 64 << 10];
    let mut found = std::ptr::null_mut();
    // SAFETY: all zeroes is a valid `group`. The name ends with a NUL, and the call writes only to these locals, within
    // the length that it is told; nobody else can reach them.
    let (error, gid) = unsafe {
        let mut group: libc::group = std::mem::zeroed();
        let error = libc::getgrnam_r(
            name.as_ptr(),
            &raw mut group,
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        );
        (error, group.gr_gid)
    };
    match (error, found.is_null()) {
        (0, false) => Ok(gid),
        (0, true) => Err(unknown()),
        (error, _) => Err(io::Error::from_raw_os_error(error)),
    }
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Who is there? The hub may be starting, and bind its socket in a moment.
fn ask(socket: &Path) -> Option<(u32, String)> {
    for _ in 0..20 {
        if let Ok(client) = Client::connect(socket, Duration::from_millis(500)) {
            return Some((client.pid(), client.address().to_owned()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}
