//! The body of a response: some bytes, or the beginning of a stream that will leave hyper.
//!
//! Imports nothing of this crate.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// A response's body.
#[derive(Debug)]
pub enum Body {
    /// These bytes.
    Full(Option<Bytes>),
    /// Nothing yet: sets the flag once hyper has written the head and asks for the body. From then on whoever
    /// set it up writes to the socket himself.
    Endless(Rc<Cell<bool>>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Endless(asked) => {
                asked.set(true);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Endless(_) => SizeHint::default(),
        }
    }
}
