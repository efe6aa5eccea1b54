//! The memory of sessions: a pool for each, in large pages where the system has them.
//!
//! ONNX Runtime takes memory from the C library, in pages of 4 KiB. Every run reads all weights of a model, so most of its time
//! may go into looking up where those pages are, above all in a virtual machine, where each look-up is two. [`register`] gives
//! ONNX Runtime an allocator for the whole process, and [`Pool::serve`] says to which session the memory belongs that a thread
//! asks for. Other threads get what they ask for from ONNX Runtime's own allocator.
//!
//! ```text
//! a block    | owner: *const Pool, or null | ... 64 | the memory, at a multiple of 64 | 64 that may be read |
//! ```
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::{NonNull, null};
use std::sync::{Arc, Mutex, PoisonError};

use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::sys::{OrtAllocator, OrtMemoryInfo};
use rlsf::{FlexSource, FlexTlsf};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Where ONNX Runtime's own memory begins, which is also how far in front of it the owner is written.
const ALIGNMENT: usize = 64;
/// Some kernels of ONNX Runtime read a few bytes behind the end.
const BEHIND: usize = 64;
/// The usual large page; the system is asked for whole ones.
const PAGE: usize = 2 << 20;
/// A pool grows by as much as it has, at most by this, if no more is needed. A block that is larger is a mapping of its own.
const LARGEST_STEP: usize = 32 << 20;

/// The memory of a session. It goes back to the system when the session, and every block that came from it, are gone.
pub(crate) struct Pool(Mutex<Memory>);

struct Memory {
    small: FlexTlsf<Pages, u32, u32, 32, 32>,
    large: Large,
}

thread_local! {
    /// The pool of the session for which this thread works.
    static SERVED: RefCell<Option<Arc<Pool>>> = const { RefCell::new(None) };
}

impl Pool {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Memory {
            small: FlexTlsf::new(Pages { bytes: 0 }),
            large: Large::default(),
        })))
    }

    /// What `call` lets ONNX Runtime allocate on this thread comes from this pool.
    pub(crate) fn serve<T>(self: &Arc<Self>, call: impl FnOnce() -> T) -> T {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                SERVED.take();
            }
        }
        SERVED.set(Some(Arc::clone(self)));
        let _reset = Reset;
        call()
    }

    fn allocate(&self, bytes: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, ALIGNMENT).ok()?;
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > LARGEST_STEP { memory.large.allocate(bytes) } else { memory.small.allocate(layout) }
    }

    /// # Safety
    /// `block` is one that [`Self::allocate`] gave, for the first time.
    unsafe fn give_back(&self, block: NonNull<u8>) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !memory.large.give_back(block) {
            // SAFETY: as the caller promises, and it is no large one; the alignment is that of every block.
            unsafe { memory.small.deallocate(block, ALIGNMENT) };
        }
    }
}

/// Blocks that are mappings of their own. What a run gives back the next one needs again, and a new mapping is slow at first; so
/// some are kept: all mappings together are at most twice what was needed at once.
#[derive(Default)]
struct Large {
    /// By where they begin.
    used: BTreeMap<usize, Used>,
    kept: Vec<Mapping>,
    /// Bytes of all mappings.
    mapped: usize,
    /// Bytes that were asked for and are in use, now and at most.
    needed: usize,
    most_needed: usize,
}

struct Used {
    mapping: Mapping,
    needed: usize,
}

impl Large {
    fn allocate(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let whole = bytes.checked_next_multiple_of(PAGE)?;
        let needed = self.needed.checked_add(whole)?;
        let most_needed = self.most_needed.max(needed);
        // One that is much larger is left to a block that needs it.
        let fits = whole..=whole.saturating_mul(2);
        let found = (0..self.kept.len()).filter(|at| fits.contains(&self.kept[*at].bytes));
        let mapping = match found.min_by_key(|at| self.kept[*at].bytes) {
            Some(at) => self.kept.swap_remove(at),
            None => {
                self.shrink(most_needed.saturating_mul(2).saturating_sub(whole));
                let mapping = Mapping::new(whole).or_else(|| {
                    self.shrink(0);
                    Mapping::new(whole)
                })?;
                self.mapped += whole;
                mapping
            }
        };
        (self.needed, self.most_needed) = (needed, most_needed);
        let start = mapping.start;
        self.used.insert(start.as_ptr().addr(), Used { mapping, needed: whole });
        Some(start)
    }

    /// False: it is none of these.
    fn give_back(&mut self, block: NonNull<u8>) -> bool {
        let Some(Used { mapping, needed }) = self.used.remove(&block.as_ptr().addr()) else { return false };
        self.needed -= needed;
        self.kept.push(mapping);
        self.shrink(self.most_needed.saturating_mul(2));
        true
    }

    /// Gives mappings that are not in use back to the system, the oldest first, until no more than this is mapped.
    fn shrink(&mut self, to: usize) {
        while self.mapped > to && !self.kept.is_empty() {
            self.mapped -= self.kept.remove(0).bytes;
        }
    }
}

/// A mapping, until it is dropped.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: memory belongs to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> Option<Self> {
        map(bytes).map(|start| Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: a whole region that `map` made; nobody uses it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Where pools get their memory.
struct Pages {
    /// So much is there.
    bytes: usize,
}

// SAFETY: each region is mapped for the pool alone until it is given back.
unsafe impl FlexSource for Pages {
    unsafe fn alloc(&mut self, least: usize) -> Option<NonNull<[u8]>> {
        let bytes = least.max(self.bytes.min(LARGEST_STEP)).checked_next_multiple_of(PAGE)?;
        let region = map(bytes)?;
        self.bytes = self.bytes.saturating_add(bytes);
        Some(NonNull::slice_from_raw_parts(region, bytes))
    }

    unsafe fn dealloc(&mut self, region: NonNull<[u8]>) {
        // SAFETY: a whole region that `map` made; the pool does not use it any more.
        let _ = unsafe { munmap(region.as_ptr().cast(), region.len()) };
    }

    fn supports_dealloc(&self) -> bool {
        true
    }

    fn min_align(&self) -> usize {
        PAGE
    }
}

/// `bytes` of zeros, a multiple of [`PAGE`], that begin at one; large pages are asked for.
fn map(bytes: usize) -> Option<NonNull<u8>> {
    let room = bytes.checked_add(PAGE)?;
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping, wherever the system wants it.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), room, access, flags) }.ok()?.cast::<u8>();
    let before = start.align_offset(PAGE);
    let region = start.wrapping_add(before);
    // SAFETY: what lies before and behind the region is part of the new mapping and is used by nobody; multiples of the small
    // page, since the mapping begins and the large page ends at one.
    unsafe {
        if before > 0 {
            let _ = munmap(start.cast(), before);
        }
        let _ = munmap(region.wrapping_add(bytes).cast(), PAGE - before);
    }
    advise(region, bytes);
    NonNull::new(region)
}

#[cfg(target_os = "linux")]
fn advise(region: *mut u8, bytes: usize) {
    // SAFETY: a mapping that is ours alone; the advice changes nothing in it. A system without large pages refuses it.
    let _ = unsafe { rustix::mm::madvise(region.cast(), bytes, rustix::mm::Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: *mut u8, _: usize) {}

/// What ONNX Runtime is given. It lives until the process ends.
#[repr(C)]
struct Registered {
    /// The first field: the pointer to it is one to the whole.
    table: OrtAllocator,
    /// ONNX Runtime's own. What it does when there is no memory, it does here too.
    own: *mut OrtAllocator,
    own_alloc: Alloc,
    own_free: unsafe extern "system" fn(*mut OrtAllocator, *mut c_void),
    info: MemoryInfo<'static>,
}

/// ONNX Runtime's own allocator throws where there is no memory, and that may pass through ours, which has nothing to drop then.
type Alloc = unsafe extern "system-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void;

/// Gives the allocator to sessions that are opened with `session.use_env_allocators`.
pub(crate) fn register(environment: &Environment) -> ort::Result<()> {
    let info = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
    let own = Allocator::default().ptr().cast_mut();
    // SAFETY: the table of the default allocator, which lives as long as the process.
    let (own_alloc, own_free) = unsafe { ((*own).Alloc, (*own).Free) };
    let (Some(own_alloc), Some(own_free)) = (own_alloc, own_free) else {
        return Err(ort::Error::new("the default allocator has no functions"));
    };
    // SAFETY: the same function; only what the compiler may assume of it is less.
    let own_alloc: Alloc = unsafe { std::mem::transmute(own_alloc) };
    // SAFETY: as above; it is called by ONNX Runtime alone, which is written in C++.
    let (alloc, reserve) = unsafe {
        (
            std::mem::transmute::<Alloc, unsafe extern "system" fn(*mut OrtAllocator, usize) -> *mut c_void>(
                alloc,
            ),
            std::mem::transmute::<Alloc, unsafe extern "system" fn(*const OrtAllocator, usize) -> *mut c_void>(
                alloc,
            ),
        )
    };
    // SAFETY: the version with the functions that follow.
    let table = OrtAllocator {
        Alloc: Some(alloc),
        Free: Some(free),
        Info: Some(memory_info),
        Reserve: Some(reserve),
        ..unsafe { OrtAllocator::default() }
    };
    let registered = Box::leak(Box::new(Registered { table, own, own_alloc, own_free, info }));
    // SAFETY: a live environment, and an allocator that is never dropped.
    let status = unsafe {
        (ort::api().RegisterAllocator)(environment.ptr().cast_mut(), (&raw mut *registered).cast())
    };
    // SAFETY: the status of the call above.
    unsafe { ort::Error::result_from_status(status) }
}

/// # Safety
/// `this` is the table of a [`Registered`].
unsafe extern "system-unwind" fn alloc(this: *mut OrtAllocator, bytes: usize) -> *mut c_void {
    if bytes == 0 {
        return std::ptr::null_mut();
    }
    let whole = bytes.saturating_add(ALIGNMENT + BEHIND);
    let (block, owner) = match from_pool(whole) {
        Some((block, owner)) => (block.as_ptr(), owner),
        None => {
            // SAFETY: as the caller promises.
            let this = unsafe { &*this.cast::<Registered>() };
            // SAFETY: its own table.
            (unsafe { (this.own_alloc)(this.own, whole) }.cast::<u8>(), null())
        }
    };
    if block.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the block has `whole` bytes and is aligned.
    unsafe { block.cast::<*const Pool>().write(owner) };
    block.wrapping_add(ALIGNMENT).cast()
}

/// A block and what keeps its pool alive, to be written in front.
fn from_pool(bytes: usize) -> Option<(NonNull<u8>, *const Pool)> {
    let pool = SERVED.try_with(|served| served.borrow().clone()).ok()??;
    let block = pool.allocate(bytes)?;
    Some((block, Arc::into_raw(pool)))
}

/// # Safety
/// `this` is the table of a [`Registered`], `memory` null or what [`alloc`] gave.
unsafe extern "system" fn free(this: *mut OrtAllocator, memory: *mut c_void) {
    let Some(block) = NonNull::new(memory.cast::<u8>()) else { return };
    // SAFETY: what is in front of it was written there by `alloc`.
    let block = unsafe { block.sub(ALIGNMENT) };
    // SAFETY: as above.
    let owner = unsafe { block.cast::<*const Pool>().read() };
    if owner.is_null() {
        // SAFETY: as the caller promises.
        let this = unsafe { &*this.cast::<Registered>() };
        // SAFETY: it came from there.
        return unsafe { (this.own_free)(this.own, block.as_ptr().cast()) };
    }
    // SAFETY: `alloc` left this count to the block.
    let pool = unsafe { Arc::from_raw(owner) };
    // SAFETY: it came from this pool.
    unsafe { pool.give_back(block) };
}

/// # Safety
/// `this` is the table of a [`Registered`].
unsafe extern "system" fn memory_info(this: *const OrtAllocator) -> *const OrtMemoryInfo {
    // SAFETY: as the caller promises.
    unsafe { &*this.cast::<Registered>() }.info.ptr()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Bytes of address space of this process.
    fn mapped() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn blocks_are_apart_aligned_and_used_again() {
        let pool = Pool::new();
        let sizes = [1, 63, 64, 65, 5000, PAGE, 3 * PAGE + 1];
        for _ in 0..3 {
            let blocks: Vec<(NonNull<u8>, usize)> =
                sizes.iter().map(|size| (pool.allocate(*size).unwrap(), *size)).collect();
            for (number, (block, size)) in blocks.iter().enumerate() {
                assert!(block.as_ptr().addr().is_multiple_of(ALIGNMENT));
                // SAFETY: so much was asked for.
                unsafe { block.write_bytes(number as u8, *size) };
            }
            for (number, (block, size)) in blocks.iter().enumerate() {
                // SAFETY: so much was written.
                let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), *size) };
                assert!(bytes.iter().all(|byte| *byte == number as u8));
            }
            // SAFETY: each once.
            blocks.iter().for_each(|(block, _)| unsafe { pool.give_back(*block) });
        }
        let there = held(&pool);
        assert!(there <= 16 * PAGE, "{there}");
    }

    fn held(pool: &Pool) -> usize {
        let memory = pool.0.lock().unwrap();
        memory.small.source_ref().bytes + memory.large.mapped
    }

    /// Each somewhat larger than the one before: none fits where others were.
    #[test]
    fn blocks_that_grow_hold_no_more_than_a_few_times_the_largest() {
        let pool = Pool::new();
        let mut size = 1 << 20;
        while size <= 256 << 20 {
            let block = pool.allocate(size).unwrap();
            // SAFETY: so much was asked for.
            unsafe { block.add(size - 1).write(1) };
            // SAFETY: once.
            unsafe { pool.give_back(block) };
            // What doubles holds up to four times the last that fitted, and somewhat more where sizes are rounded.
            let (whole, large) = (size.next_multiple_of(PAGE), size > LARGEST_STEP);
            let most = 5 * whole.min(LARGEST_STEP) + if large { 2 * whole } else { 0 };
            assert!(held(&pool) <= most, "{} for {size}", held(&pool));
            size += size * 3 / 100;
        }
        assert!(held(&pool) <= 3 * size, "{} for {size}", held(&pool));
    }

    #[test]
    fn the_next_run_finds_the_mappings_of_the_last() {
        let pool = Pool::new();
        let run = || {
            let mut seen = Vec::new();
            for sizes in [&[100 << 20, 40 << 20][..], &[90 << 20][..], &[35 << 20, 35 << 20, 60 << 20][..]] {
                let blocks: Vec<_> = sizes.iter().map(|size| pool.allocate(*size).unwrap()).collect();
                seen.extend(blocks.iter().map(|block| block.as_ptr().addr()));
                // SAFETY: each once.
                blocks.into_iter().for_each(|block| unsafe { pool.give_back(block) });
            }
            seen
        };
        run();
        let (there, seen) = (held(&pool), run());
        for _ in 0..3 {
            let again = run();
            assert!(again.iter().all(|block| seen.contains(block)), "{again:x?} {seen:x?}");
            assert_eq!(held(&pool), there);
        }
        assert!(there <= 2 * (140 << 20), "{there}");
    }

    #[test]
    fn memory_goes_back_with_the_last_block() {
        let (pool, large) = (Pool::new(), 4 << 30);
        let before = mapped();
        let (block, owner) = pool.serve(|| from_pool(large)).unwrap();
        assert!(from_pool(large).is_none(), "no session is served any more");
        drop(pool);
        assert!(mapped() >= before + large);
        // SAFETY: what `from_pool` gave, each once.
        unsafe {
            let pool = Arc::from_raw(owner);
            pool.give_back(block);
        }
        assert!(mapped() < before + large);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let pool = Pool::new();
        for bytes in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 2 * PAGE, 1 << 60] {
            assert!(pool.allocate(bytes).is_none(), "{bytes}");
        }
        assert!(pool.allocate(100).is_some());
    }
}
