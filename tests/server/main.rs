//! The server as its clients see it, byte by byte, over real sockets on free ports. PHP's part is played by an
//! [`EventQueue`](realtime::backend::queue::EventQueue) that a test thread empties.

mod abuse;
mod attached;
mod backend;
mod bad_input;
mod client;
mod control;
mod deflate;
mod detached;
mod frames;
mod handler;
mod harness;
mod http;
mod issuer;
mod limits;
mod links;
mod long_poll;
mod native;
mod pool;
mod publish;
mod resume;
mod sse;
mod stream;
mod takeover;
mod takeover_bad;
mod takeover_random;
mod tokens;
mod websocket;
