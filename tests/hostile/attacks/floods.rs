//! More connections than anybody needs.

use std::time::Duration;

use super::Field;
use crate::Outcome;
use crate::pest::Pest;
use crate::wire::Kind;

/// From four addresses, each of which may have 1,000.
const HOSTS: [u8; 4] = [3, 4, 5, 6];
const MOST: usize = 5000;

/// Connections that say nothing, or not all of it.
pub fn half_open(field: &mut Field) -> Outcome<String> {
    let mut open = Vec::new();
    let mut tried = 0_usize;
    while field.goes_on() {
        if tried < MOST {
            if let Some(mut pest) = Pest::open(HOSTS[tried % 4], field.address)? {
                if tried.is_multiple_of(2) {
                    pest.send(b"GET /ws HTTP/1.1\r\nHost: ");
                }
                open.push(pest);
            }
            tried += 1;
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let held = open
        .iter_mut()
        .filter_map(|pest| (pest.read().is_empty() && !pest.ended).then_some(()))
        .count();
    Ok(format!(
        "{tried} connections from four addresses, {held} still open at the end"
    ))
}

/// Connects and resets, as fast as it goes.
pub fn churn(field: &mut Field) -> Outcome<String> {
    let mut connections = 0_u64;
    while field.goes_on() {
        for host in HOSTS {
            if let Some(mut pest) = Pest::open(host, field.address)? {
                connections += 1;
                if connections.is_multiple_of(3) {
                    pest.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
                }
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(format!("{connections} connections"))
}

/// Becomes a connection of each kind, and leaves at once or a little later.
pub fn handshakes(field: &mut Field) -> Outcome<String> {
    let mut open: Vec<Pest> = Vec::new();
    let mut connections = 0_u64;
    while field.goes_on() {
        let host = HOSTS[field.dice.below(4)];
        let kind = [Kind::Native, Kind::Raw, Kind::Sse, Kind::Deflate][field.dice.below(4)];
        if let Some(mut pest) = Pest::websocket(host, field.address, kind)? {
            connections += 1;
            if kind == Kind::Native {
                pest.send(&crate::wire::client_frame(
                    1,
                    br#"{"type":"subscribe","channel":"pests"}"#,
                ));
            }
            open.push(pest);
        }
        if open.len() > 150 {
            drop(open.swap_remove(field.dice.below(150)));
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    Ok(format!("{connections} connections"))
}
