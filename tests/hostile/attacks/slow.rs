//! Clients that take their time to speak, or never listen.

use std::time::Duration;

use super::Field;
use crate::Outcome;
use crate::pest::Pest;
use crate::wire::{Kind, client_frame};

const HOST: u8 = 7;

/// One byte at a time: of a head, of a body, of a frame.
pub fn loris(field: &mut Field) -> Outcome<String> {
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "y".repeat(2000)
    )
    .into_bytes();
    let post = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n";
    let mut body = post.as_bytes().to_vec();
    body.extend([b' '; 5000]);
    let mut frame = Kind::Native.request("pests");
    let ready = frame.len();
    frame.extend(client_frame(1, &[b' '; 5000]));
    let kinds = [(&head, 0), (&body, post.len()), (&frame, ready)];
    let mut open: Vec<(Pest, usize, usize)> = Vec::new();
    while open.len() < 600 && field.goes_on() {
        let kind = open.len() % kinds.len();
        let (bytes, begin) = kinds[kind];
        if let Some(mut pest) = Pest::open(HOST, field.address)? {
            pest.send(&bytes[..begin]);
            open.push((pest, kind, begin));
        }
    }
    while field.goes_on() {
        for (pest, kind, sent) in &mut open {
            let bytes = kinds[*kind].0;
            pest.send(&bytes[*sent..*sent + 1]);
            *sent = (*sent + 1).min(bytes.len() - 1);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    open.iter_mut().for_each(|(pest, ..)| drop(pest.read()));
    let ended = open.iter().filter(|(pest, ..)| pest.ended).count();
    Ok(format!(
        "{} connections, {ended} were ended by the server",
        open.len()
    ))
}

/// Subscribers of a channel with much to read, who read nothing.
pub fn never_reading(field: &mut Field) -> Outcome<String> {
    let mut open = Vec::new();
    for index in 0..200 {
        let kind = [Kind::Native, Kind::Raw, Kind::Sse, Kind::Deflate][index % 4];
        if let Some(mut pest) = Pest::narrow(HOST, field.address)? {
            pest.send(&kind.request("firehose"));
            if kind == Kind::Native {
                pest.send(&client_frame(
                    1,
                    br#"{"type":"subscribe","channel":"firehose"}"#,
                ));
            }
            open.push(pest);
        }
    }
    while field.goes_on() {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(format!("{} subscribers", open.len()))
}

/// Asks and asks, and reads no answer.
pub fn never_reading_answers(field: &mut Field) -> Outcome<String> {
    let page = b"GET /realtime.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
    let frames = [
        client_frame(
            1,
            br#"{"type":"ping","ref":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#,
        ),
        client_frame(9, &[b'x'; 125]),
        client_frame(
            1,
            br#"{"type":"publish","channel":"pests","ref":1,"data":"xxxxxxxxxxxxxxxx"}"#,
        ),
    ];
    let frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.repeat(50)).collect();
    let mut open = Vec::new();
    for index in 0..200 {
        let pest = Pest::narrow(HOST, field.address)?;
        open.extend(pest.map(|mut pest| {
            if index % 4 > 0 {
                pest.send(&Kind::Native.request("pests"));
            }
            (index, pest)
        }));
    }
    let mut sent = 0;
    while field.goes_on() {
        for (index, pest) in &mut open {
            sent += pest.send(match *index % 4 {
                0 => &page,
                kind => &frames[kind - 1],
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(format!(
        "{} connections, {} KiB of requests",
        open.len(),
        sent >> 10
    ))
}
