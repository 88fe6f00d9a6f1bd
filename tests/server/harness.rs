//! Starts a server for one test, with a socket directory and a port of its own.

use std::sync::Arc;

use realtime::backend::queue::EventQueue;
use realtime::config::Config;
use realtime::ids::Channel;
use realtime::message::{EventName, Payload, Publish};
use realtime::server::Server;
use tempfile::TempDir;

/// A running server and PHP's end of it.
pub struct Hub {
    pub server: Server,
    pub queue: Arc<EventQueue>,
    _directory: TempDir,
}

impl Hub {
    /// With the default settings.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With these settings, written as in php.ini.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("realtime")
            .tempdir()
            .unwrap();
        let socket = directory.path().join("hub.sock").display().to_string();
        let config = Config::load(|name| {
            let given = settings.iter().find(|(given, _)| *given == name);
            match name {
                _ if given.is_some() => given.map(|(_, value)| (*value).to_owned()),
                "realtime.listen" => Some("127.0.0.1:0".to_owned()),
                "realtime.socket" => Some(socket.clone()),
                "realtime.threads" => Some("2".to_owned()),
                _ => None,
            }
        })
        .unwrap();
        let queue = Arc::new(EventQueue::new(config.queue_bytes).unwrap());
        let server = Server::start(config, queue.clone()).unwrap();
        Self {
            server,
            queue,
            _directory: directory,
        }
    }

    /// Publishes JSON.
    pub fn publish(&self, channel: &str, json: &'static str) -> String {
        self.server.node().publish(message(channel, json)).unwrap()
    }
}

/// A publication with every default.
pub fn message(channel: &str, json: &'static str) -> Publish {
    Publish {
        channels: vec![Channel::parse(channel).unwrap()],
        payload: Payload::Json(json.as_bytes().into()),
        event: EventName::Message,
        except: None,
        id: None,
        store: true,
    }
}
