//! The negotiation of permessage-deflate (RFC 7692, section 7.1): what a client offers, and what is answered.
//!
//! Neither side keeps its compression's context from one message to the next, so one compression serves every
//! subscriber. Imports `wire::deflate`.

use hyper::header::{self, HeaderMap, HeaderValue};

use crate::wire::deflate::Packing;

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The client wants to know the size of our window, and that it is at most this.
    window: Option<u8>,
}

impl Deflate {
    /// The first offer that can be accepted. One with a parameter that is unknown, double or without a sensible value
    /// is passed over, as the RFC wants it.
    pub fn choose(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(header::SEC_WEBSOCKET_EXTENSIONS)
            .iter()
            .filter_map(|value| value.to_str().ok())
            // No value of this extension has a comma or a semicolon in it, quoted or not.
            .flat_map(|list| list.split(','))
            .find_map(Self::accept)
    }

    /// How messages are compressed.
    pub fn packing(self) -> Packing {
        match self.window {
            Some(bits) if bits < Packing::Wide.window_bits() => Packing::Narrow,
            _ => Packing::Wide,
        }
    }

    /// What the client is told.
    pub fn answer(self) -> HeaderValue {
        HeaderValue::from_static(match (self.window, self.packing()) {
            (None, _) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            }
            (Some(_), Packing::Narrow) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=9"
            }
            (Some(_), _) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=15"
            }
        })
    }

    fn accept(offer: &str) -> Option<Self> {
        let mut parts = offer.split(';').map(str::trim);
        if parts.next() != Some("permessage-deflate") {
            return None;
        }
        let mut seen: [Option<&str>; 4] = [None; 4];
        let mut window = None;
        for parameter in parts {
            let (name, value) = match parameter.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start()))),
                None => (parameter, None),
            };
            if seen.contains(&Some(name)) {
                return None;
            }
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                ("client_max_window_bits", None) => {}
                // Whatever the client's window is, ours to decompress with has the largest.
                ("client_max_window_bits", Some(bits)) => {
                    window_bits(bits)?;
                }
                ("server_max_window_bits", Some(bits)) => window = Some(window_bits(bits)?),
                _ => return None,
            }
            *seen.iter_mut().find(|seen| seen.is_none())? = Some(name);
        }
        // No zlib compresses with a window of 8 bits.
        let possible = window.is_none_or(|bits| bits >= Packing::Narrow.window_bits());
        possible.then_some(Self { window })
    }
}

fn unquote(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

/// 8 to 15, without a zero in front.
fn window_bits(text: &str) -> Option<u8> {
    ["8", "9", "10", "11", "12", "13", "14", "15"]
        .iter()
        .zip(8..)
        .find_map(|(bits, number)| (*bits == text).then_some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offers: &[&str]) -> Option<(Packing, String)> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            let value = HeaderValue::from_str(offer).unwrap();
            headers.append(header::SEC_WEBSOCKET_EXTENSIONS, value);
        }
        Deflate::choose(&headers).map(|deflate| {
            let answer = deflate.answer().to_str().unwrap().to_owned();
            (deflate.packing(), answer)
        })
    }

    const ANSWER: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_of_browsers_and_libraries_are_accepted() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=15",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate",
            "permessage-deflate; client_max_window_bits=\"10\"",
            "permessage-deflate; mux, permessage-deflate",
        ] {
            assert_eq!(
                answer(&[offer]),
                Some((Packing::Wide, ANSWER.into())),
                "{offer}"
            );
        }
        let two = answer(&["x-other", "permessage-deflate"]);
        assert_eq!(two, Some((Packing::Wide, ANSWER.into())));
    }

    #[test]
    fn a_client_with_a_small_window_gets_one() {
        let full = answer(&["permessage-deflate; server_max_window_bits=15"]);
        let expected = format!("{ANSWER}; server_max_window_bits=15");
        assert_eq!(full, Some((Packing::Wide, expected)));
        for bits in 9..15 {
            let small = answer(&[&format!(
                "permessage-deflate; server_max_window_bits={bits}"
            )]);
            let expected = format!("{ANSWER}; server_max_window_bits=9");
            assert_eq!(small, Some((Packing::Narrow, expected)));
        }
    }

    #[test]
    fn offers_against_the_rules_are_passed_over() {
        for offer in [
            "",
            "deflate",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=99",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; unknown",
            "permessage-deflate;",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
    }
}
