//! `realtime.data_dir`: made if it is missing, looked at before it is trusted, and locked for one server.
//!
//! Imports nothing of this crate.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::database::DatabaseError;

/// How long the lock of a server that has just ended may take to go.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried.
const PAUSE: Duration = Duration::from_millis(5);
/// The database's file.
pub const DATABASE: &str = "history.db";
/// What SQLite adds to its name.
pub const LOG: &str = "history.db-wal";
/// What is added to the name of a file that cannot be used.
const BROKEN: &str = ".broken";

/// Why nothing can be kept on disk. For the operator; each is a whole sentence.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there and cannot be made.
    #[error("cannot create the directory {} (realtime.data_dir): {error}", .directory.display())]
    NotMade {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else's.
    #[error(
        "realtime.data_dir is {}, which belongs to user {owner}, not to this process's user {uid}: chown it, or give \
         the server a directory of its own",
        .directory.display()
    )]
    Foreign {
        /// Which.
        directory: PathBuf,
        /// Whose.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// Others could read messages there, or put some there.
    #[error(
        "realtime.data_dir is {}, which other users can use (its mode is {mode:03o}): only its owner may (chmod 700)",
        .directory.display()
    )]
    Open {
        /// Which.
        directory: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another server works with it.
    #[error(
        "another realtime server has {} (realtime.data_dir); give each server a directory of its own",
        .0.display()
    )]
    Taken(PathBuf),
    /// Anything else that the system said.
    #[error("cannot use {} (realtime.data_dir): {error}", .path.display())]
    System {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The database will not do.
    #[error("cannot use {} (realtime.data_dir): {error}", .path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: DatabaseError,
    },
}

/// The directory, locked.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    lock: File,
}

/// Makes the directory if it is missing, and looks whether only this user can use it.
pub fn check(directory: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::NotMade {
        directory: directory.into(),
        error,
    };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let system = |error| StoreError::System {
        path: directory.into(),
        error,
    };
    let metadata = directory.metadata().map_err(system)?;
    if !metadata.is_dir() {
        return Err(system(io::ErrorKind::NotADirectory.into()));
    }
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    let uid = unsafe { libc::geteuid() };
    if metadata.uid() != uid {
        return Err(StoreError::Foreign {
            directory: directory.into(),
            owner: metadata.uid(),
            uid,
        });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Open {
            directory: directory.into(),
            mode,
        });
    }
    Ok(())
}

impl Directory {
    /// Checks and locks it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        check(directory)?;
        let path = directory.join("lock");
        let system = |error| StoreError::System {
            path: path.clone(),
            error,
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(system)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // SAFETY: flock() takes no pointer; the descriptor is open for as long as `lock` lives.
            if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                let path = directory.into();
                return Ok(Self { path, lock });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(system(error));
            }
            if Instant::now() >= deadline {
                return Err(StoreError::Taken(directory.into()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The lock, for a forked child to close.
    pub fn descriptor(&self) -> i32 {
        self.lock.as_raw_fd()
    }

    /// Puts the database aside, which is damaged and closed.
    pub fn put_database_aside(&self, reason: &str) -> Result<(), StoreError> {
        let aside = self.set_aside(DATABASE)?;
        self.set_aside(LOG)?;
        tracing::error!(
            "the history in {} is damaged ({reason}); it is now {}, and a new one begins with what is in memory",
            self.file(DATABASE).display(),
            aside.display()
        );
        Ok(())
    }

    /// Has the disk note which files there are.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Puts a file aside that cannot be used. The one before is lost: what cannot be used must not fill the disk.
    pub fn set_aside(&self, name: &str) -> Result<PathBuf, StoreError> {
        let from = self.file(name);
        let to = self.file(&format!("{name}{BROKEN}"));
        if to.is_dir() || from.is_dir() {
            // No file takes a directory's place, nor the other way round.
            let _ = std::fs::remove_dir_all(&to);
            let _ = std::fs::remove_file(&to);
        }
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::System { path: from, error })
            }
            _ => Ok(to),
        }
    }
}
