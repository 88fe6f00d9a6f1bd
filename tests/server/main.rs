//! The server as its clients see it, byte by byte, over real sockets on free ports. PHP's part is played by an
//! [`EventQueue`](realtime::backend::queue::EventQueue) that a test thread empties.

mod client;
mod harness;
mod websocket;
