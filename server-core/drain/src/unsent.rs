//! What the system has taken and its clients have not yet: Linux lists it, elsewhere it is not known and not waited for.

use std::fs;

/// A goodbye of HTTP/2 is smaller. A client that does not even take that was owed nothing and is gone.
const GOODBYE: u64 = 128;
/// A listening socket, whose columns mean something else.
const LISTEN: &str = "0A";

/// Whether a connection of one of these local ports has more to send than a goodbye.
pub(crate) fn unsent(ports: &[u16]) -> bool {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.iter().filter_map(|table| fs::read_to_string(table).ok()).any(|table| any(&table, ports))
}

fn any(table: &str, ports: &[u16]) -> bool {
    table.lines().skip(1).filter_map(row).any(|(port, queued)| queued > GOODBYE && ports.contains(&port))
}

/// The local port of a connection and the bytes that are not acknowledged.
fn row(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace();
    let (_, local) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let (queued, _) = fields.next()?.split_once(':')?;
    (state != LISTEN).then_some((u16::from_str_radix(local, 16).ok()?, u64::from_str_radix(queued, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
        0: 0100007F:1F40 00000000:0000 0A 00000000:00000400 00:00000000 00000000 0\n\
        1: 0100007F:1F40 0100007F:D431 01 0027AC40:00000000 01:00000017 00000000 0\n\
        2: 0100007F:1F41 0100007F:D432 04 00000022:00000000 01:00000017 00000000 0\n\
        3: 0000000000000000FFFF00000100007F:1F42 0000000000000000FFFF00000100007F:D433 01 00000081:00000000 00:0 0\n";

    #[test]
    fn the_systems_table_is_read() {
        assert_eq!(row(TABLE.lines().nth(2).unwrap_or_default()), Some((8000, 0x27_ac40)));
        assert_eq!((any(TABLE, &[8000]), any(TABLE, &[8001]), any(TABLE, &[8002])), (true, false, true));
        assert!(!any(TABLE, &[9000]) && !any("", &[8000]) && !any("header\nno\n", &[0]));
    }
}
