//! While an old hub closes its clients: the new one tells it of every publication, and asks it about connections
//! that are still there.
//!
//! [`run`] is the new hub's end of the link, [`follow`] the old one's. Both run on the control thread. Imports `node`,
//! `predecessor` and `wire`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::handover::{BATCH, Link};
use super::links;
use crate::broker::follow::Feed;
use crate::node::Node;
use crate::predecessor::{Ask, Asks};
use crate::wire::handover::{Part, Said};

/// Answers that may wait for the link.
const ANSWERS: usize = 16;

/// Tells the old hub of what `feed` brings, and asks it what `asks` bring, until it has gone.
pub async fn run(mut link: Link, node: Arc<Node>, mut feed: Feed, mut asks: Asks) {
    match serve(&mut link, &node, &mut feed, &mut asks).await {
        Ok(()) => tracing::info!("the old server has closed its last client"),
        Err(error) => tracing::warn!(%error, "no longer linked to the old server"),
    }
}

async fn serve(link: &mut Link, node: &Node, feed: &mut Feed, asks: &mut Asks) -> io::Result<()> {
    let mut pending = HashMap::new();
    let mut number = 0;
    loop {
        tokio::select! {
            notes = feed.next(BATCH) => {
                let notes = notes.ok_or_else(|| {
                    io::Error::other("it takes too slowly, and will close its clients all at once")
                })?;
                link.notes(&notes).await?;
            }
            Some(Ask { request, answer }) = asks.recv() => {
                number += 1;
                pending.insert(number, answer);
                link.tell(&Part::Ask { number, request }).await?;
            }
            said = link.next() => match said {
                Some(Said::Part(Part::Answer { number, response })) => {
                    if let Some(answer) = pending.remove(&number) {
                        // Whoever asked may have given up.
                        let _ = answer.send(response);
                    }
                }
                Some(Said::Part(Part::Changes(changes))) => {
                    node.hear(changes).map_err(io::Error::other)?;
                }
                Some(other) => return Err(io::Error::other(format!("{other:?} in place of an answer"))),
                None => return Ok(()),
            },
        }
    }
}

/// Does what the new hub says, until it has gone: then publications are missing from here on.
pub async fn follow(mut link: Link, node: Arc<Node>) {
    if let Err(error) = obey(&mut link, &node).await {
        tracing::warn!(%error, "no longer linked to the new server");
    }
}

async fn obey(link: &mut Link, node: &Arc<Node>) -> io::Result<()> {
    let (sender, mut answers) = mpsc::channel(ANSWERS);
    loop {
        tokio::select! {
            said = link.next() => match said {
                Some(Said::Part(Part::Notes(notes))) => {
                    for note in notes {
                        node.inject(note).map_err(io::Error::other)?;
                    }
                    node.rouse();
                }
                Some(Said::Part(Part::Ask { number, request })) => {
                    let (node, sender) = (node.clone(), sender.clone());
                    tokio::task::spawn_blocking(move || {
                        let mut response = Bytes::from(links::ask(&node, &request));
                        // A frame, of which only the content is wanted.
                        let response = response.split_off(4);
                        // The link may have ended.
                        let _ = sender.blocking_send(Part::Answer { number, response });
                    });
                }
                Some(other) => return Err(io::Error::other(format!("{other:?} where it makes no sense"))),
                None => return Ok(()),
            },
            Some(part) = answers.recv() => link.tell(&part).await?,
            changes = node.unsaid() => {
                // Each has a name and an info: few fit into one frame.
                let mut changes = changes.into_iter().peekable();
                while changes.peek().is_some() {
                    let some = changes.by_ref().take(8).collect();
                    link.tell(&Part::Changes(some)).await?;
                }
            }
        }
    }
}
