//! A step of decoding as one graph.
//!
//! A token costs a few hundred launches, each shorter than the call that asks for it. So the launches of a step are
//! written down first ([`Gpu::record`]), compared with those of earlier steps, and if there is a graph of the same
//! launches it is run again in one call. Nothing is assumed about what stays the same from step to step: arguments that
//! differ (another sequence's state) are changed in the graph, and other launches make another graph.
//!
//! What changes with every token (its id, the length of a cache) lies in memory, where the kernels look it up.

use super::launch::Launch;
use super::{Gpu, lock};
use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::sys;

/// Graphs kept: a few sizes of batches.
const GRAPHS_MAX: usize = 6;

/// Launches being written down, and graphs of earlier ones.
#[derive(Default)]
pub(super) struct Recorder {
    /// `Some` while recording.
    launches: Option<Vec<Launch>>,
    /// Least recently used first.
    graphs: Vec<Graph>,
}

// SAFETY: handles are numbers to the driver.
unsafe impl Send for Recorder {}

struct Graph {
    launches: Vec<Launch>,
    graph: sys::CUgraph,
    nodes: Vec<sys::CUgraphNode>,
    exec: sys::CUgraphExec,
}

impl Recorder {
    /// Writes the launch down, or returns it if nothing is being recorded.
    pub(super) fn take(&mut self, launch: Launch) -> Option<Launch> {
        match &mut self.launches {
            None => Some(launch),
            Some(launches) => {
                launches.push(launch);
                None
            }
        }
    }

    /// Destroys all graphs.
    ///
    /// # Safety
    /// None may be running, and the context must be current.
    pub(super) unsafe fn drop_graphs(&mut self) {
        for graph in self.graphs.drain(..) {
            // SAFETY: the caller vouches.
            unsafe { graph.destroy() };
        }
    }

    /// The graph of these launches, made or changed if need be.
    ///
    /// # Safety
    /// The context must be current, and the launches what their kernels take.
    unsafe fn graph(&mut self, launches: Vec<Launch>) -> Result<sys::CUgraphExec, DriverError> {
        let alike = |graph: &Graph| {
            graph.launches.len() == launches.len()
                && graph.launches.iter().zip(&launches).all(|(a, b)| a.function == b.function)
        };
        let equal = self.graphs.iter().position(|graph| graph.launches == launches);
        let found = equal.or_else(|| self.graphs.iter().rposition(alike));
        // SAFETY: the caller vouches.
        unsafe {
            let graph = match found {
                Some(i) => {
                    let mut graph = self.graphs.remove(i);
                    graph.update(launches)?;
                    graph
                }
                None => {
                    if self.graphs.len() == GRAPHS_MAX {
                        self.graphs.remove(0).destroy();
                    }
                    Graph::new(launches)?
                }
            };
            let exec = graph.exec;
            self.graphs.push(graph);
            Ok(exec)
        }
    }
}

impl Graph {
    /// One node per launch, each after the one before it.
    unsafe fn new(mut launches: Vec<Launch>) -> Result<Graph, DriverError> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: pointers to locals; the arguments of the launches live through the calls, which copy them.
        unsafe {
            sys::cuGraphCreate(&mut graph, 0).result()?;
            let mut nodes: Vec<sys::CUgraphNode> = Vec::with_capacity(launches.len());
            for launch in &mut launches {
                let (mut node, mut pointers) = (std::ptr::null_mut(), launch.pointers());
                let (before, params) = (nodes.last().copied(), params(launch, &mut pointers));
                let (before, count) =
                    (before.as_ref().map_or(std::ptr::null(), std::ptr::from_ref), nodes.len().min(1));
                sys::cuGraphAddKernelNode_v2(&mut node, graph, before, count, &params).result()?;
                nodes.push(node);
            }
            let exec = driver::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0))?;
            Ok(Graph { launches, graph, nodes, exec })
        }
    }

    /// Gives the nodes whose launches differ those of `launches`, which are of the same kernels.
    unsafe fn update(&mut self, mut launches: Vec<Launch>) -> Result<(), DriverError> {
        for ((old, new), &node) in self.launches.iter().zip(&mut launches).zip(&self.nodes) {
            if old != new {
                let mut pointers = new.pointers();
                let params = params(new, &mut pointers);
                // SAFETY: as in `new`.
                unsafe { sys::cuGraphExecKernelNodeSetParams_v2(self.exec, node, &params).result()? };
            }
        }
        self.launches = launches;
        Ok(())
    }

    unsafe fn destroy(self) {
        // SAFETY: the caller vouches that the graph is not in use. What cannot be destroyed is forgotten.
        unsafe {
            let _ = driver::graph::exec_destroy(self.exec);
            let _ = driver::graph::destroy(self.graph);
        }
    }
}

fn params(launch: &Launch, pointers: &mut [*mut std::ffi::c_void]) -> sys::CUDA_KERNEL_NODE_PARAMS {
    let [x, y, z] = launch.grid.blocks;
    sys::CUDA_KERNEL_NODE_PARAMS {
        func: launch.function.0,
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: launch.grid.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.grid.shared,
        kernelParams: pointers.as_mut_ptr(),
        extra: std::ptr::null_mut(),
        kern: std::ptr::null_mut(),
        ctx: std::ptr::null_mut(),
    }
}

impl Gpu {
    /// Runs `work`, and what it launches as one graph if it only launches: if it reads something back, or writes what a
    /// launch before might use, everything runs as it comes.
    pub fn record<T>(&self, work: impl FnOnce() -> T) -> T {
        lock(&self.0.recorder).launches = Some(Vec::new());
        let result = work();
        let mut recorder = lock(&self.0.recorder);
        let launches = recorder.launches.take().filter(|launches| !launches.is_empty());
        if let Some(launches) = launches {
            // SAFETY: `attempt` makes the context current; the launches are those of `launch`.
            self.attempt("running a graph", || unsafe {
                driver::graph::launch(recorder.graph(launches)?, self.0.stream)
            });
        }
        result
    }

    /// Runs what has been recorded and ends recording, if there is something.
    pub(super) fn flush(&self) {
        let launches = {
            let mut recorder = lock(&self.0.recorder);
            let is_idle = recorder.launches.as_ref().is_none_or(Vec::is_empty);
            if is_idle { None } else { recorder.launches.take() }
        };
        for mut launch in launches.into_iter().flatten() {
            // SAFETY: as in `launch`.
            self.attempt("running a kernel", || unsafe { launch.run(self.0.stream) });
        }
    }

    /// Number of graphs that are kept, for tests and reports.
    pub fn num_graphs(&self) -> usize {
        lock(&self.0.recorder).graphs.len()
    }
}
