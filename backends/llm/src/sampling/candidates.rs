//! The tokens that may be chosen, found without sorting the vocabulary.

use std::cmp::Ordering;

/// A token and its logit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

/// Tokens sorted at first in search of the nucleus; most need fewer.
const FIRST: usize = 64;

/// Better first: the larger logit, then the lower id.
pub(super) fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Puts the `top_k` best (0: all) of the logits that are numbers into `out`, best first if they are fewer than all.
pub(super) fn fill(out: &mut Vec<Candidate>, logits: &[f32], top_k: usize) {
    out.clear();
    // -0 and 0 are equal logits, adding 0 makes them one for the total order.
    let all = (0u32..).zip(logits).filter(|(_, l)| !l.is_nan());
    out.extend(all.map(|(id, &logit)| Candidate { id, logit: logit + 0.0 }));
    if top_k > 0 && top_k < out.len() {
        out.select_nth_unstable_by(top_k - 1, rank);
        out.truncate(top_k);
        out.sort_unstable_by(rank);
    }
}

/// Moves the shortest prefix of the ranking whose weights reach `goal` to the front, best first. Returns its length
/// (at least 1) and its weight. Sorts 64 tokens, then four times as many, until they suffice.
pub(super) fn nucleus(
    candidates: &mut [Candidate],
    goal: f64,
    weight: impl Fn(&Candidate) -> f32,
) -> (usize, f64) {
    let mut sum = 0.0;
    let mut done = 0;
    let mut chunk = FIRST;
    while done < candidates.len() {
        let rest = &mut candidates[done..];
        if chunk < rest.len() {
            rest.select_nth_unstable_by(chunk - 1, rank);
        }
        let n = chunk.min(rest.len());
        rest[..n].sort_unstable_by(rank);
        for (i, candidate) in rest[..n].iter().enumerate() {
            sum += f64::from(weight(candidate));
            if sum >= goal {
                return (done + i + 1, sum);
            }
        }
        done += n;
        chunk *= 4;
    }
    (done, sum)
}
