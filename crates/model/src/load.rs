//! Walking a checkpoint: a loader stands at a prefix and hands out what lies below it, checked against the
//! configuration.

use crate::error::{Error, Result};
use crate::linear::{Embeddings, Linear, Stored, with_lengths};
use tangelo_core::DType;
use tangelo_formats::{Checkpoint, StoredTensor};
use tangelo_ops::{Cx, Place, Vector};

/// A place in the tree of tensor names.
pub(crate) struct Loader<'a> {
    cx: &'a Cx,
    checkpoint: &'a Checkpoint,
    prefix: String,
    /// Where what it loads goes.
    place: Place,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(cx: &'a Cx, checkpoint: &'a Checkpoint, prefix: &str) -> Loader<'a> {
        Loader { cx, checkpoint, prefix: prefix.to_string(), place: Place::Host }
    }

    /// The same place in the tree, loading to another place.
    pub(crate) fn to(&self, place: Place) -> Loader<'a> {
        Loader { prefix: self.prefix.clone(), place, ..*self }
    }

    /// The place `name` below this one.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Loader<'a> {
        let prefix =
            if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Loader { prefix, ..*self }
    }

    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// The tensor `name` with exactly this shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<StoredTensor> {
        let name = self.name(name);
        let tensor = self.checkpoint.tensor(&name)?;
        if tensor.shape != shape {
            return Err(Error::Shape { name, want: shape.to_vec(), got: tensor.shape });
        }
        Ok(tensor)
    }

    /// A parameter as f32, whatever plain float it is stored as.
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vector> {
        Ok(self.placed(self.host_floats(name, shape)?))
    }

    /// Numbers that were computed from parameters, where this loader puts things.
    pub(crate) fn placed(&self, floats: Vec<f32>) -> Vector {
        self.cx.vector_to(self.place, floats.into())
    }

    /// [`Loader::floats`] to compute with on the host.
    pub(crate) fn host_floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, shape)?;
        if tensor.dtype.is_quantised() {
            return Err(Error::NotPlain { name: self.name(name), dtype: tensor.dtype });
        }
        Ok(tensor.to_f32()?)
    }

    /// Whether the checkpoint has `name`.
    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        Ok(self.checkpoint.find(&self.name(name))?.is_some())
    }

    /// The single number in `name`, of shape [] or [1]; `None` if there is none.
    fn scalar(&self, name: &str) -> Result<Option<f32>> {
        let Some(tensor) = self.checkpoint.find(&self.name(name))? else { return Ok(None) };
        match tensor.to_f32()?.as_slice() {
            [value] => Ok(Some(*value)),
            _ => Err(Error::Shape { name: self.name(name), want: vec![1], got: tensor.shape }),
        }
    }

    /// The number that the elements of an FP8 weight are multiplied by. A weight without it would be wrong by a factor
    /// nobody can know, so it is required.
    fn fp8_scale(&self) -> Result<f32> {
        let name = self.name("weight_scale");
        match self.scalar("weight_scale")? {
            Some(scale) if scale.is_finite() && scale > 0.0 => Ok(scale),
            Some(scale) => Err(Error::Scale { name, scale }),
            None => Err(Error::NoScale { name }),
        }
    }

    /// The linear layer `name`: its weight, the scale of an FP8 weight, and its bias if it should have one.
    ///
    /// ModelOpt's `input_scale`, `k_scale` and `v_scale` describe how activations and the cache may be rounded;
    /// both stay f32 here, so they have no part in the result.
    pub(crate) fn linear(&self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear> {
        let bias = if bias { Some(self.at(name).floats("bias", &shape[..1])?) } else { None };
        let stored = self.stored(name, shape)?;
        let stem = self.name(name);
        match self.checkpoint.adapter().and_then(|adapter| adapter.layer(&stem)) {
            None => Linear::new(self.cx, &stored, bias, self.place),
            Some(adapter) => match &adapter.magnitude {
                Some(lengths) => {
                    let stored = with_lengths(self.cx, stored, adapter, lengths)?;
                    Linear::new(self.cx, &stored, bias, self.place)
                }
                None => Linear::new(self.cx, &stored, bias, self.place)?
                    .with_adapter(self.cx, &stem, adapter, self.place),
            },
        }
    }

    /// The recurrent state (h, p, n) that sequences begin with here, if an adapter has one.
    pub(crate) fn first_state(&self) -> Option<Vector> {
        let state = self.checkpoint.adapter().and_then(|adapter| adapter.state(&self.prefix))?;
        Some(state.to_vec().into())
    }

    /// The table of embeddings `name`.
    pub(crate) fn embeddings(&self, name: &str, shape: [usize; 2]) -> Result<Embeddings> {
        Embeddings::new(self.cx, self.stored(name, shape)?, self.place)
    }

    fn stored(&self, name: &str, shape: [usize; 2]) -> Result<Stored> {
        let at = self.at(name);
        let StoredTensor { dtype, bytes, .. } = at.tensor("weight", &shape)?;
        let scale = match dtype {
            DType::F8E4M3 => at.fp8_scale()?,
            _ => 1.0,
        };
        Ok(Stored { name: at.name("weight"), dtype, shape, bytes, scale })
    }
}
