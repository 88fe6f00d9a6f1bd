//! Builds what cargo cannot.
fn main() {}
