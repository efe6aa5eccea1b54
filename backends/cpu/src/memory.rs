//! Memory of megabytes, in large pages where the system has them: what is read as fast as memory gives it then waits for
//! fewer look-ups of addresses.

use std::collections::TryReserveError;
use std::mem::MaybeUninit;

/// Smaller allocations are not worth a call: the usual large page.
const LARGE: usize = 2 << 20;

/// `n` elements of `value`.
pub(crate) fn filled<T: Clone>(value: T, n: usize) -> Vec<T> {
    let mut all = Vec::with_capacity(n);
    prefer_large_pages(all.spare_capacity_mut());
    all.resize(n, value);
    all
}

/// Grows `all` to `n` elements at least, the new ones of `value`, without room for more.
pub(crate) fn grow<T: Clone>(all: &mut Vec<T>, n: usize, value: T) -> Result<(), TryReserveError> {
    all.try_reserve_exact(n.saturating_sub(all.len()))?;
    prefer_large_pages(all.spare_capacity_mut());
    all.resize(n.max(all.len()), value);
    Ok(())
}

/// Asks for large pages in memory that nothing was written to yet. Whatever comes of it, the memory is as good as before.
#[cfg(target_os = "linux")]
fn prefer_large_pages<T>(spare: &mut [MaybeUninit<T>]) {
    use rustix::mm::{Advice, madvise};

    let (start, bytes) = (spare.as_mut_ptr().cast::<u8>(), size_of_val(spare));
    let page = rustix::param::page_size();
    let skip = start.align_offset(page);
    if bytes < LARGE || skip >= bytes {
        return;
    }
    let whole = (bytes - skip) / page * page;
    // SAFETY: whole pages inside an allocation that is ours alone; the advice changes nothing in them.
    let _ = unsafe { madvise(start.add(skip).cast(), whole, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages<T>(_: &mut [MaybeUninit<T>]) {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_there_stays_when_it_grows() {
        let mut all = filled(7u16, 5);
        for n in [3, 5, LARGE, 3 * LARGE] {
            grow(&mut all, n, 9).unwrap();
            assert!(all.len() == n.max(5) && all[..5] == [7; 5] && all[5..].iter().all(|x| *x == 9), "{n}");
        }
        assert!(grow(&mut all, usize::MAX / 2, 0).is_err());
        assert_eq!(all.len(), 3 * LARGE);
    }
}
