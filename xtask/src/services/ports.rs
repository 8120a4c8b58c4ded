//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Failed;

/// Ports below those that systems hand out for outgoing connections, which would take a chosen one before its server does.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Which ports are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wish {
    /// The documented ones, if they are free.
    Usual,
    /// Any: many may run beside each other.
    Any,
}

/// As many free ports as there are usual ones.
pub(crate) fn choose(wish: Wish, usual: &[u16], taken: &[u16]) -> Result<Vec<u16>, Failed> {
    // Held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    let mut chosen = Vec::new();
    let mut others = scan();
    for usual in usual {
        let first = (wish == Wish::Usual).then_some(*usual);
        let free = first.into_iter().chain(others.by_ref()).find_map(|port| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
            (!taken.contains(&port)).then_some((port, listener))
        });
        let (port, listener) = free.ok_or("no port between 20000 and 32000 is free on 127.0.0.1")?;
        chosen.push(port);
        held.push(listener);
    }
    Ok(chosen)
}

/// Whether all of them could be bound now.
pub(crate) fn are_free(ports: &[u16]) -> bool {
    ports
        .iter()
        .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}

/// The whole range, from where another process at another time would hardly begin.
fn scan() -> impl Iterator<Item = u16> {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::from(now.subsec_nanos()));
    let length = u64::from(RANGE.end - RANGE.start);
    let mixed = (nanos ^ (u64::from(std::process::id()) << 20)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let begin = u16::try_from(mixed % length).unwrap_or_default();
    (RANGE.start + begin..RANGE.end).chain(RANGE.start..RANGE.start + begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_ports_differ_and_are_free() {
        let ports = choose(Wish::Any, &[1, 2, 3, 4], &[]).unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }

    #[test]
    fn a_usual_port_that_is_taken_is_replaced() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let usual = holder.local_addr().unwrap().port();
        let ports = choose(Wish::Usual, &[usual], &[]).unwrap();
        assert_ne!(ports, [usual]);
        assert!(!are_free(&[usual]));
    }

    #[test]
    fn a_port_that_is_promised_to_another_is_not_chosen() {
        let free = choose(Wish::Any, &[1], &[]).unwrap();
        assert_ne!(choose(Wish::Usual, &free, &free).unwrap(), free);
    }

    #[test]
    fn the_scan_visits_every_port_once() {
        let seen: std::collections::BTreeSet<_> = scan().collect();
        assert_eq!((seen.len(), scan().count()), (RANGE.len(), RANGE.len()));
    }
}
