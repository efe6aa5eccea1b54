use trireme_abi::Writable;

/// A callback of a backend on its way to the sink. It is owed: a sink that forgets it makes the call by that.
pub(crate) struct Callback(Option<Writable>);

// SAFETY: the ABI says that the host may call it from any thread.
unsafe impl Send for Callback {}

impl Drop for Callback {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            // SAFETY: called once, with the pointer that came with it.
            unsafe { (callback.call)(callback.user) };
        }
    }
}

impl Callback {
    pub(crate) fn new(callback: Writable) -> Self {
        Self(Some(callback))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use trireme_abi::{Stage, Writable};

    use crate::response::{Responder, Response, ResponseSink, Verdict};
    use crate::vtables::RESPONDER;

    /// A server that forgets what it is to call, or calls it.
    struct Sink {
        forgets: bool,
        cancelled: AtomicU32,
    }

    impl ResponseSink for Sink {
        fn send(&self, _: Response, _: bool) -> Verdict {
            Verdict::Continue
        }

        fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
            if !self.forgets {
                call();
            }
        }

        fn cancelled(&self) -> &AtomicU32 {
            &self.cancelled
        }

        fn mark(&self, _: Stage, _: u64) {}
    }

    unsafe extern "C" fn count(user: *mut c_void) {
        // SAFETY: the number that the test counts with, which lives longer.
        unsafe { &*user.cast::<AtomicU32>() }.fetch_add(1, SeqCst);
    }

    #[test]
    fn a_callback_is_called_exactly_once_even_if_it_is_forgotten() {
        for forgets in [false, true] {
            let called = AtomicU32::new(0);
            let sink = Arc::new(Sink { forgets, cancelled: AtomicU32::new(0) });
            let handle = Box::into_raw(Box::new(Responder::new(sink))).cast();
            let callback = Writable { call: count, user: called.as_ptr().cast() };
            // SAFETY: a live handle, released once.
            unsafe {
                (RESPONDER.on_writable)(handle, callback);
                (RESPONDER.release)(handle);
            }
            assert_eq!(called.load(SeqCst), 1, "forgets: {forgets}");
        }
    }
}
