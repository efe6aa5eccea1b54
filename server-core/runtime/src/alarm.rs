//! Wakes a queue whose instances are all busy when a request in it has waited too long: nobody else would look.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use trireme_telemetry::clock::now_ns;

use crate::queue::Queue;
use crate::statistics::lock;

/// One thread for all models; it is started with the first alarm.
static ALARMS: OnceLock<Alarms> = OnceLock::new();

#[derive(Default)]
struct Alarms {
    due: Mutex<BinaryHeap<Reverse<Due>>>,
    earlier: Condvar,
}

struct Due {
    at_ns: u64,
    queue: Weak<Queue>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at_ns == other.at_ns
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at_ns.cmp(&other.at_ns)
    }
}

/// Calls `on_alarm` of the queue at that time, unless it is gone by then.
pub(crate) fn set(at_ns: u64, queue: Weak<Queue>) {
    let mut first = false;
    let alarms = ALARMS.get_or_init(|| {
        first = true;
        Alarms::default()
    });
    if first {
        let spawned = std::thread::Builder::new().name("alarms".to_owned()).spawn(|| alarms.run());
        if let Err(error) = spawned {
            tracing::error!("no thread for queue timeouts, they act when an instance is free: {error}");
        }
    }
    let mut due = lock(&alarms.due);
    let earlier = due.peek().is_none_or(|Reverse(next)| at_ns < next.at_ns);
    due.push(Reverse(Due { at_ns, queue }));
    drop(due);
    if earlier {
        alarms.earlier.notify_one();
    }
}

impl Alarms {
    fn run(&self) {
        let mut due = lock(&self.due);
        loop {
            let now = now_ns();
            due = match due.peek().map(|Reverse(next)| next.at_ns) {
                None => self.earlier.wait(due).unwrap_or_else(PoisonError::into_inner),
                Some(at_ns) if at_ns > now => {
                    let wait = Duration::from_nanos(at_ns - now);
                    self.earlier.wait_timeout(due, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    let queue = due.pop().and_then(|Reverse(due)| due.queue.upgrade());
                    drop(due);
                    if let Some(queue) = queue {
                        queue.on_alarm();
                    }
                    lock(&self.due)
                }
            };
        }
    }
}
