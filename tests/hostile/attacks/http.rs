//! Requests that are none.

use std::time::Duration;

use super::Field;
use crate::Outcome;
use crate::pest::Pest;
use crate::wire::{Kind, find};

const HOST: u8 = 2;

/// What only the answer to `GET /realtime.js` has.
const PRIZE: &[u8] = b"text/javascript";

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
    )
}

fn whole_requests() -> Vec<Vec<u8>> {
    let body = r#"{"channel":"pests","data":1}"#;
    let length = format!("Content-Length: {}\r\n", body.len());
    vec![
        Kind::Native.request("pests"),
        Kind::Deflate.request("pests"),
        Kind::Sse.request("pests"),
        post(&length, body).into_bytes(),
        post(
            "Transfer-Encoding: chunked\r\n",
            &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        )
        .into_bytes(),
        b"GET /poll?channel=pests&timeout=1 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ]
}

/// Bytes of all kinds, also after a good beginning.
pub fn garbage(field: &mut Field) -> Outcome<String> {
    let begins = [
        &b""[..],
        b"GET ",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut open: Vec<Pest> = Vec::new();
    let (mut connections, mut sent, mut answered) = (0_u64, 0, 0_u64);
    while field.goes_on() {
        if let Some(mut pest) = Pest::open(HOST, field.address)? {
            connections += 1;
            let begin = begins[field.dice.below(begins.len())];
            let count = 1 + field.dice.below(3000);
            sent += pest.send(begin) + pest.send(&field.dice.bytes(count));
            open.push(pest);
        }
        if open.len() > 100 {
            let mut pest = open.swap_remove(field.dice.below(100));
            answered += u64::from(!pest.read().is_empty());
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    Ok(format!(
        "{connections} connections, {} KiB, {answered} were told",
        sent >> 10
    ))
}

/// Good requests that end anywhere.
pub fn truncated(field: &mut Field) -> Outcome<String> {
    let requests = whole_requests();
    let mut open: Vec<Pest> = Vec::new();
    let mut connections = 0_u64;
    while field.goes_on() {
        for request in &requests {
            let cut = field.dice.below(request.len());
            if let Some(mut pest) = Pest::open(HOST, field.address)? {
                connections += 1;
                pest.send(&request[..cut]);
                if field.dice.below(2) == 0 {
                    pest.shut();
                }
                open.push(pest);
            }
        }
        while open.len() > 200 {
            drop(open.swap_remove(field.dice.below(200)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(format!("{connections} connections"))
}

/// Requests of which two servers could see different ends. Nothing behind them may be taken for a request.
pub fn smuggled(field: &mut Field) -> Outcome<String> {
    let prize = "GET /realtime.js HTTP/1.1\r\nHost: a\r\n\r\n";
    let size = prize.len();
    let json = r#"{"channel":"pests","data":1}"#;
    let both = format!(
        "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n",
        5 + size
    );
    let long = format!(
        "Content-Length: {}\r\nContent-Length: {}\r\n",
        json.len(),
        json.len() + size
    );
    let chunked = |coding: &str| post(&format!("{coding}\r\n"), "0\r\n\r\n");
    let heads = [
        post(&both, "0\r\n\r\n"),
        post(
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "0\r\n\r\n",
        ),
        post(&long, json),
        post("Content-Length: 28, 70\r\n", json),
        post("Content-Length: +28\r\n", json),
        post("Content-Length: 0x1c\r\n", json),
        post("Content-Length: -28\r\n", json),
        post("Content-Length: 28 28\r\n", json),
        post("Content-Length : 28\r\n", json),
        post("Content-Length\r\n: 28\r\n", json),
        post(" Content-Length: 28\r\n", json),
        chunked("Transfer-Encoding: xchunked"),
        chunked("Transfer-Encoding: chunked, identity"),
        chunked("Transfer-Encoding: identity, chunked, identity"),
        chunked("Transfer-Encoding : chunked"),
        chunked("Transfer-Encoding: \x0bchunked"),
        chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        post("Transfer-Encoding: chunked\r\n", "0x0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n", "-1\r\n\r\n"),
        post(
            "Transfer-Encoding: chunked\r\n",
            "10000000000000000\r\n\r\n",
        ),
        post("Transfer-Encoding: chunked\r\n", "2\r\n{}0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n", "0\n\n"),
        post(&format!("Content-Length: {}\r\n", json.len() + size), json),
        chunked("Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0"),
        "GET /healthz HTTP/1.1\r\nHost: a\rX: b\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n".to_owned(),
        "GET  /healthz  HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"),
    ];
    let mut tried = 0_u64;
    while field.goes_on() {
        let mut open = Vec::new();
        for head in &heads {
            if let Some(mut pest) = Pest::open(HOST, field.address)? {
                pest.send(head.as_bytes());
                pest.send(prize.as_bytes());
                pest.shut();
                open.push((head, pest));
            }
        }
        for (head, mut pest) in open {
            let answer = pest.rest(Duration::from_secs(5));
            tried += 1;
            if find(&answer, PRIZE).is_some() {
                let answer = String::from_utf8_lossy(&answer[..answer.len().min(600)]).into_owned();
                return Err(format!("what stood behind {head:?} was answered: {answer}"));
            }
        }
    }
    Ok(format!(
        "{tried} requests of {} kinds, nothing behind them was answered",
        heads.len()
    ))
}

/// Lengths that nobody can keep.
pub fn giant(field: &mut Field) -> Outcome<String> {
    let lengths = [
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
        "99999999999",
        "70000",
    ];
    let mut open: Vec<Pest> = Vec::new();
    let mut connections = 0_u64;
    while field.goes_on() {
        let length = lengths[field.dice.below(lengths.len())];
        let request = match field.dice.below(3) {
            0 => post(&format!("Content-Length: {length}\r\n"), "{").into_bytes(),
            1 => {
                let length: u128 = length.parse().map_err(|_| "a number")?;
                post(
                    "Transfer-Encoding: chunked\r\n",
                    &format!("{length:x}\r\n{{"),
                )
                .into_bytes()
            }
            _ => {
                let mut request = Kind::Native.request("pests");
                request.extend([0x81, 0xff]);
                // Up to 2^63 and more.
                request.extend((1_u64 << field.dice.below(64)).to_be_bytes());
                request.extend([1, 2, 3, 4, b'{']);
                request
            }
        };
        if let Some(mut pest) = Pest::open(HOST, field.address)? {
            connections += 1;
            pest.send(&request);
            pest.send(&[b'1'; 5000]);
            open.push(pest);
        }
        if open.len() > 300 {
            drop(open.swap_remove(field.dice.below(300)));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(format!("{connections} connections"))
}

/// Names, paths, headers and queries as long as can be.
pub fn huge_names(field: &mut Field) -> Outcome<String> {
    let long = |count: usize| "n".repeat(count);
    let many = |text: &str, count: usize| text.repeat(count);
    let frame = |text: String| {
        let mut bytes = Kind::Native.request("pests");
        bytes.extend(crate::wire::client_frame(1, text.as_bytes()));
        bytes
    };
    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").into_bytes()
    };
    let requests = [
        get(&format!("/raw/{}", long(31_000)), ""),
        get(&format!("/{}", long(70_000)), ""),
        get(&format!("/sse?{}", many("channel=a&", 3000)), ""),
        get(&format!("/sse?{}", many("channel=%41&", 2500)), ""),
        get(&format!("/poll?since={}", long(31_000)), ""),
        get(&format!("/ws?token={}", many("a.", 15_000)), ""),
        get("/healthz", &format!("Cookie: {}\r\n", many("a=b; ", 6000))),
        get("/healthz", &many("X: y\r\n", 5000)),
        get("/healthz", &format!("{}: y\r\n", long(31_000))),
        frame(format!(
            r#"{{"type":"subscribe","channel":"{}"}}"#,
            long(60_000)
        )),
        frame(format!(
            r#"{{"type":"subscribe","channel":"a","ref":"{}"}}"#,
            long(60_000)
        )),
        frame(format!(
            r#"{{"type":"subscribe","channel":"a","since":"{}"}}"#,
            long(60_000)
        )),
        frame(format!(
            r#"{{"type":"publish","channel":"a","event":"{}","data":1}}"#,
            long(60_000)
        )),
        frame(format!(r#"{{"type":"{}"}}"#, long(60_000))),
        frame(format!(r#"{{"{}":1}}"#, long(60_000))),
        frame(format!(
            "{{{}}}",
            many(r#""a":1,"#, 9000).trim_end_matches(',')
        )),
    ];
    let mut open: Vec<Pest> = Vec::new();
    let mut connections = 0_u64;
    while field.goes_on() {
        if let Some(mut pest) = Pest::open(HOST, field.address)? {
            connections += 1;
            pest.send(&requests[field.dice.below(requests.len())]);
            open.push(pest);
        }
        if open.len() > 200 {
            drop(open.swap_remove(field.dice.below(200)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(format!(
        "{connections} requests of {} kinds",
        requests.len()
    ))
}
