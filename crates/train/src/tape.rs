//! A tape: what was computed, in order, and how to go back.
//!
//! A node is a matrix and a closure that, given the gradient of the matrix, hands gradients to the nodes it was made of and
//! adds to those of parameters. Operations are methods (`nodes.rs`); a tape is used once.

use std::cell::RefCell;
use std::rc::Rc;

use tangelo_ops::elementwise::{add, copy};
use tangelo_ops::{Cx, Mat};

use crate::params::{Gradients, Params};

/// A matrix on a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(usize);

type Backward<'t> = Box<dyn FnOnce(Mat, &mut Pass<'_>) + 't>;

struct Node<'t> {
    value: Rc<Mat>,
    /// `None` of what is given and not computed.
    backward: Option<Backward<'t>>,
}

/// See the module.
pub struct Tape<'t> {
    pub(crate) cx: &'t Cx,
    pub(crate) params: &'t Params,
    nodes: RefCell<Vec<Node<'t>>>,
}

/// The way back: gradients of nodes that are complete or being summed, and those of parameters.
pub(crate) struct Pass<'p> {
    pub cx: &'p Cx,
    pub gradients: &'p mut Gradients,
    of_nodes: Vec<Option<Mat>>,
}

impl Pass<'_> {
    /// Adds to the gradient of a node.
    pub fn give(&mut self, var: Var, gradient: Mat) {
        match &mut self.of_nodes[var.0] {
            Some(sum) => add(self.cx, sum, &gradient),
            none => *none = Some(gradient),
        }
    }
}

impl<'t> Tape<'t> {
    /// An empty tape.
    pub fn new(cx: &'t Cx, params: &'t Params) -> Tape<'t> {
        Tape { cx, params, nodes: RefCell::default() }
    }

    /// The matrix of a node.
    pub fn value(&self, var: Var) -> Rc<Mat> {
        Rc::clone(&self.nodes.borrow()[var.0].value)
    }

    /// A matrix that is given.
    pub fn given(&self, value: Rc<Mat>) -> Var {
        self.push_node(Node { value, backward: None })
    }

    pub(crate) fn push(&self, value: Mat, backward: impl FnOnce(Mat, &mut Pass<'_>) + 't) -> Var {
        self.push_node(Node { value: Rc::new(value), backward: Some(Box::new(backward)) })
    }

    fn push_node(&self, node: Node<'t>) -> Var {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        Var(nodes.len() - 1)
    }

    /// Goes back from the gradient of `var`, adding to the gradients of parameters; returns that of `wanted`, which is
    /// `None` if `var` does not depend on it.
    pub fn backward(
        self,
        var: Var,
        gradient: Mat,
        gradients: &mut Gradients,
        wanted: Option<Var>,
    ) -> Option<Mat> {
        let mut nodes = self.nodes.into_inner();
        let mut pass = Pass { cx: self.cx, gradients, of_nodes: nodes.iter().map(|_| None).collect() };
        pass.give(var, gradient);
        while let Some(node) = nodes.pop() {
            let at = nodes.len();
            if let Some(backward) = node.backward
                && let Some(gradient) = pass.of_nodes[at].take()
            {
                // What the closure does not need is free before it runs.
                drop(node.value);
                backward(gradient, &mut pass);
            }
        }
        wanted.and_then(|var| pass.of_nodes[var.0].take())
    }

    /// `f` of a node, of which only the result is kept: what lies between is computed again on the way back.
    pub fn recomputed(&self, x: Var, f: impl Fn(&Tape<'t>, Var) -> Var + 't) -> Var {
        let (cx, params, input) = (self.cx, self.params, self.value(x));
        let run = move || {
            let inner = Tape::new(cx, params);
            let given = inner.given(Rc::clone(&input));
            let result = f(&inner, given);
            (inner, given, result)
        };
        let (inner, _, result) = run();
        let value = inner.value(result);
        drop(inner);
        let value = Rc::try_unwrap(value).unwrap_or_else(|shared| copy(cx, &shared));
        self.push(value, move |gradient, pass| {
            let (inner, given, result) = run();
            if let Some(gradient) = inner.backward(result, gradient, pass.gradients, Some(given)) {
                pass.give(x, gradient);
            }
        })
    }
}
