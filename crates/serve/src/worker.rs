//! The thread that computes.
//!
//! It alone owns the scheduler, and with it the model's context and all states. Others send it things to do, which it does
//! between two steps; it sleeps while there is nothing. What it has to say goes out through the guides of answers and
//! through channels, so it never waits for anybody.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tangelo_engine::Scheduler;
use tangelo_engine::scheduler::Job;
use tangelo_ops::Cx;
use tokio::sync::oneshot;

use crate::error::ApiError;
use crate::metrics::Metrics;

/// Something to do between two steps.
type Task = Box<dyn FnOnce(&mut Scheduler) + Send>;

/// A handle on the thread.
#[derive(Debug)]
pub struct Worker {
    tasks: Sender<Task>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(scheduler: Scheduler, cx: Cx, metrics: Arc<Metrics>) -> std::io::Result<Worker> {
        let (tasks, waiting) = channel();
        let thread = std::thread::Builder::new().name("model".to_owned());
        let thread = thread.spawn(move || run(scheduler, &cx, &waiting, &metrics))?;
        Ok(Worker { tasks, thread: Mutex::new(Some(thread)) })
    }

    /// Does something with the scheduler between two steps.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn call<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Scheduler) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have left meanwhile.
        let task: Task = Box::new(move |scheduler| drop(answer.send(task(scheduler))));
        self.tasks.send(task).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }

    /// Hands over a job.
    ///
    /// # Errors
    /// The scheduler refuses it, or the thread has ended.
    pub async fn submit(&self, job: Job) -> Result<(), ApiError> {
        self.call(|scheduler| scheduler.submit(job)).await?.map_err(ApiError::from)
    }

    /// Waits for the thread, which ends when the scheduler is closed and idle.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic has been printed already, and there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

fn stopped() -> ApiError {
    ApiError::internal("the model has stopped working: restart the server")
}

fn run(mut scheduler: Scheduler, cx: &Cx, tasks: &Receiver<Task>, metrics: &Metrics) {
    loop {
        if scheduler.is_idle() {
            if scheduler.is_closing() {
                break;
            }
            let Ok(task) = tasks.recv() else { break };
            task(&mut scheduler);
        }
        for task in tasks.try_iter() {
            task(&mut scheduler);
        }
        if !scheduler.is_idle() {
            scheduler.step(cx);
        }
        metrics.set_engine(scheduler.stats(), scheduler.tree().stats());
    }
    scheduler.tree().save_all();
}
