//! A thread pool made for token loops: one fork-join per operation, a few hundred per token.
//!
//! All threads claim parts from one atomic word, the *ticket* `(epoch, parts, next)`. A claim succeeds only
//! for the job in force, and a job ends only when all its parts have completed, so a thread that was not
//! scheduled in time costs nothing: nobody waits for it to check in. Idle threads spin for
//! [`SPINS_BEFORE_PARK`] rounds, long enough to bridge the gap between two operations, and then sleep.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Rounds of spinning before an idle thread sleeps: about 50 µs, several times the gap between operations.
const SPINS_BEFORE_PARK: u32 = 10_000;

/// Rounds of spinning before the caller lets another thread run while it waits for the last part.
const SPINS_BEFORE_YIELD: u32 = 2_000;

const NEXT_BITS: u32 = 20;
const PART_MASK: u64 = (1 << NEXT_BITS) - 1;
/// Most parts of one job.
const PARTS_MAX: usize = PART_MASK as usize;

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// epoch (24 bits) | number of parts (20 bits) | next part to claim (20 bits).
    ticket: AtomicU64,
    /// The job of the epoch in force. Written by the caller while no part is claimable.
    job: UnsafeCell<Option<Job>>,
    completed: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: Mutex<usize>,
    wake: Condvar,
    stop: AtomicBool,
}

// SAFETY: `job` is written only between jobs (no part claimable) and read only after a successful claim,
// which the release store of `ticket` orders after the write. Everything else is atomic or locked.
unsafe impl Sync for Shared {}
// SAFETY: the raw job pointer is only dereferenced while the caller of `run` keeps the closure alive.
unsafe impl Send for Shared {}

/// A fixed set of threads; the calling thread is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during `run`, so that the pool may be shared.
    running: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

impl Pool {
    /// A pool of `threads` threads including the caller's; zero counts as one.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            completed: AtomicUsize::new(0),
            panic: Mutex::new(None),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let spawn = |i: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("tangelo-{i}");
            std::thread::Builder::new().name(name).spawn(move || shared.work()).ok()
        };
        // A system that refuses more threads still computes, with those it granted.
        let workers = (1..threads).map_while(spawn).collect();
        Pool { shared, workers, running: Mutex::new(()) }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(0) .. work(parts - 1)`, each exactly once, and returns when all have finished.
    ///
    /// A panic in a part is raised again here after the other parts have finished.
    pub fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        assert!(parts <= PARTS_MAX, "{parts} parts, at most {PARTS_MAX}");
        if parts <= 1 || self.workers.is_empty() {
            (0..parts).for_each(work);
            return;
        }
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.publish(parts, work);
        while self.shared.claim_and_run() {}
        let mut spins = 0u32;
        while self.shared.completed.load(Ordering::Acquire) < parts {
            std::hint::spin_loop();
            spins += 1;
            if spins > SPINS_BEFORE_YIELD {
                std::thread::yield_now();
            }
        }
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_all();
        for worker in self.workers.drain(..) {
            // A worker cannot panic outside a part, and panics of parts are caught.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Makes the parts of a new job claimable.
    fn publish(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        let job: *const (dyn Fn(usize) + Sync + '_) = work;
        // SAFETY: this only forgets the lifetime. `run` returns after every part has completed, and `job` is
        // dereferenced only by threads that hold an uncompleted part.
        let job: Job = unsafe { std::mem::transmute(job) };
        // SAFETY: no part is claimable between jobs, so no thread reads `job` now; `running` is held.
        unsafe { *self.job.get() = Some(job) };
        self.completed.store(0, Ordering::Relaxed);
        let epoch = (self.ticket.load(Ordering::Relaxed) >> (2 * NEXT_BITS)).wrapping_add(1);
        let ticket = (epoch << (2 * NEXT_BITS)) | ((parts as u64) << NEXT_BITS);
        self.ticket.store(ticket, Ordering::SeqCst);
        if *self.sleepers.lock().unwrap_or_else(PoisonError::into_inner) > 0 {
            self.wake.notify_all();
        }
    }

    fn wake_all(&self) {
        let _sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
    }

    fn is_claimable(&self) -> bool {
        let ticket = self.ticket.load(Ordering::SeqCst);
        (ticket & PART_MASK) < ((ticket >> NEXT_BITS) & PART_MASK)
    }

    /// Claims one part and runs it; false if there was none.
    fn claim_and_run(&self) -> bool {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let next = ticket & PART_MASK;
            if next >= (ticket >> NEXT_BITS) & PART_MASK {
                return false;
            }
            match self.ticket.compare_exchange_weak(ticket, ticket + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.run_part(next as usize);
                    return true;
                }
                Err(now) => ticket = now,
            }
        }
    }

    fn run_part(&self, part: usize) {
        // SAFETY: this thread holds an uncompleted part of the job in force, so `job` was written before the
        // claim and neither it nor the closure it points to changes until `completed` is incremented below.
        let job = unsafe { (*self.job.get()).map(|job| &*job) };
        if let Some(job) = job
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(part)))
        {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        self.completed.fetch_add(1, Ordering::Release);
    }

    /// The life of a worker.
    fn work(&self) {
        let mut spins = 0u32;
        while !self.stop.load(Ordering::Relaxed) {
            if self.claim_and_run() {
                spins = 0;
            } else if spins < SPINS_BEFORE_PARK {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.sleep();
                spins = 0;
            }
        }
    }

    fn sleep(&self) {
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        *sleepers += 1;
        // Checked under the lock: `publish` stores the ticket before it takes the lock to look for sleepers.
        while !self.is_claimable() && !self.stop.load(Ordering::SeqCst) {
            sleepers = self.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
        *sleepers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for parts in [0, 1, 2, 7, 100, 1000] {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.run(parts, &|p| {
                    counts[p].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} {parts}");
            }
        }
    }

    #[test]
    fn many_short_jobs_and_sleeps() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for round in 0..3000 {
            pool.run(4, &|p| {
                total.fetch_add(p + 1, Ordering::Relaxed);
            });
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        }
        assert_eq!(total.into_inner(), 3000 * 10);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            pool.run(8, &|p| assert!(p != 5, "part five"));
        }));
        assert!(panicked.is_err());
        let total = AtomicUsize::new(0);
        pool.run(8, &|_| {
            total.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(total.into_inner(), 8);
    }
}
