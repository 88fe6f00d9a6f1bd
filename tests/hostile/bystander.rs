//! A server of the same kind that nobody attacks, and its client: what they take is the machine's doing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Outcome;
use crate::healthy::Healthy;

/// Both.
pub struct Bystander {
    /// The client.
    pub healthy: Healthy,
    php: Child,
    _directory: tempfile::TempDir,
}

impl Bystander {
    /// Starts the handler's script as a server.
    pub fn start(php: &Path, extension: &Path) -> Outcome<Self> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut php = Command::new(php)
            .arg("-n")
            .args(["-d", &format!("extension={}", extension.display())])
            .args([
                "-d",
                &format!("realtime.socket={}/hub.sock", directory.path().display()),
            ])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/handler.php"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("php: {e}"))?;
        let output = php.stdout.take().ok_or("a child without an output")?;
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        let address = match line.trim().strip_prefix("LISTEN ").map(str::parse) {
            Some(Ok(address)) => address,
            _ => {
                let _ = php.kill();
                let _ = php.wait();
                return Err(format!("php: {read:?} {line}"));
            }
        };
        Ok(Self {
            healthy: Healthy::start(address),
            php,
            _directory: directory,
        })
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.php.id()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.php.kill();
        let _ = self.php.wait();
    }
}
