//! Memory of megabytes, in large pages where the system has them: what is read as fast as memory gives it then waits for
//! fewer look-ups of addresses.

use std::alloc::{Layout, alloc_zeroed};
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

/// Elements whose bytes may all be zero.
///
/// # Safety
/// Zeros must be a value.
pub(crate) unsafe trait Zero: Copy {}
// SAFETY: they are numbers.
unsafe impl<const N: usize> Zero for [u16; N] {}
// SAFETY: as above.
unsafe impl<const N: usize> Zero for [f32; N] {}

/// `n` elements of zeros, or `None` if there is no such memory. Memory of megabytes is only promised by the system: a page
/// is there when it is written to.
pub(crate) fn zeroed<T: Zero>(n: usize) -> Option<Vec<T>> {
    let layout = Layout::array::<T>(n).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout has a size.
    let start = unsafe { alloc_zeroed(layout) }.cast::<T>();
    if start.is_null() {
        return None;
    }
    // SAFETY: `n` elements lie there, all of zeros, which are values of `T`; the allocation is a vector's.
    let mut all = unsafe { Vec::from_raw_parts(start, n, n) };
    advise(all.as_mut_ptr().cast(), layout.size());
    Some(all)
}

/// Asks for large pages in memory that nothing was written to yet. Whatever comes of it, the memory is as good as before.
fn prefer_large_pages<T>(spare: &mut [MaybeUninit<T>]) {
    advise(spare.as_mut_ptr().cast(), size_of_val(spare));
}

/// The same for `bytes` from `start` on, an allocation that is the caller's alone.
#[cfg(target_os = "linux")]
fn advise(start: *mut u8, bytes: usize) {
    use rustix::mm::{Advice, madvise};

    let page = rustix::param::page_size();
    let skip = start.align_offset(page);
    if bytes < LARGE || skip >= bytes {
        return;
    }
    let whole = (bytes - skip) / page * page;
    // SAFETY: whole pages inside an allocation that is ours alone; the advice changes nothing in them.
    let _ = unsafe { madvise(start.wrapping_add(skip).cast(), whole, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: *mut u8, _: usize) {}

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

    /// Bytes of this process that are in memory.
    #[cfg(target_os = "linux")]
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_only_promised_takes_no_memory() {
        let before = resident();
        let mut all = zeroed::<[u16; 16]>((1 << 30) / 32).unwrap();
        assert!(resident() < before + (64 << 20), "{} before, {} now", before, resident());
        all[20_000_000][3] = 7;
        assert!(all[20_000_000][3] == 7 && all[1_000] == [0; 16] && all.len() == (1 << 30) / 32);
        assert!(resident() < before + (64 << 20));
        assert!(zeroed::<[f32; 16]>(usize::MAX / 64).is_none() && zeroed::<[f32; 16]>(0).unwrap().is_empty());
    }
}
