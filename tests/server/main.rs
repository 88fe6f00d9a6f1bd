//! The server as its clients see it, byte by byte, over real sockets on free ports. PHP's part is played by an
//! [`EventQueue`](realtime::backend::queue::EventQueue) that a test thread empties.

mod abuse;
mod attached;
mod authority;
mod backend;
mod bad_input;
mod cache;
mod client;
mod control;
mod deflate;
mod detached;
mod disk;
mod frames;
mod handler;
mod harness;
mod history;
mod http;
mod issuer;
mod limits;
mod links;
mod long_poll;
mod model;
mod native;
mod pool;
mod presence;
mod publish;
mod pusher;
mod resume;
mod sse;
mod stream;
mod takeover;
mod takeover_bad;
mod takeover_presence;
mod tls;
mod tokens;
mod websocket;
