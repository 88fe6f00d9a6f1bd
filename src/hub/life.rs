//! Who lives: silent connections are pinged, and ended when they stay so.
//!
//! Called now and then by the shard. Imports `wire`.

use super::{CHANNELS_KEPT, CLOSE_SILENT, Hub};

impl Hub {
    /// Notes that the client gave a sign of life.
    pub fn heard(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.heard = true;
        connection.pinged = false;
    }

    /// Visits one part in `parts` of the connections, another at each call: pings the silent ones, ends those that
    /// stayed so. Each is visited at every `parts`-th call, however many there are.
    pub fn sweep(&mut self, parts: usize) {
        let parts = parts.max(1);
        let first = self.sweeps % parts;
        self.sweeps = self.sweeps.wrapping_add(1);
        let end = self
            .connections
            .iter()
            .next_back()
            .map_or(0, |(slot, _)| slot + 1);
        for slot in (first..end).step_by(parts) {
            if self.connections.contains(slot) {
                self.check_life(slot);
            }
        }
        self.flush_dirty();
        if self.channels.capacity() > 4 * (self.channels.len() + CHANNELS_KEPT) {
            self.channels.shrink_to_fit();
        }
    }

    fn check_life(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let silent = match connection.format {
            // A WebSocket must answer a ping; what is sent to it says nothing about its being there.
            format if format.is_websocket() => !std::mem::take(&mut connection.heard),
            // A stream only has to see something now and then, and so have the proxies before it.
            format if format.is_stream() => !std::mem::take(&mut self.lanes[slot].sent),
            _ => false,
        };
        if !silent || connection.closing.is_some() {
            return;
        }
        if connection.format.is_stream()
            && (!connection.outbox.is_empty() || connection.replay.is_some())
        {
            // Something waits for it already. A heartbeat would overtake a replay, and says to a client that it has all.
            return;
        }
        if connection.pinged {
            tracing::debug!(connection = %connection.info.id, "no answer to a ping");
            self.close(slot, CLOSE_SILENT, "no answer to a ping");
            return;
        }
        connection.pinged = connection.format.is_websocket();
        let heartbeat = crate::wire::heartbeat(connection.format);
        self.push(slot, heartbeat);
    }
}
