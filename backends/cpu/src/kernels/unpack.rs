//! How the quants of a block come out of its lines, for kernels of every width.

/// Eight vectors of quants from lines whose bytes hold two each: the lower four bits belong to line i, the upper to line i + 4.
/// Lines behind those four hold further bits, as many of a quant as `$high_bits` says. `$line` loads a line; the other names are
/// the instructions of a width. (A macro, since a function over them would be a call.)
macro_rules! unpack {
    ($high_bits:expr, $line:ident, $set:ident, $and:ident, $or:ident, $left:ident, $right:ident) => {{
        let mask = $set(15);
        let lower = |v| $and(v, mask);
        let upper = |v| $and($right::<4>(v), mask);
        let (q0, q1, q2, q3) = ($line(0), $line(1), $line(2), $line(3));
        let v = [lower(q0), lower(q1), lower(q2), lower(q3), upper(q0), upper(q1), upper(q2), upper(q3)];
        match $high_bits {
            // Bit i of a byte belongs to line i.
            1 => {
                let (h, bits) = ($line(4), $set(16));
                [
                    $or(v[0], $and($left::<4>(h), bits)),
                    $or(v[1], $and($left::<3>(h), bits)),
                    $or(v[2], $and($left::<2>(h), bits)),
                    $or(v[3], $and($left::<1>(h), bits)),
                    $or(v[4], $and(h, bits)),
                    $or(v[5], $and($right::<1>(h), bits)),
                    $or(v[6], $and($right::<2>(h), bits)),
                    $or(v[7], $and($right::<3>(h), bits)),
                ]
            }
            // Bits 2i and 2i + 1 of a byte belong to lines i and i + 4, each of which has a line of them.
            2 => {
                let (g, h, bits) = ($line(4), $line(5), $set(48));
                [
                    $or(v[0], $and($left::<4>(g), bits)),
                    $or(v[1], $and($left::<2>(g), bits)),
                    $or(v[2], $and(g, bits)),
                    $or(v[3], $and($right::<2>(g), bits)),
                    $or(v[4], $and($left::<4>(h), bits)),
                    $or(v[5], $and($left::<2>(h), bits)),
                    $or(v[6], $and(h, bits)),
                    $or(v[7], $and($right::<2>(h), bits)),
                ]
            }
            _ => v,
        }
    }};
}

pub(super) use unpack;
