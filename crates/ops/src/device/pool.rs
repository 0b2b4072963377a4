//! A thread pool made for token loops: one fork-join per operation, a few hundred per token.
//!
//! All threads claim parts from one atomic word, the *ticket* `(epoch, parts, next)`. A claim succeeds only
//! for the job in force, and a job ends only when all its parts have completed, so a thread that was not
//! scheduled in time costs nothing: nobody waits for it to check in. A claim made with an old ticket cannot
//! succeed either, because the word has changed; should the epoch have come round to the same word, then the
//! claim is a good one of the new job.
//!
//! While a token is being computed a fork-join is a store, a compare-and-swap per claim and an addition per claim
//! of a worker: no lock, no allocation, no system call. Idle workers watch the ticket for
//! [`WATCH_BEFORE_SLEEP`], long enough to bridge the gap between two operations, and then sleep; only a job
//! that finds one asleep pays for a call to wake it. There is one set of workers and one ticket, so of several
//! callers the first one gets them, and the others, like a part that itself calls [`Pool::run`], do their parts
//! alone: waiting for their turn would take longer.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle worker watches the ticket before it sleeps: several times the gap between two operations,
/// and little beside what a token costs in a model large enough to be worth a second thread.
const WATCH_BEFORE_SLEEP: Duration = Duration::from_micros(200);

/// Rounds of spinning before an idle worker lets other threads run between two looks at the ticket: about 20 µs.
/// On a busy machine the thread that it keeps from running may be the caller, which alone can give it work.
const SPINS_BEFORE_YIELD: u32 = 800;

/// Rounds of spinning before the caller sleeps while it waits for the last parts: about 50 µs. A worker that has
/// not finished by then has a long part or has lost its core, perhaps to this very thread. Sleeping is kinder than
/// yielding, which forfeits the rest of the time slice: a thread that slept is given a core soon after it is woken.
const SPINS_BEFORE_WAIT: u32 = 2_000;

/// A claim is for one part in this many times the number of threads that are left.
const CLAIMS_PER_ROUND: u64 = 2;

const NEXT_BITS: u32 = 20;
const PART_MASK: u64 = (1 << NEXT_BITS) - 1;
/// Most parts of one job.
const PARTS_MAX: usize = PART_MASK as usize;

type Job = *const (dyn Fn(usize) + Sync);

/// A value alone on its cache lines (two, because processors fetch them in pairs), so that threads that write
/// one value do not slow down those that watch another.
#[repr(align(128))]
#[derive(Default)]
struct Alone<T>(T);

/// What a worker needs to begin, on the cache lines that a claim brings to it anyway.
#[derive(Default)]
struct Offer {
    /// epoch (24 bits) | number of parts (20 bits) | next part to claim (20 bits).
    ticket: AtomicU64,
    /// The job of the epoch in force. Written by the caller while no part is claimable.
    job: UnsafeCell<Option<Job>>,
}

struct Shared {
    offer: Alone<Offer>,
    /// Parts of the job in force that workers have completed.
    completed: Alone<AtomicUsize>,
    /// Number of true flags in `asleep`, or a moment more. What `run` looks at.
    sleepers: Alone<AtomicUsize>,
    /// One per worker; set by the worker, cleared by whoever takes it upon itself to end the sleep.
    asleep: Box<[AtomicBool]>,
    /// Whether the caller sleeps until the last part has completed, and who it is.
    is_waiting: AtomicBool,
    waiter: Mutex<Option<Thread>>,
    has_panicked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
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
    /// Whether the workers are at some caller's service.
    is_taken: AtomicBool,
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
            offer: Alone::default(),
            completed: Alone::default(),
            sleepers: Alone::default(),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            is_waiting: AtomicBool::new(false),
            waiter: Mutex::new(None),
            has_panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let spawn = |worker: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("tangelo-{}", worker + 1);
            std::thread::Builder::new().name(name).spawn(move || shared.work(worker)).ok()
        };
        // A system that refuses more threads still computes, with those it granted.
        let workers = (0..shared.asleep.len()).map_while(spawn).collect();
        Pool { shared, workers, is_taken: AtomicBool::new(false) }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(0) .. work(parts - 1)`, each exactly once, and returns when all have finished. May be called by
    /// several threads at once and by a part.
    ///
    /// # Panics
    /// If a part does: the panic is raised again here after every part that was begun has finished.
    pub fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        assert!(parts <= PARTS_MAX, "{parts} parts, at most {PARTS_MAX}");
        if parts <= 1 || self.workers.is_empty() || self.is_taken.swap(true, Ordering::Acquire) {
            (0..parts).for_each(work);
            return;
        }
        self.shared.publish(parts, work);
        self.wake(parts - 1);
        let mut by_workers = parts;
        while let Some(claimed) = self.shared.claim() {
            by_workers -= claimed.len();
            claimed.for_each(|part| self.shared.run_part(part));
        }
        self.shared.wait(by_workers);
        let panic = self.shared.take_panic();
        self.is_taken.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Ends the sleep of at most `most` workers.
    fn wake(&self, most: usize) {
        if self.shared.sleepers.0.load(Ordering::SeqCst) == 0 {
            return;
        }
        let asleep = (0..self.workers.len()).filter(|&worker| self.shared.end_sleep(worker));
        asleep.take(most).for_each(|worker| self.workers[worker].thread().unpark());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake(self.workers.len());
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
        // SAFETY: no part is claimable between jobs, so no thread reads `job` now; `is_taken` keeps other callers
        // away.
        unsafe { *self.offer.0.job.get() = Some(job) };
        self.completed.0.store(0, Ordering::Relaxed);
        let epoch = (self.offer.0.ticket.load(Ordering::Relaxed) >> (2 * NEXT_BITS)).wrapping_add(1);
        let ticket = (epoch << (2 * NEXT_BITS)) | ((parts as u64) << NEXT_BITS);
        self.offer.0.ticket.store(ticket, Ordering::SeqCst);
    }

    fn is_claimable(&self, order: Ordering) -> bool {
        let ticket = self.offer.0.ticket.load(order);
        (ticket & PART_MASK) < ((ticket >> NEXT_BITS) & PART_MASK)
    }

    /// The next parts of the job in force, now this thread's; `None` if all are taken. They are a fixed fraction of
    /// what is left (guided self-scheduling, Polychronopoulos & Kuck 1987): many at first, so that claims are few
    /// and threads walk over memory in long strides, one at a time towards the end, so that all end together.
    fn claim(&self) -> Option<Range<usize>> {
        let claims = CLAIMS_PER_ROUND * (self.asleep.len() as u64 + 1);
        let mut ticket = self.offer.0.ticket.load(Ordering::Acquire);
        loop {
            let (next, parts) = (ticket & PART_MASK, (ticket >> NEXT_BITS) & PART_MASK);
            if next >= parts {
                return None;
            }
            let count = ((parts - next) / claims).max(1);
            let after = ticket + count;
            match self.offer.0.ticket.compare_exchange_weak(
                ticket,
                after,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(next as usize..(next + count) as usize),
                Err(now) => ticket = now,
            }
        }
    }

    /// Runs a part that this thread has claimed and not reported as completed.
    fn run_part(&self, part: usize) {
        // SAFETY: the job in force has an uncompleted part, this one, so `job` was written before the claim, and
        // neither it nor the closure it points to goes away meanwhile.
        let job = unsafe { (*self.offer.0.job.get()).map(|job| &*job) };
        if let Some(job) = job
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(part)))
        {
            lock(&self.panic).get_or_insert(panic);
            self.has_panicked.store(true, Ordering::Relaxed);
        }
    }

    /// Returns when workers have completed that many parts of the job in force.
    fn wait(&self, parts: usize) {
        for _ in 0..SPINS_BEFORE_WAIT {
            if self.completed.0.load(Ordering::Acquire) >= parts {
                return;
            }
            spin_loop();
        }
        *lock(&self.waiter) = Some(std::thread::current());
        self.is_waiting.store(true, Ordering::SeqCst);
        while self.completed.0.load(Ordering::SeqCst) < parts {
            std::thread::park();
        }
        self.is_waiting.store(false, Ordering::Relaxed);
    }

    /// Counts parts of a worker, and wakes the caller if it sleeps. A worker that comes late wakes a caller that
    /// does not wait any more, which looks again at what it waits for, if anything.
    fn complete(&self, parts: usize) {
        self.completed.0.fetch_add(parts, Ordering::SeqCst);
        if self.is_waiting.load(Ordering::SeqCst)
            && let Some(waiter) = &*lock(&self.waiter)
        {
            waiter.unpark();
        }
    }

    /// The panic of a part, if there was one. All parts have completed, which orders their writes before this.
    fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        if !self.has_panicked.load(Ordering::Relaxed) {
            return None;
        }
        self.has_panicked.store(false, Ordering::Relaxed);
        lock(&self.panic).take()
    }

    /// The life of a worker.
    fn work(&self, worker: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            while let Some(claimed) = self.claim() {
                let count = claimed.len();
                claimed.for_each(|part| self.run_part(part));
                self.complete(count);
            }
            if !self.watch_ticket() {
                self.sleep(worker);
            }
        }
    }

    /// Waits a little for a part to become claimable; whether one did.
    fn watch_ticket(&self) -> bool {
        for _ in 0..SPINS_BEFORE_YIELD {
            if self.is_claimable(Ordering::Relaxed) {
                return true;
            }
            spin_loop();
        }
        let begin = Instant::now();
        while begin.elapsed() < WATCH_BEFORE_SLEEP {
            if self.is_claimable(Ordering::Relaxed) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Sleeps until [`Pool::wake`], unless there is something to do.
    fn sleep(&self, worker: usize) {
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        self.asleep[worker].store(true, Ordering::SeqCst);
        // `run` stores the ticket before it looks for sleepers, and this thread is one before it looks at the
        // ticket; all four are in one order, so at least one of the two sees the other.
        if self.is_claimable(Ordering::SeqCst) || self.stop.load(Ordering::SeqCst) {
            self.end_sleep(worker);
        }
        while self.asleep[worker].load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    /// Whether `worker` was asleep and this call, no other, ended that.
    fn end_sleep(&self, worker: usize) -> bool {
        let was_asleep = self.asleep[worker].swap(false, Ordering::SeqCst);
        if was_asleep {
            self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
        }
        was_asleep
    }
}

/// What these locks hold is whole whenever they are free, whatever happened to a thread that held one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
                std::thread::sleep(Duration::from_millis(3));
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

    #[test]
    fn callers_may_share_the_pool() {
        let pool = Pool::new(3);
        std::thread::scope(|scope| {
            for caller in 0..4usize {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..2000 {
                        // The length of jobs differs, so that callers meet at every stage of each other's.
                        let parts = 2 + (caller * 7 + round) % 23;
                        let counts: [AtomicUsize; 24] = Default::default();
                        pool.run(parts, &|p| {
                            counts[p].fetch_add(1, Ordering::Relaxed);
                        });
                        let counts = counts.map(AtomicUsize::into_inner);
                        assert!(counts[..parts].iter().all(|c| *c == 1), "{caller} {round}: {counts:?}");
                        assert!(counts[parts..].iter().all(|c| *c == 0), "{caller} {round}: {counts:?}");
                    }
                });
            }
        });
    }

    #[test]
    fn a_caller_sleeps_while_a_worker_is_slow() {
        let pool = Pool::new(2);
        let caller = std::thread::current().id();
        for _ in 0..5 {
            let (worker_began, worker_ended) = (AtomicBool::new(false), AtomicBool::new(false));
            pool.run(2, &|_| {
                if std::thread::current().id() == caller {
                    while !worker_began.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                } else {
                    worker_began.store(true, Ordering::Release);
                    std::thread::sleep(Duration::from_millis(5));
                    worker_ended.store(true, Ordering::Release);
                }
            });
            assert!(worker_ended.into_inner(), "the job ended before its last part");
        }
    }

    #[test]
    fn a_part_may_run_a_job() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        pool.run(5, &|_| {
            pool.run(7, &|p| {
                total.fetch_add(p, Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 5 * 21);
    }

    #[test]
    fn one_caller_sees_its_own_panic_only() {
        let pool = Pool::new(2);
        std::thread::scope(|scope| {
            for caller in 0..2 {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let run =
                            || pool.run(4, &|p| assert!(caller == 0 || p != 2, "part two of caller one"));
                        assert_eq!(catch_unwind(AssertUnwindSafe(run)).is_err(), caller == 1);
                    }
                });
            }
        });
    }
}
