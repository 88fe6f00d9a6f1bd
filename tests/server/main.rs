//! The server as its clients see it, byte by byte, over real sockets on free ports. PHP's part is played by an
//! [`EventQueue`](realtime::backend::queue::EventQueue) that a test thread empties.

mod backend;
mod bad_input;
mod client;
mod control;
mod deflate;
mod frames;
mod harness;
mod http;
mod limits;
mod long_poll;
mod native;
mod publish;
mod resume;
mod sse;
mod stream;
mod websocket;
