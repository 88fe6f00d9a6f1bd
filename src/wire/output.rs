//! The output of a handler request, taken apart: frames of [`Outcomes`](super::events::Outcomes), each behind the request's
//! [`Mark`], and what the script printed around them.
//!
//! Keeps at most one frame, which is bounded. Imports `events`.

use std::borrow::Cow;

use super::events::Mark;

/// What the length of a frame takes.
const LENGTH: usize = 4;

/// Reads one request's output.
#[derive(Debug)]
pub struct Output {
    mark: Mark,
    /// For each length of what is found of the mark: how much of it is found if the next byte does not fit.
    fallback: [u8; size_of::<Mark>()],
    limit: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So much of the mark is found.
    Text(usize),
    Length([u8; LENGTH], usize),
    Frame(Vec<u8>, usize),
}

/// A part of an output.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// What the script printed.
    Text(Cow<'a, [u8]>),
    /// The content of a frame.
    Frame(Vec<u8>),
}

/// A frame over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes in the handler's output, {1} are allowed")]
pub struct TooLarge(pub usize, pub usize);

impl Output {
    /// With frames of at most `limit` bytes.
    pub fn new(mark: Mark, limit: usize) -> Self {
        let mut fallback = [0; size_of::<Mark>()];
        let mut length = 0;
        for index in 1..mark.len() {
            while length > 0 && mark[index] != mark[length] {
                length = usize::from(fallback[length - 1]);
            }
            length += usize::from(mark[index] == mark[length]);
            fallback[index] = length as u8;
        }
        Self {
            mark,
            fallback,
            limit,
            state: State::Text(0),
        }
    }

    /// Takes the next piece off the front of `bytes`. `None`: all of it is taken, and more must come.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, TooLarge> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Text(found) => {
                    let found = *found;
                    let text = self.text(found, bytes);
                    if !text.is_empty() {
                        return Ok(Some(Piece::Text(text)));
                    }
                }
                State::Length(length, has) => {
                    length[*has] = bytes[0];
                    *has += 1;
                    *bytes = &bytes[1..];
                    if *has == LENGTH {
                        let length = u32::from_le_bytes(*length) as usize;
                        if length > self.limit {
                            return Err(TooLarge(length, self.limit));
                        }
                        // Grows with what really arrives, not with what is announced.
                        self.state = State::Frame(Vec::new(), length);
                    }
                }
                State::Frame(..) => {}
            }
            if let State::Frame(frame, length) = &mut self.state {
                let (part, rest) = bytes.split_at(bytes.len().min(*length - frame.len()));
                frame.extend_from_slice(part);
                *bytes = rest;
                if frame.len() == *length {
                    let frame = std::mem::take(frame);
                    self.state = State::Text(0);
                    return Ok(Some(Piece::Frame(frame)));
                }
            }
        }
        Ok(None)
    }

    /// What stands at the end and began like the mark: text, when nothing follows.
    pub fn rest(&self) -> &[u8] {
        match self.state {
            State::Text(found) => &self.mark[..found],
            State::Length(..) | State::Frame(..) => &[],
        }
    }

    /// Takes text up to the end of the next mark, or all but what may begin one, of which `held` bytes came before.
    fn text<'a>(&mut self, held: usize, bytes: &mut &'a [u8]) -> Cow<'a, [u8]> {
        let all = *bytes;
        let mut found = held;
        let mut index = 0;
        while index < all.len() {
            if found == 0 {
                // Mostly there is nothing like it.
                match all[index..].iter().position(|byte| *byte == self.mark[0]) {
                    Some(skip) => index += skip,
                    None => break,
                }
            }
            let byte = all[index];
            while found > 0 && byte != self.mark[found] {
                found = usize::from(self.fallback[found - 1]);
            }
            found += usize::from(byte == self.mark[found]);
            index += 1;
            if found == self.mark.len() {
                break;
            }
        }
        if found == self.mark.len() {
            *bytes = &all[index..];
            self.state = State::Length([0; LENGTH], 0);
        } else {
            index = all.len();
            *bytes = &[];
            self.state = State::Text(found);
        }
        let text = &all[..index.saturating_sub(found)];
        // What was held and is not part of what is found now was text after all.
        match held - held.min(found.saturating_sub(index)) {
            0 => text.into(),
            count => [&self.mark[..count], text].concat().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control;
    use crate::wire::events::{Outcomes, marked};

    const LIMIT: usize = 1000;

    fn read(mark: Mark, bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize), TooLarge> {
        let mut output = Output::new(mark, LIMIT);
        let (mut text, mut frames) = (Vec::new(), 0);
        for mut chunk in bytes.chunks(step) {
            while let Some(piece) = output.next(&mut chunk)? {
                match piece {
                    Piece::Text(bytes) => text.extend_from_slice(&bytes),
                    Piece::Frame(frame) => {
                        assert_eq!(control::read::<Outcomes>(&frame).unwrap().interest, 5);
                        frames += 1;
                    }
                }
            }
        }
        text.extend_from_slice(output.rest());
        Ok((text, frames))
    }

    fn outcomes(mark: &Mark) -> Vec<u8> {
        marked(
            mark,
            &Outcomes {
                interest: 5,
                outcomes: Vec::new(),
            },
        )
    }

    #[test]
    fn frames_are_found_between_text_in_any_pieces() {
        // A mark that repeats itself, and text that begins like it.
        for mark in [*b"aabaabaacaabaabc", *b"dend123456789abc"] {
            let mut bytes = b"Warning: x".to_vec();
            bytes.extend(outcomes(&mark));
            bytes.extend(outcomes(&mark));
            bytes.extend(b"yyy");
            // Nine bytes of the mark too early.
            bytes.extend(&mark[..9]);
            bytes.extend(outcomes(&mark));
            bytes.extend(b"end");
            let expected = [b"Warning: xyyy", &mark[..9], b"end"].concat();
            for step in [1, 2, 5, 16, 17, 1000] {
                let (text, frames) = read(mark, &bytes, step).unwrap();
                assert_eq!((frames, &text), (3, &expected), "{step}");
            }
        }
    }

    #[test]
    fn frames_are_bounded() {
        let mark = [7; 16];
        let mut bytes = mark.to_vec();
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            read(mark, &bytes, 3),
            Err(TooLarge(u32::MAX as usize, LIMIT))
        );
    }

    #[test]
    fn an_empty_frame_is_one() {
        let mark = [7; 16];
        let mut output = Output::new(mark, LIMIT);
        let mut bytes = mark.to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(b'x');
        let mut rest = &bytes[..];
        assert_eq!(output.next(&mut rest), Ok(Some(Piece::Frame(Vec::new()))));
        assert_eq!(
            output.next(&mut rest),
            Ok(Some(Piece::Text(b"x"[..].into())))
        );
    }
}
