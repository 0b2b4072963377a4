//! Parameters, the form in which they are multiplied, and their gradients.
//!
//! Names and shapes are those of the checkpoint, except that the taps of a convolution lie as the operation wants them,
//! (k, c) instead of (c, 1, k): so a gradient is one sum over all tokens, in their order.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::OnceLock;

use tangelo_core::TokenId;
use tangelo_formats::Checkpoint;
use tangelo_formats::config::TensorSpec;
use tangelo_ops::Cx;
use tangelo_ops::matmul::Packed;

use crate::error::{Error, Result};

/// A parameter's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(usize);

/// One tensor.
#[derive(Debug)]
pub struct Param {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// Elements, row-major; those of a convolution (k, c).
    pub data: Vec<f32>,
    /// Whether it learns.
    pub is_trained: bool,
    /// The matrix as it is multiplied, made when it is first wanted.
    packed: OnceLock<Packed>,
}

/// All parameters of a model.
#[derive(Debug, Default)]
pub struct Params(Vec<Param>);

/// A sum for every element of every parameter that learns; empty for the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    sums: Vec<Vec<f32>>,
    /// What is still to be added to tables.
    lookups: Vec<Lookup>,
}

/// The gradient of rows that were looked up in a table. It is added after all else, since a table may be the output matrix
/// too, and a sum must not depend on how its batch is divided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lookup {
    pub table: ParamId,
    pub ids: Rc<[TokenId]>,
    /// One row for each id.
    pub rows: Vec<f32>,
}

impl Param {
    fn is_conv(&self) -> bool {
        self.shape.len() == 3
    }

    /// Rows and columns of a matrix.
    ///
    /// # Panics
    /// If it is none.
    pub fn matrix(&self) -> [usize; 2] {
        self.shape.as_slice().try_into().unwrap_or_else(|_| panic!("{} is not a matrix", self.name))
    }

    /// Numbers that belong to the elements, such as the elements themselves, in the order of the checkpoint.
    pub fn in_checkpoint_order<'a>(&self, data: &'a [f32]) -> Cow<'a, [f32]> {
        match self.shape.as_slice() {
            &[c, _, k] => transpose(data, k, c).into(),
            _ => data.into(),
        }
    }
}

/// Of (rows, cols), the (cols, rows).
fn transpose(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| data[row * cols + col])).collect()
}

impl Params {
    /// Adds a parameter whose elements are in the order of the checkpoint.
    ///
    /// # Panics
    /// If there are not as many elements as the shape says.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], data: Vec<f32>) -> ParamId {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "elements of {shape:?}");
        let (name, shape) = (name.into(), shape.to_vec());
        let mut param = Param { name, shape, data, is_trained: true, packed: OnceLock::new() };
        if param.is_conv() {
            param.data = transpose(&param.data, param.shape[0], param.shape[2]);
        }
        self.0.push(param);
        ParamId(self.0.len() - 1)
    }

    /// The tensors of a checkpoint that its configuration names.
    ///
    /// # Errors
    /// If one is missing, has another shape, or is quantised.
    pub fn load(checkpoint: &Checkpoint) -> Result<Params> {
        let mut params = Params::default();
        for TensorSpec { name, shape } in checkpoint.config().tensors() {
            let tensor = checkpoint.tensor(&name)?;
            if tensor.shape != shape {
                return Err(Error::Shape { name, want: shape, got: tensor.shape });
            }
            if tensor.dtype.is_quantised() {
                return Err(Error::Quantised { name, dtype: tensor.dtype });
            }
            params.add(name, &shape, tensor.to_f32()?);
        }
        Ok(params)
    }

    /// The parameter of this name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.0.iter().position(|param| param.name == name).map(ParamId)
    }

    /// One parameter.
    pub fn get(&self, id: ParamId) -> &Param {
        &self.0[id.0]
    }

    /// One parameter, to change it.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Param {
        let param = &mut self.0[id.0];
        param.packed = OnceLock::new();
        param
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ParamId, &Param)> {
        self.0.iter().enumerate().map(|(i, param)| (ParamId(i), param))
    }

    /// All of their ids.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ParamId> + use<> {
        (0..self.0.len()).map(ParamId)
    }

    /// A matrix as it is multiplied.
    ///
    /// # Panics
    /// If it is none, or the system has no memory for it.
    pub(crate) fn packed(&self, cx: &Cx, id: ParamId) -> &Packed {
        let param = self.get(id);
        param.packed.get_or_init(|| {
            let [rows, cols] = param.matrix();
            Packed::of_floats(cx, rows, cols, &param.data).expect("memory for a weight beside itself")
        })
    }

    /// No gradient yet.
    pub fn no_gradients(&self) -> Gradients {
        let zeros = |param: &Param| vec![0.0; if param.is_trained { param.data.len() } else { 0 }];
        Gradients { sums: self.0.iter().map(zeros).collect(), lookups: Vec::new() }
    }
}

impl Gradients {
    /// That of one parameter, empty if it does not learn.
    pub fn of(&self, id: ParamId) -> &[f32] {
        &self.sums[id.0]
    }

    /// That of one parameter, to add to it; `None` if it does not learn.
    pub fn of_mut(&mut self, id: ParamId) -> Option<&mut [f32]> {
        Some(self.sums[id.0].as_mut_slice()).filter(|gradient| !gradient.is_empty())
    }

    /// Takes that of one parameter out, zeros if it does not learn, to be put back.
    pub(crate) fn take(&mut self, id: ParamId, len: usize) -> Vec<f32> {
        let gradient = std::mem::take(&mut self.sums[id.0]);
        if gradient.is_empty() { vec![0.0; len] } else { gradient }
    }

    /// Puts back what was taken, if the parameter learns.
    pub(crate) fn put(&mut self, id: ParamId, gradient: Vec<f32>, is_trained: bool) {
        if is_trained {
            self.sums[id.0] = gradient;
        }
    }

    /// Keeps what is to be added to a table, if it learns.
    pub(crate) fn look_up(&mut self, lookup: Lookup) {
        if !self.of(lookup.table).is_empty() {
            self.lookups.push(lookup);
        }
    }

    /// What is still to be added to tables, in the order of its tokens.
    pub(crate) fn take_lookups(&mut self) -> Vec<Lookup> {
        std::mem::take(&mut self.lookups)
    }

    /// Sets all to zero.
    pub fn clear(&mut self) {
        self.sums.iter_mut().for_each(|gradient| gradient.fill(0.0));
        self.lookups.clear();
    }

    /// The square root of the sum of all squares, in f64.
    pub fn norm(&self) -> f64 {
        let squares =
            |gradient: &Vec<f32>| gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>();
        self.sums.iter().map(squares).sum::<f64>().sqrt()
    }

    /// Multiplies all.
    pub fn scale(&mut self, by: f32) {
        self.sums.iter_mut().flatten().for_each(|g| *g *= by);
    }
}
