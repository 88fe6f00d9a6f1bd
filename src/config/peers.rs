//! Who is trusted: the origins whose pages may connect, and the proxies whose word on an address is taken.

use std::net::IpAddr;

/// Which `Origin`s beside the server's own host may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    list: Vec<Box<str>>,
}

impl Origins {
    /// Takes a comma-separated list, or `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut origins = Self::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            if item == "*" {
                origins.any = true;
            } else {
                let (scheme, host) = item.split_once("://")?;
                if scheme.is_empty() || host.is_empty() || host.contains('/') {
                    return None;
                }
                origins.list.push(item.to_ascii_lowercase().into());
            }
        }
        Some(origins)
    }

    /// Whether any page may connect: `*` is on the list.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Whether `origin` (`scheme://host[:port]`) is on the list, by name or by `*.`.
    pub fn names(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.list
            .iter()
            .any(|allowed| match allowed.split_once("://*.") {
                Some((scheme, domain)) => origin.split_once("://").is_some_and(|(s, host)| {
                    s == scheme
                        && host
                            .strip_suffix(domain)
                            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                }),
                None => **allowed == *origin,
            })
    }
}

/// Who may say in `X-Forwarded-For` for whom it asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    unix: bool,
    networks: Vec<(IpAddr, u8)>,
}

impl Proxies {
    /// Takes a comma-separated list of addresses, networks and `unix`, which stands for any peer on a Unix socket.
    pub fn parse(text: &str) -> Option<Self> {
        let mut proxies = Self::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            if item == "unix" {
                proxies.unix = true;
                continue;
            }
            let (address, bits) = item
                .split_once('/')
                .map_or((item, None), |(address, bits)| (address, Some(bits)));
            let address: IpAddr = address.parse().ok()?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(width), |bits| bits.parse().ok())?;
            if bits > width {
                return None;
            }
            proxies.networks.push((address, bits));
        }
        Some(proxies)
    }

    /// Whether the peer with this address is one; the empty address is a Unix socket's.
    pub fn trusts(&self, address: &str) -> bool {
        if address.is_empty() {
            return self.unix;
        }
        let Ok(address) = address.parse::<IpAddr>() else {
            return false;
        };
        let prefix = |ip: IpAddr, bits: u8| match ip {
            IpAddr::V4(ip) => u32::from(ip)
                .checked_shr(32 - u32::from(bits))
                .map_or(0, u128::from),
            IpAddr::V6(ip) => u128::from(ip)
                .checked_shr(128 - u32::from(bits))
                .unwrap_or(0),
        };
        let address = address.to_canonical();
        self.networks.iter().any(|&(network, bits)| {
            network.is_ipv4() == address.is_ipv4() && prefix(network, bits) == prefix(address, bits)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let origins = Origins::parse("https://a.example, https://*.b.example").unwrap();
        assert!(origins.names("https://A.example"));
        assert!(origins.names("https://x.b.example"));
        assert!(!origins.names("https://b.example"));
        assert!(!origins.names("https://xb.example"));
        assert!(!origins.names("http://a.example"));
        assert!(!origins.names("https://a.example.evil"));
        assert!(Origins::parse("a.example").is_none());
    }

    #[test]
    fn proxies() {
        let proxies = Proxies::parse("10.0.0.0/8, 192.0.2.7, 2001:db8::/32, unix").unwrap();
        for trusted in [
            "10.255.0.1",
            "::ffff:10.1.1.1",
            "192.0.2.7",
            "2001:db8:1::1",
            "",
        ] {
            assert!(proxies.trusts(trusted), "{trusted}");
        }
        for stranger in [
            "11.0.0.1",
            "192.0.2.8",
            "2001:db9::1",
            "::1",
            "unix",
            "10.0.0.1:80",
        ] {
            assert!(!proxies.trusts(stranger), "{stranger}");
        }
        let everybody = Proxies::parse("0.0.0.0/0, ::/0").unwrap();
        assert!(everybody.trusts("203.0.113.1") && everybody.trusts("2001:db8::1"));
        assert!(!everybody.trusts(""));
        assert!(!Proxies::parse("").unwrap().trusts("127.0.0.1"));
        for bad in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "localhost",
            "10.0.0.1/x",
        ] {
            assert!(Proxies::parse(bad).is_none(), "{bad}");
        }
    }
}
