//! Plain HTTP: methods, origins, keep-alive, pipelining, files, Unix sockets.

use std::fs;

use crate::client::{Client, handshake, header, masked};
use crate::harness::{Hub, directory};

#[test]
fn healthz_says_ok() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let response = client.get("/healthz");
    assert_eq!(
        (response.status, &*response.body),
        (200, r#"{"status":"ok"}"#)
    );
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let head = client.request("HEAD", "/healthz", "", "");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Length"), Some("15"));
    // The connection was kept, and HEAD had no body.
    assert_eq!(client.get("/nothing").code(), "not_found");
}

#[test]
fn methods_are_checked() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    for path in [
        "/healthz",
        "/sse?channel=a",
        "/poll?channel=a",
        "/realtime.js",
        "/x",
    ] {
        let response = client.request("DELETE", path, "", "");
        assert_eq!(
            (response.status, &*response.code()),
            (405, "bad_method"),
            "{path}"
        );
    }
    assert_eq!(client.get("/publish").status, 405);
}

#[test]
fn pages_of_other_origins_are_kept_out() {
    let hub = Hub::with(&[("realtime.allowed_origins", "https://app.example")]);
    let foreign = "Origin: https://evil.example\r\n";
    for path in [
        "/ws",
        "/raw/a",
        "/sse?channel=a",
        "/stream?channel=a",
        "/poll?channel=a",
    ] {
        let mut client = Client::connect(hub.address());
        client.send(handshake(path, foreign).as_bytes());
        let response = client.response(true);
        assert_eq!(
            (response.status, &*response.code()),
            (403, "bad_origin"),
            "{path}"
        );
        assert_eq!(response.header("Access-Control-Allow-Origin"), None);
    }
    let mut client = Client::connect(hub.address());
    let more = format!("Content-Type: application/json\r\n{foreign}");
    assert_eq!(client.request("POST", "/publish", &more, "{}").status, 403);
    for origin in [
        "null",
        "http://test.example:81",
        "https://app.example.evil",
        "\u{e4}",
    ] {
        let line = format!("Origin: {origin}\r\n");
        let refused = client.request("GET", "/poll?channel=a&timeout=0", &line, "");
        assert_eq!(refused.status, 403, "{origin}");
    }
    // The server's own host, which the tests call test.example.
    for origin in ["http://test.example", "https://TEST.example:443"] {
        let line = format!("Origin: {origin}\r\n");
        let own = client.request("GET", "/poll?channel=a&timeout=0", &line, "");
        assert_eq!(own.status, 200, "{origin}");
        assert_eq!(own.header("Access-Control-Allow-Origin"), None);
    }
}

#[test]
fn listed_origins_get_cors_also_with_errors() {
    let hub = Hub::with(&[("realtime.allowed_origins", "https://app.example")]);
    let mut client = Client::connect(hub.address());
    let listed = "Origin: https://app.example\r\n";
    for path in ["/poll?channel=a&timeout=0", "/poll?channel=a%20b"] {
        let response = client.request("GET", path, listed, "");
        assert_eq!(
            response.header("Access-Control-Allow-Origin"),
            Some("https://app.example")
        );
        assert_eq!(
            response.header("Access-Control-Allow-Credentials"),
            Some("true")
        );
        assert_eq!(response.header("Vary"), Some("Origin"));
    }
    let asked = format!("{listed}Access-Control-Request-Method: POST\r\n");
    let preflight = client.request("OPTIONS", "/publish", &asked, "");
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("Access-Control-Allow-Methods"),
        Some("GET, POST")
    );
    let allowed = preflight.header("Access-Control-Allow-Headers").unwrap();
    assert!(allowed.contains("Content-Type"), "{allowed}");
    assert_eq!(
        preflight.header("Access-Control-Allow-Origin"),
        Some("https://app.example")
    );
    let foreign = client.request(
        "OPTIONS",
        "/publish",
        "Origin: https://evil.example\r\n",
        "",
    );
    assert_eq!(foreign.status, 403);
    let mut stream = Client::connect(hub.address());
    stream.send(
        b"GET /sse?channel=a HTTP/1.1\r\nHost: test.example\r\nOrigin: https://app.example\r\n\r\n",
    );
    let head = stream.head();
    assert_eq!(
        header(&head, "Access-Control-Allow-Origin"),
        Some("https://app.example")
    );
}

#[test]
fn requests_in_one_packet_are_answered_in_order_also_before_an_upgrade() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let mut bytes = Vec::new();
    for path in ["/healthz", "/nothing", "/poll?channel=a&timeout=0"] {
        bytes.extend(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n\r\n").into_bytes());
    }
    bytes.extend(handshake("/ws", "").into_bytes());
    bytes.extend(masked(0x81, br#"{"type":"ping"}"#));
    client.send(&bytes);
    assert_eq!(client.response(true).status, 200);
    assert_eq!(client.response(true).status, 404);
    assert_eq!(
        client.response(true).json()["messages"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.json()["type"], "welcome");
    assert_eq!(client.json()["type"], "pong");
}

#[test]
fn a_stream_may_follow_other_requests() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    client.send(
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /stream?channel=a HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.response(true).status, 200);
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert!(client.chunk().unwrap().contains("subscribed"));
    hub.publish("a", "1");
    assert!(client.chunk().unwrap().contains("\"data\":1"));
}

#[test]
fn connection_close_and_http_1_0_end_after_the_answer() {
    let hub = Hub::start();
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.0\r\n\r\n",
    ] {
        let mut client = Client::connect(hub.address());
        client.send(request.as_bytes());
        assert_eq!(client.response(true).status, 200);
        assert!(client.is_ended());
    }
}

#[test]
fn the_client_library_is_served_and_cached() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let response = client.get("/realtime.js");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("Content-Type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
    assert!(response.body.contains("\nexport function Realtime("));
    assert!(response.body.len() < 10_700);
    let known = format!("If-None-Match: {}\r\n", response.header("ETag").unwrap());
    let unchanged = client.request("GET", "/realtime.js", &known, "");
    assert_eq!((unchanged.status, &*unchanged.body), (304, ""));
}

#[test]
fn the_docroot_serves_pages_and_nothing_else() {
    let root = directory();
    let outside = directory();
    let at = |name: &str| root.path().join(name);
    fs::write(at("index.html"), "<h1>home</h1>").unwrap();
    fs::write(at("a b.css"), "p{}").unwrap();
    fs::write(at("secret.php"), "<?php").unwrap();
    fs::write(at("noending"), "x").unwrap();
    fs::write(at(".env"), "KEY=1").unwrap();
    fs::create_dir(at(".git")).unwrap();
    fs::write(at(".git/config.txt"), "x").unwrap();
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/index.html"), "sub").unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(outside.path().join("out.txt"), "outside").unwrap();
    std::os::unix::fs::symlink(outside.path(), at("link")).unwrap();
    std::os::unix::fs::symlink(at("secret.php"), at("alias.txt")).unwrap();
    let hub = Hub::with(&[("realtime.docroot", root.path().to_str().unwrap())]);
    let mut client = Client::connect(hub.address());
    let home = client.get("/");
    assert_eq!((home.status, &*home.body), (200, "<h1>home</h1>"));
    assert_eq!(
        home.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(home.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(client.get("/a%20b.css?v=1").body, "p{}");
    assert_eq!(client.get("/sub/").body, "sub");
    let up = outside.path().file_name().unwrap().to_str().unwrap();
    let hidden = [
        "/secret.php".to_owned(),
        "/noending".into(),
        "/.env".into(),
        "/%2eenv".into(),
        "/.git/config.txt".into(),
        "/%2egit/config.txt".into(),
        "/empty/".into(),
        "/missing.html".into(),
        "/index.html%00.txt".into(),
        "/%ff.html".into(),
        "/link/out.txt".into(),
        "/alias.txt".into(),
        format!("/../{up}/out.txt"),
        format!("/%2e%2e/{up}/out.txt"),
        format!("/..%2f{up}%2fout.txt"),
        format!("/sub/../../{up}/out.txt"),
        format!("/{}", outside.path().join("out.txt").display()),
        format!("/%2f{}", outside.path().join("out.txt").display()),
    ];
    for path in hidden {
        let response = client.get(&path);
        assert_eq!(
            (response.status, &*response.code()),
            (404, "not_found"),
            "{path}"
        );
    }
    let head = client.request("HEAD", "/", "", "");
    assert_eq!(head.header("Content-Length"), Some("13"));
}

#[test]
fn a_unix_socket_serves_the_same() {
    let directory = directory();
    let path = directory.path().join("web.sock");
    let address = format!("unix:{}", path.display());
    let hub = Hub::with(&[("realtime.listen", &address)]);
    assert_eq!(hub.address(), address);
    assert_eq!(Client::connect(&address).get("/healthz").status, 200);
    let (mut client, welcome) = Client::native(&address);
    client.subscribe("a", None);
    hub.publish("a", "1");
    assert_eq!(client.json()["data"], 1);
    let known = hub.node().connections(None).unwrap();
    assert_eq!((known[0].id, &*known[0].ip), (welcome.id(), ""));
    let mut sse = Client::stream(&address, "/sse?channel=a", "");
    sse.chunk();
    hub.await_subscribers("a", 2);
    hub.publish("a", "2");
    sse.chunk_with("data: 2");
    drop((client, sse));
    drop(hub);
    assert!(!path.exists(), "removed with the server");
}

#[test]
fn what_php_sees_of_a_request_is_what_was_sent() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let more = "Cookie: a=1\r\nX-Twice: one\r\nX-Twice: two\r\n";
    client.send(handshake("/ws?token=a%20b&x", more).as_bytes());
    client.head();
    client.frame();
    let known = hub.node().connections(None).unwrap();
    let info = &known[0];
    assert_eq!((info.path(), info.query()), ("/ws", "token=a%20b&x"));
    assert_eq!(
        (info.transport.as_str(), &*info.ip),
        ("websocket", "127.0.0.1")
    );
    let headers: Vec<_> = info.headers().collect();
    for expected in [
        ("cookie", "a=1"),
        ("x-twice", "one"),
        ("x-twice", "two"),
        ("host", "test.example"),
    ] {
        assert!(headers.contains(&expected), "{expected:?} in {headers:?}");
    }
}
