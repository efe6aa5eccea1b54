//! Frames of streams that come too late.
//!
//! A server ends an HTTP/2 connection in order by announcing the end, pinging, and naming the last stream that it serves
//! when the ping comes back. A client may send the head of one more stream behind its answer to the ping. That stream
//! is not served, and the client knows from the name of the last one that it may ask elsewhere. The `h2` crate passes
//! over head, data and reset of such a stream, but takes a WINDOW_UPDATE of it for one of a stream that nobody has opened,
//! which ends the connection with an error, and with it all that still runs there. gRPC's clients send one with every
//! call. So these frames are taken out of what the crate reads.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream.
const HEAD: usize = 9;
/// Room for what is ever held back, and one byte more: the head of a PING and what it carries.
pub(crate) const ENOUGH: usize = HEAD + 8;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
/// What `h2` pings with when it has announced the end.
const ANNOUNCED: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// Follows the frames of a client.
#[derive(Debug)]
pub(crate) struct Late {
    place: Place,
    /// The highest stream whose head has come.
    highest: u32,
    /// The last stream that is served, once that is settled.
    last: Option<u32>,
    /// The beginning of a frame that is not handed on before it is known what it is.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many bytes of the preface have come.
    Preface(usize),
    Head,
    /// So many bytes of a frame follow.
    Frame(usize),
    /// The same of one that is taken out.
    TooLate(usize),
    /// Not HTTP/2, or at its end: nothing is looked at.
    Elsewhere,
}

impl Late {
    pub(crate) fn new() -> Self {
        Self { place: Place::Preface(0), highest: 0, last: None, held: Vec::new() }
    }

    /// Whether all bytes pass as they come.
    pub(crate) fn is_idle(&self) -> bool {
        self.place == Place::Elsewhere && self.held.is_empty()
    }

    /// What was held back, to be put before what comes next and given to [`Late::keep`] with it.
    pub(crate) fn held(&self) -> &[u8] {
        &self.held
    }

    /// The client has ended: what is held back is all there is.
    pub(crate) fn end(&mut self) {
        self.held.clear();
        self.place = Place::Elsewhere;
    }

    /// Looks at the next bytes, which begin with those that were held back. Moves what is handed on to the front, and
    /// returns how much that is.
    pub(crate) fn keep(&mut self, bytes: &mut [u8]) -> usize {
        self.held.clear();
        let (mut kept, mut at) = (0, 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (length, handed) = match self.place {
                Place::Elsewhere => (rest.len(), true),
                Place::Preface(done) => (self.preface(done, rest), true),
                Place::Frame(left) => (self.skip(left, rest.len(), Place::Frame), true),
                Place::TooLate(left) => (self.skip(left, rest.len(), Place::TooLate), false),
                Place::Head => {
                    if !self.head(rest) {
                        self.held.extend_from_slice(rest);
                        break;
                    }
                    continue;
                }
            };
            if handed && at == kept {
                kept += length;
            } else if handed {
                bytes.copy_within(at..at + length, kept);
                kept += length;
            }
            at += length;
        }
        kept
    }

    fn preface(&mut self, done: usize, rest: &[u8]) -> usize {
        let expected = &PREFACE[done..];
        let length = expected.len().min(rest.len());
        self.place = match length {
            _ if rest[..length] != expected[..length] => Place::Elsewhere,
            _ if length == expected.len() => Place::Head,
            _ => Place::Preface(done + length),
        };
        length
    }

    fn skip(&mut self, left: usize, there: usize, place: fn(usize) -> Place) -> usize {
        let length = left.min(there);
        self.place = if length == left { Place::Head } else { place(left - length) };
        length
    }

    /// Decides on the frame that begins here; false if too little of it is there for that.
    fn head(&mut self, rest: &[u8]) -> bool {
        let Some((head, payload)) = rest.split_first_chunk::<HEAD>() else { return false };
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
        let frame = HEAD + u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        self.place = Place::Frame(frame);
        match kind {
            HEADERS => self.highest = self.highest.max(stream),
            PING if flags & ACK != 0 && self.last.is_none() => match payload.first_chunk() {
                Some(&ANNOUNCED) => self.last = Some(self.highest),
                Some(_) => {}
                None => {
                    self.place = Place::Head;
                    return false;
                }
            },
            WINDOW_UPDATE if self.last.is_some_and(|last| stream > last) => {
                self.place = Place::TooLate(frame);
            }
            _ => {}
        }
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn update(stream: u32) -> Vec<u8> {
        frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 9])
    }

    /// What a client sends, and what of it is handed on.
    pub(crate) fn conversation() -> (Vec<u8>, Vec<u8>) {
        let data = frame(0, 1, 1, &[7; 300]);
        let served = [
            PREFACE.to_vec(),
            frame(4, 0, 0, &[]),
            frame(HEADERS, 4, 1, b"head"),
            update(1),
            update(0),
            data,
            // Of a keep-alive.
            frame(PING, ACK, 0, &[1; 8]),
            frame(HEADERS, 4, 5, b"head"),
            update(5),
            frame(PING, ACK, 0, &ANNOUNCED),
        ];
        let (head, update_0, update_5) = (frame(HEADERS, 4, 7, b"late"), update(0), update(5));
        let late = frame(0, 1, 7, b"data");
        let sent = [
            served.concat(),
            head.clone(),
            update(7),
            update_0.clone(),
            late.clone(),
            update_5.clone(),
            update(7),
        ];
        let handed = [served.concat(), head, update_0, late, update_5];
        (sent.concat(), handed.concat())
    }

    /// Hands `sent` over in pieces, as [`Wire`](crate::Wire) does.
    fn through(sent: &[u8], piece: usize) -> Vec<u8> {
        let (mut late, mut handed) = (Late::new(), Vec::new());
        for piece in sent.chunks(piece) {
            let mut bytes = [late.held(), piece].concat();
            let kept = late.keep(&mut bytes);
            handed.extend_from_slice(&bytes[..kept]);
        }
        handed.extend_from_slice(late.held());
        handed
    }

    #[test]
    fn updates_of_late_streams_are_taken_out_however_they_are_cut() {
        let (sent, handed) = conversation();
        for piece in 1..=sent.len() {
            assert_eq!(through(&sent, piece), handed, "in pieces of {piece}");
        }
    }

    #[test]
    fn whatever_is_not_http_2_passes() {
        for text in [b"POST /v2 HTTP/1.1\r\n\r\n".as_slice(), b"PRI * HTTP/3.0", b"P"] {
            for piece in 1..=text.len() {
                assert_eq!(through(text, piece), text);
            }
        }
        let mut late = Late::new();
        let mut bytes = b"GET".to_vec();
        assert_eq!((late.keep(&mut bytes), late.is_idle()), (3, true));
    }
}
