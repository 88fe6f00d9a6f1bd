//! Where threads of the server meet: the locks, counters and wake-ups that the modules with an order of their own use.
//!
//! They are the standard library's and tokio's. With the feature `loom`, which is for tests alone, they are those of a
//! model checker, which runs a test in every order in which its threads can meet, and finds wake-ups that get lost. Imports
//! nothing of this crate.

#[cfg(feature = "loom")]
mod model;
#[cfg(not(feature = "loom"))]
mod real;

#[cfg(feature = "loom")]
pub use self::model::*;
#[cfg(not(feature = "loom"))]
pub use self::real::*;
