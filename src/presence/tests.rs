//! Single rules, and random doings against a model that knows every connection.

use super::*;

const GRACE: Duration = Duration::from_secs(5);

fn presence() -> Presence {
    Presence::new(Limits {
        members: 3,
        info: 10,
        bytes: 1 << 20,
        grace: GRACE,
    })
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn who(number: u128) -> ConnectionId {
    ConnectionId::from_bits(number)
}

fn user(name: &str) -> Attendee {
    Attendee::new(name, None)
}

fn names(presence: &Presence, channel: &str) -> Vec<String> {
    let members = presence.members(channel);
    members
        .map(|it| format!("{} {}", it.attendee.user, it.connections))
        .collect()
}

fn told(changes: impl IntoIterator<Item = Change>) -> Vec<String> {
    let words = |change| match change {
        Change::Joined {
            channel, attendee, ..
        } => format!("+{} {channel}", attendee.user),
        Change::Left { channel, user } => format!("-{user} {channel}"),
    };
    changes.into_iter().map(words).collect()
}

#[test]
fn a_user_is_one_member_however_many_connections_it_has() {
    let (mut presence, a, now) = (presence(), channel("a"), Instant::now());
    assert_eq!(
        told(presence.join(&a, who(1), &user("ada")).unwrap()),
        ["+ada a"]
    );
    assert!(presence.join(&a, who(2), &user("ada")).unwrap().is_none());
    assert!(
        presence.join(&a, who(2), &user("ada")).unwrap().is_none(),
        "twice"
    );
    assert_eq!(names(&presence, "a"), ["ada 2"]);
    assert!(presence.leave("a", who(1)).is_none());
    assert!(presence.leave("a", who(1)).is_none(), "twice");
    assert_eq!(names(&presence, "a"), ["ada 1"]);
    assert_eq!(told(presence.leave("a", who(2))), ["-ada a"]);
    assert!(presence.end(who(2), false, now).is_empty());
    assert_eq!((presence.bytes(), presence.all().count()), (0, 0));
}

#[test]
fn who_comes_back_within_the_grace_time_was_never_away() {
    let (mut presence, a, now) = (presence(), channel("a"), Instant::now());
    presence.join(&a, who(1), &user("ada")).unwrap();
    presence.join(&a, who(2), &user("bob")).unwrap();
    assert!(presence.end(who(1), false, now).is_empty());
    assert_eq!(names(&presence, "a"), ["ada 0", "bob 1"]);
    let nearly = now + GRACE - Duration::from_millis(1);
    assert!(presence.expire(nearly).is_empty());
    assert!(presence.join(&a, who(3), &user("ada")).unwrap().is_none());
    assert!(presence.expire(now + 2 * GRACE).is_empty());
    presence.end(who(3), false, nearly);
    assert_eq!(told(presence.expire(nearly + GRACE)), ["-ada a"]);
    assert!(presence.expire(nearly + GRACE).is_empty());
}

#[test]
fn who_is_sent_away_is_gone_at_once() {
    let (mut presence, now) = (presence(), Instant::now());
    for name in ["a", "b"] {
        presence.join(&channel(name), who(1), &user("ada")).unwrap();
    }
    assert_eq!(told(presence.end(who(1), true, now)), ["-ada a", "-ada b"]);
    assert_eq!(presence.bytes(), 0);
}

#[test]
fn what_is_known_of_a_member_stays_while_it_is_one() {
    let (mut presence, a) = (presence(), channel("a"));
    let info = |presence: &Presence| {
        let member = presence.members("a").next().unwrap();
        member
            .attendee
            .info
            .as_ref()
            .map(|info| info.get().to_owned())
    };
    let first = Attendee::new("ada", Some("{\"n\":1}"));
    let second = Attendee::new("ada", Some("[2]"));
    presence.join(&a, who(1), &first).unwrap();
    presence.join(&a, who(2), &second).unwrap();
    assert_eq!(info(&presence).as_deref(), Some("{\"n\":1}"));
    presence.leave("a", who(1));
    assert_eq!(info(&presence).as_deref(), Some("{\"n\":1}"));
    presence.leave("a", who(2));
    presence.join(&a, who(2), &second).unwrap();
    assert_eq!(info(&presence).as_deref(), Some("[2]"));
    assert!(Attendee::new("ada", Some("no json")).info.is_none());
}

#[test]
fn there_are_limits() {
    let (mut presence, a) = (presence(), channel("a"));
    for (number, name) in (0..).zip(["ada", "bob", "eve"]) {
        presence.join(&a, who(number), &user(name)).unwrap();
    }
    let join = |presence: &mut Presence, channel: &Channel, attendee: Attendee| {
        presence.join(channel, who(9), &attendee).unwrap_err()
    };
    assert_eq!(join(&mut presence, &a, user("mal")), Full::Channel);
    assert!(presence.join(&a, who(4), &user("eve")).unwrap().is_none());
    let large = Attendee::new("mal", Some("\"12345678901\""));
    assert_eq!(join(&mut presence, &channel("b"), large), Full::Info);
    presence.limits.bytes = presence.bytes() + PLACE_COST;
    assert_eq!(
        join(&mut presence, &channel("b"), user("mal")),
        Full::Server
    );
    assert!(presence.join(&a, who(5), &user("eve")).is_ok());
    assert_eq!(join(&mut presence, &a, user("eve")), Full::Server);
}

#[test]
fn who_was_at_another_hub_is_awaited() {
    let (mut presence, a, now) = (presence(), channel("a"), Instant::now());
    assert!(presence.expect(&a, &user("ada"), now + GRACE).unwrap());
    assert!(!presence.expect(&a, &user("ada"), now + 2 * GRACE).unwrap());
    presence.expect(&a, &user("bob"), now + GRACE).unwrap();
    presence.join(&a, who(1), &user("bob")).unwrap();
    assert!(!presence.expect(&a, &user("bob"), now + GRACE).unwrap());
    assert!(presence.give_up(&a, "bob").is_none(), "it is here");
    assert!(presence.expire(now + GRACE).is_empty(), "and there longer");
    assert_eq!(told(presence.expire(now + 2 * GRACE)), ["-ada a"]);
    presence.expect(&a, &user("eve"), now + GRACE).unwrap();
    assert_eq!(told(presence.give_up(&a, "eve")), ["-eve a"]);
    assert!(presence.give_up(&a, "eve").is_none());
    assert_eq!(presence.leases.len(), 0);
}

/// A connection, where it is present: channel and user.
type Places = BTreeMap<u128, BTreeMap<usize, usize>>;

#[test]
fn random_doings_agree_with_a_model() {
    for seed in 1..=200 {
        random(seed);
    }
}

fn random(seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut roll = move |sides: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % sides
    };
    let channels = ["a", "b", "c"].map(channel);
    let users = ["ada", "bob", "eve", "mal", "joe"].map(user);
    let mut presence = presence();
    presence.limits.members = 4;
    let mut now = Instant::now();
    let mut places = Places::new();
    // Who is a member in the eyes of somebody who only hears the changes.
    let mut seen: BTreeSet<String> = BTreeSet::new();
    // Until when somebody without a connection is one.
    let mut awaited: BTreeMap<String, Instant> = BTreeMap::new();
    for step in 0..400 {
        let (number, at, by) = (u128::from(roll(8)), roll(3) as usize, roll(5) as usize);
        let mut changes = Vec::new();
        let before = places.clone();
        let mut until = now + GRACE;
        match roll(10) {
            0..=3 => {
                let joined = presence.join(&channels[at], who(number), &users[by]);
                let key = format!("{} {}", users[by].user, channels[at]);
                let there = presence.members(channels[at].as_str()).count();
                let is_in = places.get(&number).is_some_and(|its| its.contains_key(&at));
                match joined {
                    Ok(change) => {
                        changes.extend(change);
                        places.entry(number).or_default().entry(at).or_insert(by);
                    }
                    Err(full) => {
                        assert_eq!((full, there), (Full::Channel, 4), "seed {seed}");
                        assert!(!seen.contains(&key) && !is_in, "seed {seed}");
                    }
                }
            }
            4 | 5 => {
                changes.extend(presence.leave(channels[at].as_str(), who(number)));
                places.entry(number).or_default().remove(&at);
                until = now;
            }
            6 | 7 => {
                let sent_away = roll(3) == 0;
                changes = presence.end(who(number), sent_away, now);
                places.remove(&number);
                if sent_away {
                    until = now;
                }
            }
            _ => {
                now += Duration::from_secs(roll(4));
                changes = presence.expire(now);
            }
        }
        // Whose last connection has gone in this step is awaited from here on; who has one is not.
        let keys = |places: &Places| -> BTreeSet<String> {
            let all = places.values().flatten();
            all.map(|(at, by)| format!("{} {}", users[*by].user, channels[*at]))
                .collect()
        };
        let (was, is) = (keys(&before), keys(&places));
        for key in was.difference(&is) {
            awaited.insert(key.clone(), until);
        }
        awaited.retain(|key, until| !is.contains(key) && *until > now);
        for change in told(changes) {
            let (sign, key) = change.split_at(1);
            let news = match sign {
                "+" => seen.insert(key.to_owned()),
                _ => seen.remove(key),
            };
            assert!(news, "seed {seed}, step {step}: {change} told twice");
        }
        let expected: BTreeSet<String> = is.iter().chain(awaited.keys()).cloned().collect();
        assert_eq!(seen, expected, "seed {seed}, step {step}");
        let mut listed = BTreeSet::new();
        for (at, channel) in channels.iter().enumerate() {
            for member in presence.members(channel.as_str()) {
                let user = &member.attendee.user;
                listed.insert(format!("{user} {channel}"));
                let its = places.values().filter_map(|its| its.get(&at));
                let count = its.filter(|by| users[**by].user == *user).count();
                assert_eq!(member.connections, count, "seed {seed}, step {step}");
            }
        }
        assert_eq!(listed, expected, "seed {seed}, step {step}");
        assert_eq!(presence.leases.len(), awaited.len(), "seed {seed}");
    }
    for number in 0..8 {
        presence.end(who(number), true, now);
    }
    presence.expire(now + GRACE);
    assert_eq!(presence.bytes(), 0, "seed {seed}");
    assert!(presence.places.is_empty() && presence.leases.is_empty());
}
